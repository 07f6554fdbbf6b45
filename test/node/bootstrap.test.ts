/** First start, join and restart of real servers in one process: real sockets, real disks. */
import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Test, test } from "tap";
import { z } from "zod";
import { serverSettingsSchema } from "../../src/config.ts";
import { StaleDataDirectoryError, UnauthenticatedError, UsageError } from "../../src/errors.ts";
import { issueCertificate, readCertificate } from "../../src/identity/certificate-authority.ts";
import { readJoinToken } from "../../src/identity/join-token.ts";
import { verifyPassword } from "../../src/identity/password.ts";
import { createLog } from "../../src/log.ts";
import { createCluster } from "../../src/node/bootstrap.ts";
import { ClusterEntries } from "../../src/node/cluster-entries.ts";
import {
  publicKeyOf,
  readCredentials,
  readMembership,
  replaceCredentials,
  requestFor,
} from "../../src/node/membership.ts";
import { type RunningServer, startServer } from "../../src/node/node.ts";
import { joinAnswerSchema } from "../../src/node/peer-contract.ts";
import { chooseAddresses } from "../../src/node/server-addresses.ts";
import { SystemEntries } from "../../src/node/system-entries.ts";
import { callJoin } from "../../src/peer/join-call.ts";
import { partitionOf } from "../../src/ring/identifier.ts";
import { DataDirectory } from "../../src/store/data-directory.ts";
import { readMasterKey } from "../../src/vault/master-key.ts";
import { Vault } from "../../src/vault/vault.ts";

const log = createLog({ level: "silent", text: false });

async function folder(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "orbweaver-node-"));
  t.teardown(() => rm(path, { recursive: true, force: true }));
  return path;
}

function settingsOf(data: string, more: object = {}) {
  return serverSettingsSchema.parse({
    data,
    edgePort: 0,
    peerPort: 0,
    partitions: 8,
    scrapeThreads: 1,
    ...more,
  });
}

async function start(t: Test, data: string, more: object = {}): Promise<RunningServer> {
  const server = await startServer(settingsOf(data, more), log);
  t.teardown(() => server.stop());
  return server;
}

async function founder(t: Test, data: string, more: object = {}): Promise<RunningServer> {
  const server = await start(t, data, { bootstrap: true, ...more });
  await server.ready;
  return server;
}

/** Flags with which another server joins `member`. */
async function joinFlags(member: RunningServer, tokenFile: string) {
  const { token } = await member.backend.cluster.createJoinToken();
  await writeFile(tokenFile, token, { mode: 0o600 });
  return { join: `127.0.0.1:${member.peerAddress.port}`, joinTokenFile: tokenFile };
}

const identityOf = async (data: string) =>
  z
    .looseObject({ nodeId: z.string(), incarnation: z.number(), bootstrapped: z.boolean() })
    .parse(JSON.parse(await readFile(join(data, "identity.json"), "utf8")));

const entriesOf = (server: RunningServer) =>
  new ClusterEntries(server.backend.registers, server.backend.layout);

const accountsOf = (server: RunningServer) =>
  new SystemEntries(server.backend.registers, server.backend.layout);

/** What a start that must fail says. */
async function refusal(data: string, more: object): Promise<string> {
  try {
    const server = await startServer(settingsOf(data, more), log);
    await server.stop();
  } catch (error) {
    if (error instanceof UsageError) return error.message;
    throw error;
  }
  throw new Error("it started");
}

