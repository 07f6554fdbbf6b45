/** Blobs of several servers with real files: large ones, damaged ones, those of jobs that are gone. */
import { hash, randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Test, test } from "tap";
import { BusyError, InvalidInputError, NotFoundError, UnavailableError } from "../../src/errors.ts";
import { createLog } from "../../src/log.ts";
import { BlobAssembly, PIECE_BYTES } from "../../src/node/blob-assembly.ts";
import { ReplicatedBlobs } from "../../src/node/blobs.ts";
import { identifier, type NodeId, nodeIdOf } from "../../src/ring/identifier.ts";
import type { Member } from "../../src/ring/member.ts";
import { BlobFiles } from "../../src/store/blob-files.ts";
import { testCipher } from "../store/test-cipher.ts";

const JOB = "1".repeat(32);
const log = createLog({ level: "silent", text: false });
const never = new AbortController().signal;

interface Server {
  readonly member: Member;
  readonly blobs: ReplicatedBlobs;
  readonly path: string;
  isDown: boolean;
  repairsWanted: number;
  /** Files that lie there. */
  names(): Promise<string[]>;
}

class Cluster {
  readonly servers: Server[] = [];
  /** Who are members of the blobs' group, in order. */
  group: NodeId[] = [];
  jobs = new Set([JOB]);
  leaving: ReadonlySet<string> = new Set();
  /** Sizes of what was sent at once. */
  readonly sent: number[] = [];

  static async of(t: Test, count: number): Promise<Cluster> {
    const directory = await mkdtemp(join(tmpdir(), "orbweaver-blobs-"));
    t.teardown(() => rm(directory, { recursive: true, force: true }));
    const cluster = new Cluster();
    for (let n = 0; n < count; n++) await cluster.#add(join(directory, String(n)), n);
    cluster.group = cluster.servers.map(({ member }) => member.nodeId);
    return cluster;
  }

  async #add(path: string, n: number): Promise<void> {
    const paths = {
      blobs: join(path, "blobs"),
      temporary: join(path, "tmp"),
      quarantine: join(path, "quarantine"),
    };
    for (const folder of Object.values(paths)) await mkdir(folder, { recursive: true });
    const member: Member = {
      nodeId: nodeIdOf(identifier(BigInt(n + 1) << 100n)),
      address: { host: "127.0.0.1", port: n + 1 },
      zone: "",
      incarnation: 1,
      instance: "i",
    };
    const at = (to: { nodeId: string }): Server => {
      const found = this.servers.find((one) => one.member.nodeId === to.nodeId);
      if (found === undefined || found.isDown) throw new UnavailableError("nobody is there");
      return found;
    };
    const members = () => this.servers.map((one) => one.member);
    const server: Server = {
      member,
      path,
      isDown: false,
      repairsWanted: 0,
      names: async () => {
        const all = await readdir(paths.blobs, { recursive: true });
        return all.filter((name) => name.includes("/"));
      },
      blobs: new ReplicatedBlobs({
        self: member,
        partitionCount: 1,
        replicationFactor: 5,
        log,
        fileName: ({ jobId, sha256 }) =>
          hash("sha256", `${jobId}${sha256}`, "hex").slice(0, 32) + hash("sha256", jobId, "hex").slice(0, 32),
        fileNameEnd: (jobId) => hash("sha256", jobId, "hex").slice(0, 32),
        files: new BlobFiles(paths, testCipher()),
        ring: {
          member: (nodeId) => this.servers.find((one) => one.member.nodeId === nodeId)?.member,
          isSuspected: (nodeId) => this.servers.find((one) => one.member.nodeId === nodeId)?.isDown !== false,
          placement: async (_point, count, except) => ({
            members: members()
              .filter(
                ({ nodeId }) =>
                  !except.has(nodeId) &&
                  this.servers.some((one) => one.member.nodeId === nodeId && !one.isDown),
              )
              .slice(0, count),
          }),
          members: () => this.servers.map((one) => one.member),
        },
        members: () => (this.group.includes(member.nodeId) ? this.group : undefined),
        leaving: () => this.leaving,
        staying: () => this.servers.length - this.leaving.size,
        jobExists: async (jobId) => this.jobs.has(jobId),
        repairWanted: () => server.repairsWanted++,
        callPut: async (to, { jobId, sha256, ...piece }) => {
          this.sent.push(piece.bytes.length);
          await at(to).blobs.takePiece(member.nodeId, { jobId, sha256 }, piece);
        },
        callGet: async (to, { offset, ...name }) => at(to).blobs.givePiece(name, offset),
        callHas: async (to, name) => at(to).blobs.hasLocally(name),
        callDrop: async (to, jobId) => at(to).blobs.dropLocally(jobId),
      }),
    };
    this.servers.push(server);
  }
}

test("what is larger than a frame travels in pieces and comes back as it was", async (t) => {
  const cluster = await Cluster.of(t, 5);
  const [first, second, third, fourth] = cluster.servers;
  const bytes = randomBytes(2 * PIECE_BYTES + 12_345);

  const sha256 = await fourth!.blobs.put(JOB, bytes);
  const read = await fourth!.blobs.get(JOB, sha256);
  const small = await fourth!.blobs.put(JOB, Buffer.from("small"));
  const empty = await fourth!.blobs.put(JOB, Buffer.alloc(0));

  t.ok(Buffer.from(read).equals(bytes));
  t.ok(Math.max(...cluster.sent) <= PIECE_BYTES, "no piece is larger than a frame takes");
  for (const server of [first, second, third]) t.equal((await server!.names()).length, 3);
  t.equal((await fourth!.names()).length, 0, "the first three of the group hold it");
  t.equal(Buffer.from(await first!.blobs.get(JOB, small)).toString(), "small");
  t.equal((await second!.blobs.get(JOB, empty)).length, 0);
});

