/** What operators ask of an edge: who may, in which form, and what is left in the audit log. */
import { test } from "tap";
import { AuditLog } from "../../src/node/audit-log.ts";
import { createGround, LOSS, layout, PASSWORD, RestCaller } from "./edge-ground.ts";

const NODE = "b".repeat(40);

test("operators send servers away, and nobody else does", async (t) => {
  const ground = await createGround();
  t.teardown(() => ground.close());
  const { url } = await ground.addEdge();
  const as = async (user: string) => {
    const caller = await new RestCaller(url, ground.ca).signIn(user);
    t.teardown(() => caller.close());
    return caller;
  };
  const admin = await as("admin");
  const alice = await as("alice");

  const drained = await admin.call("POST", `/v1/cluster/nodes/${NODE}/drain`);
  const kept = await admin.call("DELETE", `/v1/cluster/nodes/${NODE}/drain`);
  const removed = await admin.call("DELETE", `/v1/cluster/nodes/${NODE}`);
  const odd = await admin.call("POST", "/v1/cluster/nodes/b0b/drain");
  const refused = await alice.call("POST", `/v1/cluster/nodes/${NODE}/drain`);

  t.equal(drained.status, 202);
  t.equal(drained.json("membership"), "draining");
  t.equal(kept.status, 204);
  t.equal(removed.status, 204);
  t.equal(odd.status, 422);
  t.equal(refused.status, 403);
  t.same(ground.administered, [`admin drains ${NODE}`, `admin keeps ${NODE}`, `admin removes ${NODE}`]);
});

test("recovery takes name and password themselves, also when the accounts have no majority", async (t) => {
  const ground = await createGround();
  t.teardown(() => ground.close());
  const { url } = await ground.addEdge();
  const anyone = new RestCaller(url, ground.ca);
  t.teardown(() => anyone.close());
  const { partition, seen } = LOSS;
  const partitions = [{ partition, seen }];

  const wrong = await anyone.call("POST", "/v1/cluster/losses", { username: "admin", password: "wrong" });
  const mere = await anyone.call("POST", "/v1/cluster/losses", { username: "alice", password: PASSWORD });
  ground.registers.isDown = true;
  const shown = await anyone.call("POST", "/v1/cluster/losses", { username: "admin", password: PASSWORD });
  const body = { username: "admin", password: PASSWORD, partitions };
  const recovered = await anyone.call("POST", "/v1/cluster/recoveries", body);

  t.equal(wrong.status, 401);
  t.equal(mere.status, 403);
  t.equal(shown.status, 200, shown.text);
  t.same(shown.json("items.0"), LOSS);
  t.equal(recovered.status, 200, recovered.text);
  t.same(recovered.json("recovered"), [3]);
  t.same(ground.administered, ["admin recovers 3"]);
});

test("the audit log is read by those who may, in pages, each entry bound to the one before", async (t) => {
  const ground = await createGround();
  t.teardown(() => ground.close());
  const { url } = await ground.addEdge();
  const log = new AuditLog(ground.registers, layout);
  for (let n = 1; n <= 3; n++) {
    await log.append({ actor: "admin", action: "cluster.drain", subject: `node ${n}`, details: { n } });
  }
  const admin = await new RestCaller(url, ground.ca).signIn("admin");
  const victor = await new RestCaller(url, ground.ca).signIn("victor");
  t.teardown(() => Promise.all([admin.close(), victor.close()]));

  const first = await admin.call("GET", "/v1/audit?limit=2");
  const rest = await admin.call("GET", `/v1/audit?limit=2&cursor=${first.json("nextCursor")}`);
  const refused = await victor.call("GET", "/v1/audit");

  t.equal(first.json("items.0.subject"), "node 1");
  t.equal(first.json("items.0.previous"), "");
  t.match(first.json("items.1.previous"), /^[0-9a-f]{64}$/);
  t.equal(rest.json("items.0.n"), 3);
  t.equal(rest.json("nextCursor"), null);
  t.equal(refused.status, 403);

  // Changed behind its back: the hash of the next one tells.
  const forged = await ground.registers.operate(layout.systemPartition(), {
    kind: "get",
    keys: [layout.audit(1)],
  });
  const value = forged.kind === "entries" ? Buffer.from(forged.entries[0]!.value) : Buffer.alloc(0);
  value[value.indexOf("node 1") + 5] = "7".charCodeAt(0);
  await ground.registers.operate(layout.systemPartition(), {
    kind: "batch",
    changes: [{ kind: "put", key: layout.audit(1), value }],
    conditions: [],
  });
  await t.rejects(log.list(0, 10), /entry 2 of the audit log does not follow/);
});
