import { once } from "node:events";
import { request as httpsRequest } from "node:https";
import { connect as connectPlain, createServer, type Socket } from "node:net";
import { connect } from "node:tls";
import fc from "fast-check";
import { test } from "tap";
import { ForbiddenError, RefusedError, UnavailableError } from "../../src/errors.ts";
import { createAuthority, readCertificate } from "../../src/identity/certificate-authority.ts";
import { createJoinToken, readJoinToken } from "../../src/identity/join-token.ts";
import { packCalls, packHead, packMessages } from "../../src/peer/frame.ts";
import type { Credentials } from "../../src/peer/https-exchange.ts";
import { callJoin } from "../../src/peer/join-call.ts";
import { pack, unpack } from "../../src/peer/msgpack.ts";
import { Connection } from "../../src/peer/rpc-server.ts";
import type { PeerAddress, PeerSender } from "../../src/peer/transport.ts";
import { nodeId, open, type Procedures, SocketWorld, selfOf } from "./parties.ts";
import { transportConformance } from "./transport-conformance.ts";

const SEED = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
const PATIENT = { timeoutMs: 20_000 };
const world = await SocketWorld.create();

transportConformance("TrpcTransport", async () => world);

interface Response {
  readonly status: number;
  readonly body: Buffer;
}

/** One request with these credentials, past our own client. */
function post(
  address: PeerAddress,
  credentials: Partial<Credentials> & { readonly rootCertificate: string },
  body: Buffer,
  options: { readonly path?: string; readonly headers?: Record<string, string> } = {},
): Promise<Response> {
  return new Promise((resolve, reject) => {
    const request = httpsRequest(
      {
        ...address,
        path: options.path ?? "/rpc",
        method: "POST",
        agent: false,
        ca: credentials.rootCertificate,
        cert: credentials.certificate,
        key: credentials.key,
        checkServerIdentity: () => undefined,
        headers: options.headers ?? { "content-length": String(body.length) },
      },
      (response) => {
        const pieces: Buffer[] = [];
        response.on("data", (piece: Buffer) => pieces.push(piece));
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(pieces) }));
        response.on("error", reject);
      },
    );
    request.on("error", reject);
    request.end(body);
  });
}

const headOf = (digit: string, more: Parameters<typeof selfOf>[1] = {}) =>
  packHead(selfOf(digit, more), { host: "127.0.0.1", port: 1 });
const echo = pack(["operate", { kind: "echo", value: 1 }]);

async function member(digit: string) {
  const party = await world.party(selfOf(digit));
  const address = await open(party);
  return { ...party, address, to: { nodeId: nodeId(digit), address } };
}

test("TLS turns away who has no certificate, a foreign one, an expired one, or one for edges", async (t) => {
  const b = await member("b");
  t.teardown(() => b.transport.close());
  const { rootCertificate } = world.authority;
  const foreign = await SocketWorld.create("testcluster");
  const frame = packCalls(headOf("a"), [echo]);

  await t.rejects(post(b.address, { rootCertificate }, frame), "no certificate");
  await t.rejects(
    post(b.address, { ...(await foreign.credentials(nodeId("a"))), rootCertificate }, frame),
    "another authority, even under the same name",
  );
  await t.rejects(post(b.address, await world.credentials(nodeId("a"), "edge"), frame), "role edge");
  await t.rejects(post(b.address, await world.credentials(nodeId("a"), "node", -1000), frame), "expired");
  const old = connect({
    ...b.address,
    ...tlsOf(await world.credentials(nodeId("a"))),
    maxVersion: "TLSv1.2",
  });
  const outcome = once(old, "secureConnect").then(() => "connected");
  t.not(await outcome.catch((error: Error) => error.message), "connected", "TLS 1.2");

  t.ok(b.transport.counts.refused >= 4);
  t.strictSame(b.inbox.received, []);
});

