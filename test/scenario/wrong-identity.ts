/** Row 17: wrong master key, wrong cluster, wrong certificate, expired certificate. */
import { createHash, randomBytes } from "node:crypto";
import { cp, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Test } from "tap";
import {
  createAuthority,
  type IssuingAuthority,
  issueCertificate,
  issuingAuthoritySchema,
} from "../../src/identity/certificate-authority.ts";
import { publicKeyOf, readCredentials, readSecret } from "../../src/node/membership.ts";
import { packCalls } from "../../src/peer/frame.ts";
import { pack } from "../../src/peer/msgpack.ts";
import { readMasterKey } from "../../src/vault/master-key.ts";
import { Vault } from "../../src/vault/vault.ts";
import { allServed, type Ground, lastWord, logOf, until } from "../cluster/ground.ts";
import { headOf, readMember, StrayMember } from "../cluster/stray-member.ts";
import { ServerProcess } from "../fixture/cluster.ts";

const DAY_MS = 86_400_000;
const SEEN_MS_MAX = 20_000;
const NOT_READY = { message: /ended before it was ready/ };
const ANOTHER = /a server of another one/;
const ENDED = /certificate has ended/;

/** The fifth server is the one that is wrong; at the end all are up and right again. */
export async function wrongIdentity(t: Test, ground: Ground): Promise<void> {
  const { servers, client, cluster } = ground;
  const [one, two, three, four, five] = servers;
  const others = client(one, two, three, four);
  const jobs = async () => (await others.jobs.list({ limit: 1000 })).items.map(({ id }) => id);
  const members = async () => (await others.cluster.nodes()).map(({ nodeId }) => nodeId).toSorted();
  const before = { jobs: await jobs(), members: await members() };
  const ask = packCalls(headOf((await readMember(five.directory)).self), [
    pack(["status", { partitions: false }]),
  ]);
  await five.kill();
  const { node, edge } = await readMember(five.directory);
  const files = await digestsOf(five.directory);

  const key = join(ground.directory, "other.key");
  await writeFile(key, randomBytes(32).toString("hex"), { mode: 0o600 });
  await t.rejects(five.start(["--master-key-file", key]), NOT_READY, "a wrong master key");
  await lastWord(five, /master key/);
  t.same(await digestsOf(five.directory), files, "and nothing is written");

  const kept = join(ground.directory, "kept");
  const keptFiles = ["vault.json", "master.key"];
  for (const name of keptFiles) await cp(join(five.directory, name), join(kept, name));
  const putBack = async () => {
    for (const name of keptFiles) await cp(join(kept, name), join(five.directory, name));
  };
  for (const name of keptFiles) await cp(join(four.directory, name), join(five.directory, name));
  await t.rejects(five.start([]), NOT_READY, "the certificate of another server");
  await lastWord(five, /vault\.json and identity\.json are of two different servers/);
  await putBack();
  t.same(await digestsOf(five.directory), files, "and nothing else is written");

  const authority = await authorityOf(one.directory);
  const elsewhere = await createAuthority(authority.clusterId, Date.now());
  const issue = (by: IssuingAuthority, nowMs: number) =>
    issueCertificate(by, {
      role: "node",
      name: five.nodeId,
      hosts: ["127.0.0.1"],
      publicKey: publicKeyOf(node.key),
      nowMs,
    });
  const ended = await issue(authority, Date.now() - 40 * DAY_MS);
  for (const [what, credentials, reason] of [
    ["no certificate", undefined, /shows no certificate/],
    [
      "another authority's certificate",
      { ...node, certificate: await issue(elsewhere, Date.now()) },
      ANOTHER,
    ],
    ["an expired certificate", { ...node, certificate: ended }, ENDED],
    ["an edge's certificate", edge, undefined],
  ] as const) {
    const stray = new StrayMember(two.peer, cluster.ca, credentials);
    t.teardown(() => stray.close());
    const { status } = await stray.post(ask);
    t.ok(status === 0 || status === 403, `${what} is refused at connection`);
    if (reason !== undefined) {
      const seen = await until(`the log tells of ${what}`, SEEN_MS_MAX, () => refusal(two, reason));
      t.comment(`${what}: ${seen}`);
    }
  }

  await renewWith(five.directory, ended);
  const starting = five.start([]).catch(() => {}); // It never gets ready: it is killed below.
  const told = await until("it knows itself", SEEN_MS_MAX, async () =>
    (await logOf(five)).find(({ event }) => event === "certificate has ended"),
  );
  t.match(
    told.reason,
    /Start it as a new one: --as-new/,
    "a server whose certificate has ended says what to do",
  );
  await until("another one refuses it", SEEN_MS_MAX, async () =>
    (await Promise.all([one, three, four].map((server) => refusal(server, ENDED)))).some(
      (reason) => reason !== false,
    ),
  );
  await five.kill();
  await starting;
  await putBack();

  // A server of another cluster, at the address of one of this.
  const foreign = new ServerProcess(join(ground.directory, "foreign"), ["--scrape-threads", "1"]);
  t.teardown(() => foreign.stop());
  const port = five.peer.slice(five.peer.lastIndexOf(":") + 1);
  await foreign.start(["--bootstrap", "--partitions", "8", "--peer-port", port]);
  const here = await until("this side tells of it", SEEN_MS_MAX, async () =>
    (await logOf(one)).find(
      ({ event, reason }) => event === "peer not trusted" && ANOTHER.test(String(reason)),
    ),
  );
  t.match(here, { peer: five.nodeId, port: Number(port) }, "and where it is");
  t.comment(`a foreign server at a member's address: ${here.reason}`);
  const there = await until("the foreign one tells of it", SEEN_MS_MAX, async () =>
    (await logOf(foreign)).find(({ event }) => event === "peer connection broken off"),
  );
  t.match(there.reason, /a server of another cluster/);

  const { token } = await others.cluster.createJoinToken();
  const tokenFile = join(ground.directory, "token-of-another");
  await writeFile(tokenFile, token, { mode: 0o600 });
  const joiner = new ServerProcess(join(ground.directory, "joiner"), ["--scrape-threads", "1"]);
  await t.rejects(
    joiner.start(["--join", foreign.peer, "--join-token-file", tokenFile]),
    NOT_READY,
    "a token of this cluster is not good for that one",
  );
  await lastWord(joiner, /the join token is of another cluster than the server at/);
  t.notOk((await readdir(joiner.directory)).includes("identity.json"), "and makes no member of any");
  await foreign.stop();

  await five.restart();
  await allServed(others, 5);
  t.same({ jobs: await jobs(), members: await members() }, before, "the cluster is as it was");
}