test("the first server makes a cluster, and is the same one after a restart", async (t) => {
  const data = join(await folder(t), "a");
  const first = await founder(t, data);

  t.same(first.readiness(), { ready: true, reasons: [], durability: "degraded" });
  const { nodeId, clusterId } = first;
  t.match(clusterId, /^[0-9a-f]{32}$/);
  const accounts = accountsOf(first);
  const admin = await accounts.read("user", "admin");
  t.equal(admin?.record.role, "admin");
  t.ok(await verifyPassword(first.firstAdmin?.password ?? "", admin?.record.passwordHash));
  t.equal((await accounts.list("signing")).length, 1);
  t.match((await entriesOf(first).read("cluster"))?.record, {
    clusterId,
    partitions: 8,
    replicationFactor: 5,
    version: "1.0",
  });
  t.match((await entriesOf(first).members())[0], { nodeId, state: "active" });
  const client = JSON.parse(await readFile(join(data, "client.json"), "utf8"));
  t.same(client, {
    servers: [`https://127.0.0.1:${first.edge.bind.port}`],
    ca: first.rootCertificate,
    username: "admin",
    password: first.firstAdmin?.password,
  });
  t.equal((await stat(join(data, "client.json"))).mode & 0o777, 0o600);
  t.match(await identityOf(data), { incarnation: 1, bootstrapped: true });

  await first.stop();
  t.equal(await first.ended, undefined);
  const again = await founder(t, data);

  t.equal(again.nodeId, nodeId);
  t.equal(again.clusterId, clusterId);
  t.equal(again.firstAdmin, undefined);
  t.match(await identityOf(data), { incarnation: 2, bootstrapped: true });
  t.equal((await accountsOf(again).list("user")).length, 1);
  t.same(JSON.parse(await readFile(join(data, "client.json"), "utf8")).servers, [
    `https://127.0.0.1:${again.edge.bind.port}`,
  ]);
  const status = await again.backend.cluster.status();
  t.same(status.partitions, { full: 0, degraded: 8, unserved: 0, complete: 8 });
  t.match(status.nodes, [{ nodeId, self: true, state: "alive", leads: 8, arcShare: 1 }]);
});

test("a bootstrap that was cut short is finished by the next start", async (t) => {
  const home = await folder(t);
  const data = join(home, "a");
  const settings = settingsOf(data, { bootstrap: true });
  // Killed when only the vault was written.
  const directory = await DataDirectory.open(data, { create: true });
  const vault = await createCluster({
    directory,
    masterKey: await readMasterKey({}, directory, { create: true }),
    addresses: await chooseAddresses(settings),
    partitions: 8,
    replicationFactor: 5,
  });
  const clusterId = readMembership(vault)?.clusterId;
  await directory.close();

  const first = await founder(t, data);
  t.equal(first.clusterId, clusterId);
  const password = first.firstAdmin?.password;
  await first.stop();

  // Killed before it was marked as finished: the administrator may never have been shown.
  const identity = await identityOf(data);
  await writeFile(join(data, "identity.json"), JSON.stringify({ ...identity, bootstrapped: false }));
  const again = await founder(t, data);
  t.equal(again.clusterId, clusterId);
  t.equal(again.firstAdmin?.password, password);
  t.match(await identityOf(data), { bootstrapped: true });
});

test("a server joins with a token, once, and is a member after a restart by the same command", async (t) => {
  const home = await folder(t);
  const first = await founder(t, join(home, "a"));
  const flags = await joinFlags(first, join(home, "token"));

  const second = await start(t, join(home, "b"), { ...flags, zone: "rack-2" });
  await second.ready;
  t.equal(second.clusterId, first.clusterId);
  t.equal(second.rootCertificate, first.rootCertificate);
  t.not(second.nodeId, first.nodeId);
  const nodes = await second.backend.cluster.nodes();
  t.match(nodes, [
    { nodeId: second.nodeId, self: true, state: "alive", arcShare: 0.5 },
    { nodeId: first.nodeId, self: false, state: "alive", arcShare: 0.5 },
  ]);
  await until(async () => (await entriesOf(first).read("member", second.nodeId))?.record.state === "active");
  t.match((await entriesOf(second).read("member", second.nodeId))?.record, {
    addresses: { peer: `127.0.0.1:${second.peerAddress.port}` },
    zone: "rack-2",
  });
  await until(async () =>
    (await first.backend.cluster.partitions()).every(({ members }) => members.length === 2),
  );
  const trace = await second.backend.cluster.lookup("host/books.example");
  t.match(trace, {
    key: "host/books.example",
    point: /^[0-9a-f]{40}$/,
    partition: partitionOf(trace.key, 8),
  });
  t.same([...trace.members].sort(), [first.nodeId, second.nodeId].sort());

  t.match(await refusal(join(home, "c"), flags), /used by another server; make one for each/);
  await second.stop();
  // As if it had been killed before it kept whom it met: those that let it in stand in its vault.
  await rm(join(home, "b", "contacts.json"));
  const again = await start(t, join(home, "b"), flags);
  await again.ready;
  t.equal(again.nodeId, second.nodeId);
  t.match(await identityOf(join(home, "b")), { incarnation: 2 });
  await until(async () => (await first.backend.cluster.partitions()).every(({ leader }) => leader !== null));
});