test("a frame is refused when it, or its certificate, is of another cluster, node or version", async (t) => {
  const b = await member("b");
  t.teardown(() => b.transport.close());
  const mine = await world.credentials(nodeId("a"));
  const { clusterId: _, ...authority } = world.authority;
  const elsewhere = new SocketWorldOf({ ...authority, clusterId: "othercluster" });
  const refusalOf = async (credentials: Credentials, frame: Buffer) => {
    const { status, body } = await post(b.address, credentials, frame);
    return [status, (unpack(body) as { code: string }).code];
  };
  const calls = (head: Buffer) => packCalls(head, [echo]);
  const laterHead = pack({
    version: [2, 0],
    clusterId: "testcluster",
    from: nodeId("a"),
    address: { host: "x", port: 1 },
    incarnation: 1,
    instance: "a",
  });
  const later = Buffer.concat([Buffer.from([0, laterHead.length]), laterHead]);

  t.strictSame(await refusalOf(await elsewhere.credentials(nodeId("a")), calls(headOf("a"))), [
    403,
    "REFUSED",
  ]);
  t.strictSame(await refusalOf(mine, calls(headOf("a", { clusterId: "othercluster" }))), [403, "REFUSED"]);
  t.strictSame(await refusalOf(mine, calls(headOf("a", { clusterId: "othercluster" }))), [403, "REFUSED"]);
  t.strictSame(await refusalOf(mine, calls(headOf("c"))), [403, "REFUSED"]);
  t.strictSame(await refusalOf(mine, calls(later)), [403, "REFUSED"]);
  t.equal((await post(b.address, mine, calls(headOf("a")))).status, 428, "the instances were not shown");

  const warnings = b.log.lines.filter(({ event }) => event === "peer refused");
  t.equal(warnings.length, 4, "each reason is logged once, not per frame: two clusters, node, version");
  t.strictSame(b.inbox.received, []);
});

/** Issues with another cluster's name under the same keys: only the name in the certificate differs. */
class SocketWorldOf {
  readonly #world: SocketWorld;
  constructor(authority: SocketWorld["authority"]) {
    this.#world = Object.assign(Object.create(SocketWorld.prototype), { authority });
  }
  credentials(name: string): Promise<Credentials> {
    return this.#world.credentials(name);
  }
}

test("a member is spoken to only when its certificate names the node that was meant", async (t) => {
  const a = await member("a");
  const b = await member("b");
  t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));

  const failure = await a.transport
    .call({ nodeId: nodeId("c"), address: b.address }, "status", null, PATIENT)
    .catch((error: unknown) => error);
  a.transport.send({ nodeId: nodeId("c"), address: b.address }, "ring", { kind: "ping", n: 1 });
  a.transport.send(b.to, "ring", { kind: "ping", n: 2 });
  await b.inbox.until(() => b.inbox.received.length > 0);

  t.ok(failure instanceof UnavailableError && failure.cause instanceof RefusedError);
  t.match(failure, { message: /is node b+, not node c+/ });
  t.strictSame(b.inbox.pings, [2]);
});

test("an address that is none can't be reached, and harms nobody", async (t) => {
  const [alice, bob] = [await world.party(selfOf("a")), await world.party(selfOf("b"))];
  t.teardown(() => Promise.all([alice.transport.close(), bob.transport.close()]));
  await open(alice);
  const { port } = await open(bob);

  for (const host of ["", " ", "127.0.0.\u00b0x", "1.2.3.999", "a:b", "a/b", "a?b", "me@127.0.0.1", "\0"]) {
    const to = { nodeId: nodeId("b"), address: { host, port } };
    alice.transport.send(to, "ring", { kind: "ping", n: 1 });
    await t.rejects(
      alice.transport.call(to, "status", null, { timeoutMs: 500 }),
      UnavailableError,
      JSON.stringify(host),
    );
  }
  const to = { nodeId: nodeId("b"), address: { host: "127.0.0.1", port } };
  t.same(await alice.transport.call(to, "operate", { kind: "echo", value: 1 }, PATIENT), {
    kind: "echo",
    value: 1,
  });
});

