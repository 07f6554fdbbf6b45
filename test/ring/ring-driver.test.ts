import assert from "node:assert/strict";
import { test } from "tap";
import { createLog } from "../../src/log.ts";
import { RingDriver } from "../../src/node/ring-driver.ts";
import type { PeerRef, PeerSender } from "../../src/peer/transport.ts";
import { identifierOf, type NodeId, positionOf } from "../../src/ring/identifier.ts";
import type { ContactRecord, Member } from "../../src/ring/member.ts";
import { ringMessageSchema } from "../../src/ring/message.ts";

const log = createLog({ level: "silent", text: false });
const nodeId = (digits: string) => digits.padEnd(40, "0") as NodeId;
const bytes = (text: string) => new TextEncoder().encode(text);

/** A network in memory: frames are copied, and refused where nobody listens. */
class Loop {
  readonly drivers = new Map<string, RingDriver>();
  readonly frames: string[] = [];
  readonly contacts = new Map<string, ContactRecord[]>();

  start(id: NodeId, incarnation = 1, contacts: ContactRecord[] = []): RingDriver {
    const self: Member = {
      nodeId: id,
      address: { host: "127.0.0.1", port: 7000 },
      zone: `zone-${id[0]}`,
      incarnation,
      instance: `start-${incarnation}`,
    };
    const driver = new RingDriver({
      self,
      send: (to, message) => this.#send(self, to, message),
      random: Math.random,
      log,
      settings: { ringSuccessors: 8, suspectAfterMs: 1200 },
      contacts,
      onContacts: (list) => this.contacts.set(id, list),
      led: {
        outgoing: (peer) => bytes(`${id}>${peer}`),
        incoming: (peer, from, led) => this.frames.push(`${from} ${new TextDecoder().decode(led)}@${peer}`),
      },
    });
    this.drivers.set(id, driver);
    return driver;
  }

  kill(id: NodeId): void {
    this.drivers.get(id)?.stop();
    this.drivers.delete(id);
  }

  stop(): void {
    for (const driver of this.drivers.values()) driver.stop();
  }

  #send(self: Member, to: PeerRef, message: unknown): void {
    setImmediate(() => {
      const target = this.drivers.get(to.nodeId);
      if (target === undefined) this.drivers.get(self.nodeId)?.refused(to.nodeId);
      else {
        const sender: PeerSender = {
          nodeId: self.nodeId,
          address: self.address,
          incarnation: self.incarnation,
          instance: self.instance,
        };
        target.receive(sender, ringMessageSchema.parse(structuredClone(message)));
      }
    });
  }
}

const refOf = (driver: RingDriver): PeerRef => ({ nodeId: driver.self.nodeId, address: driver.self.address });

async function until(holds: () => boolean, ms: number): Promise<number> {
  const startMs = performance.now();
  while (!holds()) {
    assert.ok(performance.now() - startMs < ms, `not within ${ms} ms`);
    await new Promise((resolve) => setImmediate(resolve));
  }
  return performance.now() - startMs;
}

/** Each one's successors, in order, and its predecessor. */
function isWhole(loop: Loop): boolean {
  const order = [...loop.drivers.keys()].sort();
  return order.every((id, i) => {
    const view = loop.drivers.get(id)!.view();
    const expected = [...order.slice(i + 1), ...order.slice(0, i)].slice(0, 8);
    return (
      (view.predecessor === (order[(i + order.length - 1) % order.length] ?? null)) === order.length > 1 &&
      view.successors.join() === expected.join()
    );
  });
}

test("ten servers choose their places, join one another and know the whole ring", async (t) => {
  const loop = new Loop();
  t.teardown(() => loop.stop());
  const first = loop.start(nodeId("4"));

  first.bootstrap();

  assert.equal(first.isMember, true);
  assert.deepEqual(first.successorsOfLocally(positionOf(3, 256), 5), [first.self]);
  for (let i = 1; i < 10; i++) {
    const contact = [...loop.drivers.values()][i % loop.drivers.size]!;
    const joiner = loop.start(await contact.chooseIdentifier());
    await joiner.join([refOf(contact)]);
  }
  await until(() => isWhole(loop), 5000);
  const order = [...loop.drivers.keys()].sort();
  for (const driver of loop.drivers.values()) {
    assert.deepEqual(
      driver.successorsOfLocally(identifierOf(nodeId("0")), 10)?.map((m) => m.nodeId),
      order,
    );
    assert.equal(driver.members().length, 10);
  }
  // Halves of halves: 1 arc of 1/8 was halved twice, the rest once at most.
  assert.deepEqual(order.map((id) => id.slice(0, 2)).includes("c0"), true);
});