test("a damaged copy is never served: it is set aside, another is read, and repair brings it back", async (t) => {
  const cluster = await Cluster.of(t, 4);
  const [first, second] = cluster.servers;
  const bytes = randomBytes(50_000);
  const sha256 = await first!.blobs.put(JOB, bytes);
  const [name] = await first!.names();
  const file = join(first!.path, "blobs", name!);
  const stored = await readFile(file);
  stored[stored.length >> 1]! ^= 1;
  await writeFile(file, stored);

  const read = await first!.blobs.get(JOB, sha256);
  const left = await first!.names();
  const kept = await readdir(join(first!.path, "quarantine"));
  const counts = await second!.blobs.repair(never);

  t.ok(Buffer.from(read).equals(bytes), "another copy is as good");
  t.same(left, [], "the file is out of the way");
  t.equal(kept.length, 1, "and kept for people");
  t.equal(first!.repairsWanted, 1);
  t.match(counts, { given: 1, dropped: 0, damaged: 0, failed: 0 });
  t.equal((await first!.names()).length, 1);
  t.ok(Buffer.from(await first!.blobs.get(JOB, sha256)).equals(bytes));

  stored[3]! ^= 4;
  await writeFile(file, stored);
  t.match(await first!.blobs.repair(never), { damaged: 1 }, "a round finds it too, unread");
});

test("copies move with their group, and go with their job also where a server was away", async (t) => {
  const cluster = await Cluster.of(t, 5);
  const [first, second, third, fourth, fifth] = cluster.servers;
  const sha256 = await first!.blobs.put(JOB, randomBytes(9_000));
  await first!.blobs.put(JOB, randomBytes(9_000));

  // In the ring still, but to keep nothing any more: it does not know the group from inside either.
  cluster.leaving = new Set([cluster.group[0]!]);
  cluster.group = cluster.group.slice(1);
  const moved = await first!.blobs.repair(never);
  t.match(moved, { given: 2, dropped: 2, failed: 0 }, "one that is no holder any more gives, then drops");
  t.same(await first!.names(), []);
  t.equal((await fourth!.names()).length, 2);
  await t.resolves(fifth!.blobs.get(JOB, sha256));

  second!.isDown = true;
  await third!.blobs.drop(JOB);
  t.equal((await second!.names()).length, 2, "it was away");
  second!.isDown = false;
  t.match(
    await second!.blobs.repair(never),
    { given: 4 },
    "the job is still being deleted: they belong there",
  );
  cluster.jobs.delete(JOB);
  for (const server of cluster.servers) await server.blobs.repair(never);
  for (const server of cluster.servers) t.same(await server.names(), []);
  await t.rejects(first!.blobs.get(JOB, sha256), NotFoundError);
});

test("a copy that belongs elsewhere stays while those who are to have it are away", async (t) => {
  const cluster = await Cluster.of(t, 5);
  const [first, second, third, fourth, fifth] = cluster.servers;
  await first!.blobs.put(JOB, randomBytes(9_000));
  cluster.leaving = new Set([cluster.group[0]!]);
  cluster.group = cluster.group.slice(1);

  for (const server of [third, fourth, fifth]) server!.isDown = true;
  const away = await first!.blobs.repair(never);
  for (const server of [fourth, fifth]) server!.isDown = false;
  const back = await first!.blobs.repair(never);

  t.match(away, { given: 0, dropped: 0, failed: 0 }, "one live holder is not enough");
  t.match(back, { given: 2, dropped: 1, failed: 0 });
  t.equal((await second!.names()).length, 1);
});

test("pieces that are missing, late or too many are refused", (t) => {
  const assembly = new BlobAssembly();
  const piece = (size: number, offset: number, length: number) => ({
    size,
    offset,
    bytes: Buffer.alloc(length, 1),
  });

  t.throws(() => assembly.add("a", piece(100, 50, 50), 0), InvalidInputError);
  t.equal(assembly.add("a", piece(100, 0, 60), 0), undefined);
  t.throws(() => assembly.add("a", piece(100, 70, 30), 0), InvalidInputError);
  t.throws(() => assembly.add("a", piece(100, 60, 40), 0), InvalidInputError, "after a gap it begins anew");
  t.equal(assembly.add("a", piece(100, 0, 60), 0), undefined);
  t.equal(assembly.add("b", piece(100, 0, 60), 0), undefined, "each for itself");
  t.equal(assembly.add("a", piece(100, 60, 40), 0)?.length, 100);

  const large = 100 * 1024 * 1024;
  t.equal(assembly.add("c", piece(large, 0, 10), 0), undefined);
  t.equal(assembly.add("d", piece(large, 0, 10), 0), undefined);
  t.throws(() => assembly.add("e", piece(large, 0, 10), 29_000), BusyError);
  t.equal(assembly.add("e", piece(large, 0, 10), 31_000), undefined, "who was silent for long is given up");
  t.end();
});