test("a join token lets a server call join, and nothing but join", async (t) => {
  const b = await world.party(selfOf("b"));
  const senders: PeerSender[] = [];
  const address = await b.transport.listen(
    b.inbox.handlers(async (from, procedure, input) => {
      senders.push(from);
      if (procedure === "join" && (input as { publicKey: string }).publicKey === "bad")
        throw new ForbiddenError("no");
      return { welcome: procedure };
    }),
  );
  t.teardown(() => b.transport.close());
  const { token, record } = await createJoinToken(world.authority, [], Date.now());
  const joinToken = readJoinToken(token);
  const ask = (input: Procedures["join"]["input"], over: Partial<typeof joinToken> = {}) =>
    callJoin({
      address,
      token: { ...joinToken, ...over },
      identify: readCertificate,
      input,
      timeoutMs: 5000,
    });

  t.strictSame(await ask({ publicKey: "k" }), { welcome: "join" });
  t.equal(senders[0]?.nodeId, record.id, "the sender is the token");
  await t.rejects(ask({ publicKey: "bad" }), ForbiddenError);
  await t.rejects(ask({ publicKey: 7 } as object as { publicKey: string }), { code: "INVALID_INPUT" });
  const other = await createAuthority("testcluster", Date.now());
  await t.rejects(ask({ publicKey: "k" }, { rootCertificate: other.rootCertificate }), {
    code: "UNAVAILABLE",
  });
  await t.rejects(ask({ publicKey: "k" }, { clusterId: "othercluster" }), {
    message: /^the server at this address belongs to cluster testcluster, not othercluster/,
  });
  t.throws(
    () => new Connection({ role: "edge", name: "e", clusterId: "testcluster" }, ""),
    RefusedError,
    "an edge can't pass for a joiner either",
  );

  const joiner = { ...joinToken, certificate: joinToken.certificate };
  const nobody = headOf("a", { nodeId: "" });
  for (const procedure of ["operate", "status", "putBlob", "hello", "deliver"]) {
    const input = procedure === "deliver" ? [1, 0, [["ring", { kind: "ping", n: 1 }]]] : { earlier: [] };
    const { status, body } = await post(address, joiner, packCalls(nobody, [pack([procedure, input])]));
    t.equal(status, 200);
    t.match(body.toString("latin1"), procedure === "hello" ? /UNSUPPORTED/ : /FORBIDDEN/, procedure);
  }
  t.equal((await post(address, joiner, Buffer.alloc(100_000))).status, 413, "it may not say much");
  t.equal(senders.length, 2);
  t.strictSame(b.inbox.received, []);
});

test("a port in use is told as such, and what to do", async (t) => {
  const a = await member("a");
  const b = await world.party(selfOf("b"), undefined, a.address.port);
  t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));

  await t.rejects(open(b), { code: "USAGE", message: /EADDRINUSE.*--peer-port/ });
});

test("an oversized frame is refused before it is read, announced or not", async (t) => {
  const b = await member("b");
  t.teardown(() => b.transport.close());
  const mine = await world.credentials(nodeId("a"));
  const large = Buffer.alloc(9 * 1024 * 1024);

  // The server hangs up in the middle: the answer may or may not be seen before that.
  const announced = await post(b.address, mine, large).catch(() => ({ status: 413 }));
  const chunked = await post(b.address, mine, large, { headers: { "transfer-encoding": "chunked" } }).catch(
    () => ({
      status: 413,
    }),
  );

  t.equal(announced.status, 413);
  t.equal(chunked.status, 413);
  t.equal(b.transport.counts.malformed, 2);
});

test(`no bytes bring a member down or change it (SEED=${SEED})`, async (t) => {
  const a = await member("a");
  const b = await member("b");
  t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));
  const mine = await world.credentials(nodeId("a"));
  await a.transport.call(b.to, "operate", { kind: "echo", value: 1 }, PATIENT);
  const head = headOf("a");
  const good = packMessages(head, [pack(["ring", { kind: "blob", bytes: new Uint8Array(3) }])]);
  const bytes = fc.uint8Array({ maxLength: 200 }).map((array) => Buffer.from(array));
  const flips = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 });
  const frame = fc.oneof(
    bytes,
    bytes.map((tail) => Buffer.concat([head, tail])),
    fc.anything({ maxDepth: 4 }).map((value) => Buffer.concat([head, packable(value)])),
    flips.map((changes) => {
      const flipped = Buffer.from(good);
      for (const [at, to] of changes) flipped[at] = to;
      return flipped;
    }),
  );

  await fc.assert(
    fc.asyncProperty(frame, async (body) => {
      const { status } = await post(b.address, mine, body);
      return [200, 400, 403, 428].includes(status);
    }),
    { seed: SEED, numRuns: 250 },
  );

  t.strictSame(
    b.inbox.received.filter(({ from }) => from.nodeId !== nodeId("a")),
    [],
  );
  t.ok(b.transport.counts.malformed > 50);
  t.strictSame(await a.transport.call(b.to, "operate", { kind: "echo", value: 2 }, PATIENT), {
    kind: "echo",
    value: 2,
  });
});

