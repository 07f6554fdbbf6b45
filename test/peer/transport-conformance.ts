/** What every transport does: one suite, to which each implementation hands itself. */
import { test } from "tap";
import {
  BusyError,
  InvalidInputError,
  NotLeaderError,
  OutcomeUnknownError,
  StaleDataDirectoryError,
  TooLargeError,
  UnavailableError,
  UnsupportedError,
} from "../../src/errors.ts";
import { InstanceBook } from "../../src/peer/instance-book.ts";
import { nodeId, open, selfOf, type World } from "./parties.ts";

const PATIENT = { timeoutMs: 20_000 };

export function transportConformance(name: string, create: () => Promise<World>): void {
  test(`${name}: messages arrive in order, whatever is under way, and name their sender`, async (t) => {
    const world = await create();
    const a = await world.party(selfOf("a"));
    const b = await world.party(selfOf("b"));
    const addressA = await open(a);
    const to = { nodeId: nodeId("b"), address: await open(b) };
    t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));

    for (let n = 0; n < 500; n++) {
      a.transport.send(to, n % 2 === 0 ? "ring" : "replication", { kind: "ping", n });
      if (n % 50 === 0) await new Promise(setImmediate);
    }
    await b.inbox.until(() => b.inbox.received.length === 500);

    t.strictSame(
      b.inbox.pings,
      Array.from({ length: 500 }, (_, n) => n),
    );
    t.strictSame(b.inbox.received[0]?.from, {
      nodeId: nodeId("a"),
      address: addressA,
      incarnation: 1,
      instance: "a000000000000001",
    });
    t.equal(b.inbox.received[1]?.channel, "replication");
  });

  test(`${name}: values arrive as they were sent: bytes, undefined, big numbers, nested`, async (t) => {
    const world = await create();
    const a = await world.party(selfOf("a"));
    const b = await world.party(selfOf("b"));
    await open(a);
    const to = { nodeId: nodeId("b"), address: await open(b) };
    t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));
    const value = {
      bytes: new Uint8Array([0, 255, 7]),
      list: [1, undefined, null, -1.5, 2 ** 40],
      big: 2n ** 63n,
      text: "ü\u0000\u00ff€",
      absent: undefined,
    };

    const answer = await a.transport.call(to, "operate", { kind: "echo", value }, PATIENT);

    t.strictSame(answer, { kind: "echo", value: { ...value, bytes: Buffer.from([0, 255, 7]) } });
  });

  test(`${name}: an expected failure arrives as its own class, a defect as UNAVAILABLE without details`, async (t) => {
    const world = await create();
    const a = await world.party(selfOf("a"));
    const b = await world.party(selfOf("b"));
    await open(a);
    const failures: Record<string, Error> = {
      leader: new NotLeaderError(7, nodeId("c")),
      busy: new BusyError("the queue", 250),
      unknown: new OutcomeUnknownError("write"),
      input: new InvalidInputError("bad", [{ path: "scope.maxPages", message: "too many" }]),
      defect: new TypeError("secret detail"),
    };
    const address = await open(b, async (_from, _procedure, input) => {
      throw failures[(input as { value: string }).value];
    });
    const to = { nodeId: nodeId("b"), address };
    t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));
    const ask = (value: string): Promise<Error> =>
      a.transport.call(to, "operate", { kind: "echo", value }, PATIENT).then(
        () => new Error("it did not fail"),
        (error: Error) => error,
      );

    const leader = await ask("leader");
    const busy = await ask("busy");
    const unknown = await ask("unknown");
    const input = await ask("input");
    const defect = await ask("defect");

    t.ok(leader instanceof NotLeaderError && leader.partition === 7 && leader.leader === nodeId("c"));
    t.equal(leader.message, "this server does not lead partition 7, cccccccc does");
    t.ok(busy instanceof BusyError && busy.retryAfterMs === 250);
    t.equal(busy.message, "the queue is at its limit; try again in 250 ms");
    t.ok(unknown instanceof OutcomeUnknownError);
    t.strictSame(input instanceof InvalidInputError && input.issues, [
      { path: "scope.maxPages", message: "too many" },
    ]);
    t.ok(defect instanceof UnavailableError);
    t.notMatch(defect.message, /secret/);
    t.equal(b.log.lines.filter(({ event }) => event === "peer call failed").length, 1);
  });

  test(`${name}: a slow call keeps no other waiting, and one not answered in time is UNAVAILABLE`, async (t) => {
    const world = await create();
    const a = await world.party(selfOf("a"));
    const b = await world.party(selfOf("b"));
    await open(a);
    let release = () => {};
    const held = new Promise<void>((resolve) => (release = resolve));
    const address = await open(b, async (_from, _procedure, input) => {
      if ((input as { kind: string }).kind === "slow") await held;
      return input;
    });
    const to = { nodeId: nodeId("b"), address };
    t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));

    const slow = a.transport.call(to, "operate", { kind: "slow", name: "x" }, PATIENT);
    const never = t.rejects(
      a.transport.call(to, "operate", { kind: "slow", name: "y" }, { timeoutMs: 30 }),
      UnavailableError,
    );
    const quick = a.transport.call(to, "operate", { kind: "echo", value: 1 }, PATIENT);

    t.strictSame(await quick, { kind: "echo", value: 1 });
    await never;
    release();
    t.strictSame(await slow, { kind: "slow", name: "x" });
  });

  test(`${name}: an aborted call is given up at once`, async (t) => {
    const world = await create();
    const a = await world.party(selfOf("a"));
    const b = await world.party(selfOf("b"));
    await open(a);
    const address = await open(b, () => new Promise(() => {}));
    const to = { nodeId: nodeId("b"), address };
    t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));
    const abort = new AbortController();

    const call = a.transport.call(
      to,
      "operate",
      { kind: "slow", name: "x" },
      { ...PATIENT, signal: abort.signal },
    );
    abort.abort();

    await t.rejects(call, UnavailableError);
  });

  test(`${name}: nothing listens: the call fails, the node is named as refused, later sends arrive`, async (t) => {
    const world = await create();
    const a = await world.party(selfOf("a"));
    const b = await world.party(selfOf("b"));
    await open(a);
    const address = await open(b);
    const to = { nodeId: nodeId("b"), address };
    await a.transport.call(to, "status", null, PATIENT).catch(() => {});
    await b.transport.close();

    await t.rejects(a.transport.call(to, "status", null, PATIENT), UnavailableError);
    a.transport.send(to, "ring", { kind: "ping", n: 1 });
    await a.inbox.until(() => a.inbox.refused.length > 0);
    t.equal(a.inbox.refused[0], nodeId("b"));

    const again = await world.party(
      selfOf("b", { incarnation: 2, instance: "b000000000000002", earlierInstances: ["b000000000000001"] }),
      b.book,
      address.port,
    );
    t.teardown(() => Promise.all([a.transport.close(), again.transport.close()]));
    await open(again);
    const feed = setInterval(() => a.transport.send(to, "ring", { kind: "ping", n: 2 }), 20);
    await again.inbox.until(() => again.inbox.pings.includes(2));
    clearInterval(feed);
    t.strictSame(again.inbox.received[0]?.from.instance, "a000000000000001");
  });

  test(`${name}: a start that doesn't know of a later one is refused as an old copy`, async (t) => {
    const world = await create();
    const a = await world.party(selfOf("a"));
    const later = { nodeId: nodeId("a"), incarnation: 9, instance: "a000000000000009" };
    const seenLater = new InstanceBook([later]);
    const b = await world.party(selfOf("b"), seenLater);
    await open(a);
    const to = { nodeId: nodeId("b"), address: await open(b) };
    t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));

    await t.rejects(a.transport.call(to, "status", null, PATIENT), StaleDataDirectoryError);
    a.transport.send(to, "ring", { kind: "ping", n: 1 });
    await t.rejects(
      b.transport.call(
        { nodeId: nodeId("a"), address: { host: "127.0.0.1", port: 1 } },
        "status",
        null,
        PATIENT,
      ),
      UnavailableError,
    );

    t.strictSame(a.stale[0], nodeId("b"));
    t.strictSame(b.inbox.received, []);
    t.ok(b.book.isCurrent(later), "nothing was learned from it");
    t.equal(b.log.lines.filter(({ event }) => event === "peer refused").length, 1, "logged once");
  });

  test(`${name}: after a later start was heard, an earlier one is not listened to`, async (t) => {
    const world = await create();
    const old = await world.party(selfOf("a"));
    const b = await world.party(selfOf("b"));
    await open(old);
    const to = { nodeId: nodeId("b"), address: await open(b, async () => ({ ok: true })) };
    await old.transport.call(to, "status", null, PATIENT);
    const fresh = await world.party(
      selfOf("a", { incarnation: 2, instance: "a000000000000002", earlierInstances: ["a000000000000001"] }),
    );
    await open(fresh);
    t.teardown(() => Promise.all([old.transport.close(), fresh.transport.close(), b.transport.close()]));

    t.strictSame(await fresh.transport.call(to, "status", null, PATIENT), { ok: true });
    old.transport.send(to, "ring", { kind: "ping", n: 1 });
    await t.rejects(old.transport.call(to, "status", null, PATIENT), StaleDataDirectoryError);
    fresh.transport.send(to, "ring", { kind: "ping", n: 2 });
    await b.inbox.until(() => b.inbox.pings.length > 0);

    t.strictSame(b.inbox.pings, [2]);
  });

  test(`${name}: what is too large, unknown or malformed is refused, and nothing else suffers`, async (t) => {
    const world = await create();
    const a = await world.party(selfOf("a"));
    const b = await world.party(selfOf("b"));
    await open(a);
    const address = await open(b, async (_from, procedure, input) =>
      procedure === "putBlob" ? (input as { bytes: Uint8Array }).bytes.length : { ok: 1 },
    );
    const to = { nodeId: nodeId("b"), address };
    t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));
    const MiB = 1024 * 1024;
    const future: object = { kind: "later", n: 1 };
    const wrong: object = { kind: "ping", n: "one" };
    const putBlob = (size: number) =>
      a.transport.call(to, "putBlob", { bytes: new Uint8Array(size) }, PATIENT);

    t.equal(await putBlob(7 * MiB), 7 * MiB);
    await t.rejects(putBlob(8 * MiB), TooLargeError);
    await t.rejects(
      a.transport.call(to, "operate", future as { kind: "slow"; name: string }, PATIENT),
      UnsupportedError,
    );
    await t.rejects(
      a.transport.call(
        to,
        "operate",
        { kind: "slow", name: 1 } as object as { kind: "slow"; name: string },
        PATIENT,
      ),
      InvalidInputError,
    );
    await t.rejects(
      a.transport.call(to, "status", null, PATIENT),
      UnavailableError,
      "an answer of the wrong shape",
    );
    await t.rejects(a.transport.call(to, "join", { publicKey: "" }, PATIENT), /role node may not call join/);
    a.transport.send(to, "ring", future as { kind: "ping"; n: number });
    a.transport.send(to, "ring", wrong as { kind: "ping"; n: number });
    a.transport.send(to, "ring", { kind: "blob", bytes: new Uint8Array(8 * MiB) });
    a.transport.send(to, "ring", { kind: "ping", n: 1, more: "dropped" } as { kind: "ping"; n: number });
    await b.inbox.until(() => b.inbox.received.length > 0);

    t.strictSame(
      b.inbox.received.map(({ message }) => message),
      [{ kind: "ping", n: 1 }],
    );
  });

  test(`${name}: frames are split at their bound and arrive in order`, async (t) => {
    const world = await create();
    const a = await world.party(selfOf("a"));
    const b = await world.party(selfOf("b"));
    await open(a);
    const to = { nodeId: nodeId("b"), address: await open(b) };
    t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));

    for (let n = 0; n < 9; n++) {
      a.transport.send(to, "ring", { kind: "blob", bytes: new Uint8Array(3 * 1024 * 1024).fill(n) });
      a.transport.send(to, "ring", { kind: "ping", n });
    }
    await b.inbox.until(() => b.inbox.received.length === 18);

    t.strictSame(b.inbox.pings, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test(`${name}: what a message gives rise to for its sender comes back with the answer, and names who answered`, async (t) => {
    const world = await create();
    const a = await world.party(selfOf("a"));
    const b = await world.party(selfOf("b"));
    await open(a);
    // No frame of b's own would get there.
    const unreachable = { nodeId: nodeId("a"), address: { host: "127.0.0.1", port: 1 } };
    const addressB = await b.transport.listen({
      ...b.inbox.handlers(),
      message: (_from, _channel, message) => {
        if (message.kind !== "ping") return;
        b.transport.send(unreachable, "replication", { kind: "ping", n: message.n * 10 });
        b.transport.send(unreachable, "ring", { kind: "ping", n: message.n * 10 + 1 });
      },
    });
    t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));

    const to = { nodeId: nodeId("b"), address: addressB };
    a.transport.send(to, "ring", { kind: "ping", n: 1 });
    a.transport.send(to, "ring", { kind: "ping", n: 2 });
    await a.inbox.until(() => a.inbox.received.length >= 4);

    t.strictSame(a.inbox.pings, [10, 11, 20, 21]);
    t.equal(a.inbox.received[0]?.channel, "replication");
    t.strictSame(a.inbox.received[3]?.from, {
      nodeId: nodeId("b"),
      address: addressB,
      incarnation: 1,
      instance: "b000000000000001",
    });
  });

  test(`${name}: messages stay in order, whether they travel in frames or in answers`, async (t) => {
    const world = await create();
    const a = await world.party(selfOf("a"));
    const b = await world.party(selfOf("b"));
    const refs = {
      a: { nodeId: nodeId("a"), address: { host: "", port: 0 } },
      b: { nodeId: nodeId("b"), address: { host: "", port: 0 } },
    };
    const sent = { a: 0, b: 0 };
    const next = (from: "a" | "b") => {
      const [party, to] = from === "a" ? [a, refs.b] : [b, refs.a];
      party.transport.send(to, "ring", { kind: "ping", n: sent[from]++ });
    };
    const answering = (party: typeof a, self: "a" | "b") => {
      const handlers = party.inbox.handlers();
      return party.transport.listen({
        ...handlers,
        message: (from, channel, message) => {
          handlers.message(from, channel, message);
          if (message.kind === "ping" && message.n % 3 === 0) next(self);
        },
      });
    };
    refs.a.address = await answering(a, "a");
    refs.b.address = await answering(b, "b");
    t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));

    for (let n = 0; n < 400; n++) {
      next(n % 2 === 0 ? "a" : "b");
      if (n % 5 === 0) await new Promise(setImmediate);
      if (n % 40 === 0) await b.inbox.until(() => b.inbox.pings.length > sent.a / 2);
    }
    // What one hears makes it speak: both must be through at the same moment.
    const isQuiet = () => a.inbox.pings.length === sent.b && b.inbox.pings.length === sent.a;
    await Promise.race([a.inbox.until(isQuiet), b.inbox.until(isQuiet)]);

    t.strictSame(
      a.inbox.pings,
      Array.from({ length: sent.b }, (_, n) => n),
    );
    t.strictSame(
      b.inbox.pings,
      Array.from({ length: sent.a }, (_, n) => n),
    );
    t.ok(sent.a > 250 && sent.b > 250);
  });

  test(`${name}: an answer carries a quarter of a mebibyte; what is more arrives after it`, async (t) => {
    const world = await create();
    const a = await world.party(selfOf("a"));
    const b = await world.party(selfOf("b"));
    const refA = { nodeId: nodeId("a"), address: await open(a) };
    const address = await b.transport.listen({
      ...b.inbox.handlers(),
      message: () => {
        for (let n = 0; n < 5; n++) {
          b.transport.send(refA, "ring", { kind: "blob", bytes: new Uint8Array(100_000).fill(n) });
          b.transport.send(refA, "ring", { kind: "ping", n });
        }
        b.transport.send(refA, "ring", { kind: "blob", bytes: new Uint8Array(3_000_000) });
        b.transport.send(refA, "ring", { kind: "ping", n: 5 });
      },
    });
    t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));

    a.transport.send({ nodeId: nodeId("b"), address }, "ring", { kind: "ping", n: 1 });
    await a.inbox.until(() => a.inbox.received.length === 12);

    t.strictSame(a.inbox.pings, [0, 1, 2, 3, 4, 5]);
    const sizes = a.inbox.received.map(({ message }) => (message.kind === "blob" ? message.bytes.length : 0));
    t.strictSame(sizes, [100_000, 0, 100_000, 0, 100_000, 0, 100_000, 0, 100_000, 0, 3_000_000, 0]);
  });

  test(`${name}: what comes back is checked like any message`, async (t) => {
    const world = await create();
    const a = await world.party(selfOf("a"));
    const b = await world.party(selfOf("b"));
    const refA = { nodeId: nodeId("a"), address: await open(a) };
    const wrong: object[] = [{ kind: "ping", n: "one" }, { kind: "later" }];
    const address = await b.transport.listen({
      ...b.inbox.handlers(),
      message: () => {
        for (const message of wrong) b.transport.send(refA, "ring", message as { kind: "ping"; n: number });
        b.transport.send(refA, "ring", { kind: "ping", n: 1, more: "dropped" } as {
          kind: "ping";
          n: number;
        });
      },
    });
    t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));

    a.transport.send({ nodeId: nodeId("b"), address }, "ring", { kind: "ping", n: 1 });
    await a.inbox.until(() => a.inbox.received.length > 0);

    t.strictSame(
      a.inbox.received.map(({ message }) => message),
      [{ kind: "ping", n: 1 }],
    );
  });
}