/** Why a connection was refused there, when it was refused for that reason. */
async function refusal(server: ServerProcess, reason: RegExp): Promise<string | false> {
  const line = (await logOf(server)).find(
    (line) => line.event === "peer refused" && reason.test(String(line.reason)),
  );
  return line !== undefined && String(line.reason);
}

/** Digest by path of all files that a server leaves; its lock comes and goes. */
async function digestsOf(directory: string): Promise<Record<string, string>> {
  const digests: Record<string, string> = {};
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || entry.name === "LOCK") continue;
    const path = join(entry.parentPath, entry.name);
    digests[path] = createHash("sha256")
      .update(await readFile(path))
      .digest("hex");
  }
  return digests;
}

async function openVault(path: string, write: (name: string, content: string) => Promise<void>) {
  const directory = {
    path,
    read: async (name: string) => readFile(join(path, name)).catch(() => undefined),
    write,
  };
  return Vault.open(directory, await readMasterKey({}, directory, { create: false }));
}

/** That of the cluster, as its first server keeps it. */
async function authorityOf(path: string): Promise<IssuingAuthority> {
  const vault = await openVault(path, async () => {});
  const authority = readSecret(vault, "authority", issuingAuthoritySchema);
  if (authority === undefined) throw new Error(`${path} is not that of the first server`);
  return authority;
}

/** As if the server had got this certificate long ago. */
async function renewWith(path: string, nodeCertificate: string): Promise<void> {
  const write = (name: string, content: string) => writeFile(join(path, name), content, { mode: 0o600 });
  const vault = await openVault(path, write);
  await vault.putSecret(
    "credentials",
    Buffer.from(JSON.stringify({ ...readCredentials(vault), nodeCertificate })),
  );
}