function packable(value: unknown): Buffer {
  try {
    return pack(value);
  } catch {
    return Buffer.of(0xc1); // Something that MessagePack has no form for.
  }
}

test("plain tRPC over HTTP answers questions of members, and takes no messages", async (t) => {
  const b = await world.party(selfOf("b"));
  const address = await open(b, async () => ({ ok: true }));
  t.teardown(() => b.transport.close());
  const mine = await world.credentials(nodeId("a"));
  const json = async (path: string, body: unknown) => {
    const text = Buffer.from(JSON.stringify(body));
    const headers = { "content-type": "application/json", "content-length": String(text.length) };
    const response = await post(address, mine, text, { path: `/trpc/${path}`, headers });
    return { status: response.status, body: JSON.parse(response.body.toString()) };
  };

  t.strictSame(await json("status", null), { status: 200, body: { result: { data: { ok: true } } } });
  t.match(await json("deliver", [1, 0, [["ring", { kind: "ping", n: 1 }]]]), {
    status: 500,
    body: { error: { data: { cluster: { code: "REFUSED" } } } },
  });
  t.match(await json("join", { publicKey: "" }), { status: 403 });
  t.match(await json("nothing", {}), { status: 404 });
  t.notMatch(
    JSON.stringify(await json("operate", { kind: "later" })),
    /node_modules|\.ts:/,
    "no stack traces",
  );
  t.equal((await post(address, mine, Buffer.alloc(0), { path: "/elsewhere" })).status, 404);
  t.strictSame(b.inbox.received, []);
});

test("renewed credentials are used for new connections, and calls under way are answered", async (t) => {
  const a = await member("a");
  const b = await world.party(selfOf("b"));
  let release = () => {};
  const held = new Promise<void>((resolve) => (release = resolve));
  let started = () => {};
  const hasStarted = new Promise<void>((resolve) => (started = resolve));
  const address = await open(b, async (_from, _procedure, input) => {
    if ((input as { kind: string }).kind === "slow") {
      started();
      await held;
    }
    return input;
  });
  t.teardown(() => Promise.all([a.transport.close(), b.transport.close()]));
  const to = { nodeId: nodeId("b"), address };
  const before = await serialAt(address, await world.credentials(nodeId("a")));
  const slow = a.transport.call(to, "operate", { kind: "slow", name: "x" }, PATIENT);
  await hasStarted;

  b.transport.renew(await world.credentials(nodeId("b")));
  a.transport.renew(await world.credentials(nodeId("a")));
  const quick = await a.transport.call(to, "operate", { kind: "echo", value: 1 }, PATIENT);
  const after = await serialAt(address, await world.credentials(nodeId("a")));
  release();

  t.not(before, after);
  t.strictSame(quick, { kind: "echo", value: 1 });
  t.strictSame(await slow, { kind: "slow", name: "x" });
});

test("the lane for messages is for members, and keeps to its form", async (t) => {
  const b = await member("b");
  t.teardown(() => b.transport.close());
  const mine = await world.credentials(nodeId("a"));
  const joiner = await world.credentials("token", "join");
  /** What comes back before the connection ends. */
  const converse = async (credentials: Credentials, protocol: string, bytes: Buffer) => {
    const socket = connect({ ...b.address, ...tlsOf(credentials) });
    await once(socket, "secureConnect");
    const pieces: Buffer[] = [];
    socket.on("data", (piece: Buffer) => {
      // The answer to the upgrade comes first.
      if (pieces.push(piece) === 1) socket.write(bytes);
    });
    socket.on("error", () => {});
    socket.write(`GET /rpc HTTP/1.1\r\nhost: b\r\nconnection: upgrade\r\nupgrade: ${protocol}\r\n\r\n`);
    await once(socket, "close");
    return Buffer.concat(pieces).toString("latin1");
  };
  const lengthBefore = (frame: Buffer, length = frame.length) => {
    const head = Buffer.alloc(4);
    head.writeUInt32BE(length);
    return Buffer.concat([head, frame]);
  };
  const slow = packCalls(headOf("a"), [pack(["hello", { earlier: [] }])]);

  t.match(await converse(joiner, "orbweaver-frames", Buffer.alloc(0)), /^HTTP\/1.1 403 /);
  t.match(await converse(mine, "websocket", Buffer.alloc(0)), /^HTTP\/1.1 404 /);
  t.equal(b.transport.counts.malformed, 0);
  t.match(
    await converse(mine, "orbweaver-frames", lengthBefore(Buffer.alloc(0), 2 ** 31)),
    /^HTTP\/1.1 101 /,
  );
  t.equal(b.transport.counts.malformed, 1, "a frame that is too long");
  await converse(mine, "orbweaver-frames", Buffer.concat([lengthBefore(slow), lengthBefore(slow)]));
  t.equal(b.transport.counts.malformed, 2, "a frame before the answer to the one before");
  t.strictSame(b.inbox.received, []);
});