test("a joiner whose answer was lost asks again with its key and gets the same answer", async (t) => {
  const home = await folder(t);
  const first = await founder(t, join(home, "a"));
  const token = readJoinToken((await first.backend.cluster.createJoinToken()).token);
  const credentials = await credentialsIn(first, home);
  const ask = async (nodeKey: string) =>
    joinAnswerSchema.parse(
      await callJoin({
        address: first.peerAddress,
        token,
        identify: readCertificate,
        timeoutMs: 5_000,
        input: {
          nodeRequest: await requestFor(nodeKey),
          edgeRequest: await requestFor(credentials.edgeKey),
          addresses: { peer: "127.0.0.1:1", edge: "127.0.0.1:2" },
          peerHosts: ["127.0.0.1"],
          edgeHosts: ["127.0.0.1"],
          zone: "",
        },
      }),
    );

  const one = await ask(credentials.nodeKey);
  const two = await ask(credentials.nodeKey);

  t.equal(two.nodeId, one.nodeId);
  t.equal((await entriesOf(first).members()).length, 2);
  await t.rejects(ask(credentials.edgeKey), UnauthenticatedError);
  t.equal((await entriesOf(first).members()).length, 2);
});

test("tokens that are no good are refused with what to do, and leave no server behind", async (t) => {
  const home = await folder(t);
  const first = await founder(t, join(home, "a"));
  const stranger = await founder(t, join(home, "z"));
  const flags = await joinFlags(stranger, join(home, "token"));

  await writeFile(join(home, "garbage"), "let me in");
  t.match(
    await refusal(join(home, "b"), { ...flags, joinTokenFile: join(home, "garbage") }),
    /garbage: not a join token, or only a part of one; make a new one/,
  );
  t.match(await refusal(join(home, "b"), { ...flags, joinTokenFile: join(home, "none") }), /can't be read/);
  // The other cluster's address stands in its token: it must not be what answers.
  await stranger.stop();
  t.match(
    await refusal(join(home, "b"), { ...flags, join: `127.0.0.1:${first.peerAddress.port}` }),
    /another cluster/,
  );

  t.notOk((await readdir(join(home, "b"))).includes("identity.json"));
  const good = await joinFlags(first, join(home, "token"));
  const second = await start(t, join(home, "b"), good);
  await second.ready;
  t.equal(second.clusterId, first.clusterId);

  const z = join(home, "z");
  t.match(
    await refusal(z, await joinFlags(first, join(home, "token"))),
    /z holds server [0-9a-f]{8} of another cluster .* add --as-new/,
    "a founder does not go on by itself when it was told to join",
  );
});

test("settings that don't fit the directory or the machine end in one message", async (t) => {
  const home = await folder(t);
  const a = join(home, "a");

  t.match(await refusal(a, {}), /holds no server yet: start the first .* with --bootstrap/);
  t.notOk((await readdir(home)).includes("a"), "nothing was made");
  await mkdir(join(home, "full"));
  await writeFile(join(home, "full", "thesis.tex"), "");
  t.match(await refusal(join(home, "full"), { bootstrap: true }), /not empty \(it has thesis\.tex\)/);
  t.same(await readdir(join(home, "full")), ["thesis.tex"]);
  await writeFile(join(home, "file"), "");
  t.match(await refusal(join(home, "file"), { bootstrap: true }), /file can't be used as data directory/);

  const busy = createServer().listen(0, "127.0.0.1");
  t.teardown(() => busy.close());
  await new Promise((resolve) => busy.once("listening", resolve));
  const address = busy.address();
  const port = typeof address === "object" ? address?.port : 0;
  t.match(await refusal(a, { bootstrap: true, edgePort: port }), `port ${port} is in use: stop the program`);
  t.match(await refusal(a, { bootstrap: true, peerPort: port }), /choose another one with --peer-port/);
  t.match(await refusal(a, { bootstrap: true, adminPasswordFile: join(home, "no") }), /can't be read/);
  t.match(await refusal(a, { asNew: true }), /give --join and --join-token-file too/);

  const server = await founder(t, a);
  t.match(await refusal(a, {}), new RegExp(`in use by .*${process.pid}`));
  await server.stop();
  t.match(await refusal(a, { masterKey: "ab".repeat(32) }), /master key does not open/);
  const again = await founder(t, a);
  t.equal(again.nodeId, server.nodeId, "no failed start left the directory locked");
});

test("contacts that can't be read are set aside: the others find this server all the same", async (t) => {
  const home = await folder(t);
  const [a, b] = [join(home, "a"), join(home, "b")];
  const first = await founder(t, a);
  const second = await start(t, b, await joinFlags(first, join(home, "token")));
  await second.ready;
  const { peerPort, edgePort } = { peerPort: second.peerAddress.port, edgePort: 0 };
  await second.stop();
  await writeFile(join(b, "contacts.json"), "{bad");

  const again = await start(t, b, { peerPort, edgePort });
  await again.ready;

  t.equal(again.nodeId, second.nodeId);
  t.ok((await readdir(join(b, "quarantine"))).includes("contacts.json"));
  t.equal((await entriesOf(again).members()).length, 2, "by a majority of both");
});

test("an old copy of a data directory is found out, marked, and let in only as a new server", async (t) => {
  const home = await folder(t);
  const [a, b, copy] = [join(home, "a"), join(home, "b"), join(home, "copy")];
  const first = await founder(t, a);
  const second = await start(t, b, await joinFlags(first, join(home, "token")));
  await second.ready;
  await second.stop();
  await cp(b, copy, { recursive: true });
  const later = await start(t, b);
  await later.ready;
  await later.stop();

  // Depending on who speaks first, while it starts or soon after.
  const reason = await start(t, copy).then(
    (server) => server.ended,
    (error: unknown) => error,
  );

  t.ok(reason instanceof StaleDataDirectoryError);
  t.match(reason, { message: /old copy: members have seen a later start .* --as-new/ });
  await t.rejects(startServer(settingsOf(copy), log), StaleDataDirectoryError);

  // A group of two can't decide anything without its second member.
  await (await start(t, b)).ready;
  const flags = await joinFlags(first, join(home, "token"));
  const fresh = await start(t, copy, { ...flags, asNew: true });
  await fresh.ready;
  t.not(fresh.nodeId, second.nodeId);
  t.equal((await readdir(join(copy, "quarantine"))).length, 1);
  await fresh.stop();
  const same = await start(t, copy, { ...flags, asNew: true });
  t.equal(same.nodeId, fresh.nodeId, "the same command line starts the same server again");
});

test("a certificate that has not long to live is renewed, and the edge is told", async (t) => {
  const data = join(await folder(t), "a");
  const first = await founder(t, data);
  const authority = (await entriesOf(first).read("authority"))?.record;
  await first.stop();
  const { directory, vault } = await opened(data);
  const credentials = readCredentials(vault);
  const short = await issueCertificate(authority!, {
    role: "node",
    name: first.nodeId,
    publicKey: publicKeyOf(credentials.nodeKey),
    hosts: ["127.0.0.1", "localhost", "::1"],
    nowMs: Date.now(),
    lifetimeMs: 9 * 86_400_000,
  });
  await replaceCredentials(vault, directory, { ...credentials, nodeCertificate: short });
  await directory.close();

  const again = await start(t, data);
  const renewed = new Promise<string>((resolve) => again.onEdgeTls(({ cert }) => resolve(cert)));
  const edge = await renewed;

  t.not(edge, credentials.edgeCertificate);
  t.equal(again.edgeTls.cert, edge);
  const shown = readCertificate(await readFile(join(data, "node.crt")));
  t.ok(shown.notAfterMs > Date.now() + 29 * 86_400_000);
  await until(
    async () => (await entriesOf(again).read("member", first.nodeId))?.record.serial === shown.serial,
  );
});

async function opened(data: string) {
  const directory = await DataDirectory.open(data, { create: false });
  const vault = await Vault.open(directory, await readMasterKey({}, directory, { create: false }));
  return { directory, vault };
}

/** Some good keys: those of a cluster that is not started. */
async function credentialsIn(server: RunningServer, home: string) {
  const directory = await DataDirectory.open(join(home, `keys-${server.nodeId}`), { create: true });
  const vault = await createCluster({
    directory,
    masterKey: await readMasterKey({}, directory, { create: true }),
    addresses: await chooseAddresses(settingsOf(home)),
    partitions: 8,
    replicationFactor: 5,
  });
  await directory.close();
  return readCredentials(vault);
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 20));
}
