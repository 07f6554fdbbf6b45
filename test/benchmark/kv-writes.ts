/** Writes and reads of single values by many clients, against etcd under the same clients in the same run. */
import { randomBytes, randomInt } from "node:crypto";
import { CpuShare } from "./cpu-share.ts";
import type { Figure } from "./figure.ts";
import { Edges } from "./kv-edges.ts";
import { Etcd, etcdRead, etcdVersion, etcdWrite } from "./kv-etcd.ts";
import { Ground, less } from "./kv-ground.ts";
import { type HttpRequest, type LoadResult, load, quantile } from "./kv-load.ts";

const CLIENTS = 256;
const VALUE_BYTES = 256;
const NAMESPACES = 16;
const KEYS = 4_000;
const WARM_MS = 3_000;
const MEASURED_MS = 7_000;
const LONE_MS = 4_000;

interface Side {
  readonly name: string;
  readonly edges: readonly string[];
  readonly ca: string;
  readonly pids: readonly number[];
  write(namespace: string, key: string, value: Buffer): HttpRequest;
  read(namespace: string, key: string): HttpRequest;
}

interface Measured {
  readonly writes: LoadResult;
  readonly reads: LoadResult;
  readonly lone: LoadResult;
}

export async function writesFigures(
  report: (figure: Figure) => void,
  progress: (text: string) => void,
  profileFile?: string,
): Promise<void> {
  const version = etcdVersion();
  if (version === undefined)
    progress("etcd is not installed (Debian: etcd-server): the comparison with it is left out");
  const theirs = version === undefined ? undefined : await measureEtcd(report, progress, version);
  const ours = await measureOurs(report, progress, profileFile);
  if (theirs === undefined) return;
  report({
    name: "acknowledged writes, 256 clients",
    value: ours.writes.perSecond / theirs.writes.perSecond,
    unit: "x etcd",
    min: 1,
  });
  report({
    name: "linearizable reads, 256 clients",
    value: ours.reads.perSecond / theirs.reads.perSecond,
    unit: "x etcd",
    min: 1,
  });
  report({
    name: "p50 of one lone writer",
    value: quantile(ours.lone.latenciesMs, 0.5) / quantile(theirs.lone.latenciesMs, 0.5),
    unit: "x etcd",
    max: 1.5,
  });
}

async function measureEtcd(
  report: (figure: Figure) => void,
  progress: (text: string) => void,
  version: string,
): Promise<Measured> {
  progress(`starting five members of etcd ${version}`);
  const etcd = await Etcd.start();
  try {
    return await measure(report, progress, {
      name: "etcd",
      edges: etcd.edges,
      ca: etcd.ca,
      pids: etcd.pids,
      write: (namespace, key, value) => etcdWrite(`${namespace}/${key}`, value),
      read: (namespace, key) => etcdRead(`${namespace}/${key}`),
    });
  } finally {
    await etcd.stop();
  }
}

export async function measureOurs(
  report: (figure: Figure) => void,
  progress: (text: string) => void,
  profileFile: string | undefined,
): Promise<Measured> {
  progress("starting five servers");
  const ground = await Ground.start(5);
  try {
    const edges = await Edges.signedIn(ground);
    const before = await ground.spentByAll();
    const measured = await measure(
      report,
      progress,
      {
        name: "orbweaver",
        edges: edges.edges,
        ca: edges.ca,
        pids: ground.servers.map(({ process }) => process.pid ?? 0),
        write: (namespace, key, value) => edges.write(namespace, key, value),
        read: (namespace, key) => edges.read(namespace, key),
      },
      async (what) => {
        if (profileFile === undefined) return;
        await ground.profile(ground.servers[1]!, MEASURED_MS, `${profileFile}.${what}.cpuprofile`);
      },
    );
    const spent = less(await ground.spentByAll(), before);
    report({ name: "orbweaver: fsyncs of all servers, all phases", value: spent.fsyncs, unit: "" });
    return measured;
  } finally {
    await ground.stop();
  }
}

async function measure(
  report: (figure: Figure) => void,
  progress: (text: string) => void,
  side: Side,
  meanwhile: (what: string) => Promise<void> = async () => {},
): Promise<Measured> {
  const value = randomBytes(VALUE_BYTES);
  let written = 0;
  const place = (n: number) => [`bench-${n % NAMESPACES}`, `key-${n}`] as const;
  // All keys in turn at first, so that reads find them.
  const nextWrite = () => side.write(...place(written < KEYS ? written++ : randomInt(KEYS)), value);
  const nextRead = () => side.read(...place(randomInt(Math.min(written, KEYS))));
  const run = async (what: string, clients: number, next: () => HttpRequest, measuredMs: number) => {
    progress(`${side.name}: ${what}`);
    const share = new CpuShare([process.pid, ...side.pids]);
    const [result] = await Promise.all([
      load({
        edges: side.edges,
        ca: side.ca,
        clients,
        warmMs: WARM_MS,
        measuredMs,
        next,
        isGood: ({ status }) => status === 200,
      }),
      meanwhile(what),
    ]);
    const { ownUs, others } = share.take();
    const name = `${side.name}: ${what}`;
    report({ name, value: result.perSecond, unit: "a second" });
    report({ name: `${name}, p50`, value: quantile(result.latenciesMs, 0.5), unit: "ms" });
    report({ name: `${name}, p99`, value: quantile(result.latenciesMs, 0.99), unit: "ms" });
    const calls = (result.perSecond * (WARM_MS + measuredMs)) / 1000;
    const [client = 0, ...servers] = ownUs;
    report({ name: `${name}, processor of the client`, value: client / calls, unit: "us each" });
    const serversUs = servers.reduce((sum, us) => sum + us, 0);
    report({ name: `${name}, processor of all servers`, value: serversUs / calls, unit: "us each" });
    report({ name: `${name}, taken by other processes`, value: 100 * others, unit: "% of the machine" });
    for (const [kind, count] of result.failures) {
      report({ name: `${name}, failed: ${kind}`, value: count, unit: "", max: 0 });
    }
    return result;
  };
  return {
    writes: await run(`writes, ${CLIENTS} clients`, CLIENTS, nextWrite, MEASURED_MS),
    reads: await run(`reads, ${CLIENTS} clients`, CLIENTS, nextRead, MEASURED_MS),
    lone: await run("one lone writer", 1, nextWrite, LONE_MS),
  };
}