test("closing ends connections that are still in their handshake", async (t) => {
  const b = await member("b");
  const credentials = await world.credentials(nodeId("a"));
  const plain = connectPlain(b.address);
  await once(plain, "connect");
  // Connections are accepted in order: once a later one is through, this one is the server's.
  await serialAt(b.address, credentials);

  const closing = b.transport.close();
  const late = connect({ socket: plain, ...tlsOf(credentials) });
  late.on("error", () => {});
  const ended = new Promise((resolve) => {
    late.once("close", resolve);
  });
  await closing;
  await ended;
  t.pass("both sides are through");
});

function tlsOf({ rootCertificate, certificate, key }: Credentials) {
  return { ca: rootCertificate, cert: certificate, key, checkServerIdentity: () => undefined };
}

async function serialAt(address: PeerAddress, credentials: Credentials): Promise<string> {
  const socket = connect({ ...address, ...tlsOf(credentials) });
  await once(socket, "secureConnect");
  const { serialNumber } = socket.getPeerCertificate();
  socket.destroy();
  return serialNumber;
}

test("a peer that accepts and stays silent is given up after a second, and tried again", async (t) => {
  const a = await member("a");
  const sockets: Socket[] = [];
  let isTriedAgain = () => {};
  const triedAgain = new Promise<void>((resolve) => (isTriedAgain = resolve));
  const silent = createServer((socket) => {
    socket.on("error", () => {});
    sockets.push(socket);
    if (sockets.length === 2) isTriedAgain();
  });
  silent.listen(0, "127.0.0.1");
  await once(silent, "listening");
  t.teardown(async () => {
    await a.transport.close();
    for (const socket of sockets) socket.destroy();
    silent.close();
  });
  const address = { host: "127.0.0.1", port: (silent.address() as { port: number }).port };
  const to = { nodeId: nodeId("b"), address };
  const start = performance.now();

  a.transport.send(to, "ring", { kind: "ping", n: 1 });
  await t.rejects(a.transport.call(to, "status", null, { timeoutMs: 100 }), UnavailableError);
  t.ok(performance.now() - start < 900, "the call doesn't wait for the message");
  const feed = setInterval(() => a.transport.send(to, "ring", { kind: "ping", n: 2 }), 20);
  await triedAgain;
  clearInterval(feed);

  const ms = performance.now() - start;
  t.ok(ms > 900 && ms < 2800, `tried again after ${ms} ms`);
  t.strictSame(a.inbox.refused, [], "silent is not refused");
});

test("a connection for messages that ends is told; one that this side ends is not", async (t) => {
  const [a, b, c] = [await member("a"), await member("b"), await member("c")] as const;
  t.teardown(() => Promise.all([a, b, c].map(({ transport }) => transport.close())));
  for (const other of [b, c]) {
    a.transport.send(other.to, "ring", { kind: "ping", n: 1 });
    await other.inbox.until(() => other.inbox.pings.length === 1);
  }

  // What it has to say from now on goes to another address: the connection to the one before ends here.
  a.transport.send({ ...c.to, address: b.address }, "ring", { kind: "ping", n: 2 });
  await b.transport.close();
  await a.inbox.until(() => a.inbox.closed.length > 0);

  t.strictSame(a.inbox.closed, [b.to.nodeId]);
  t.strictSame(b.inbox.closed, []);
});
