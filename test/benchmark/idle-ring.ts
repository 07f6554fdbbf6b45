/**
 * What a ring of five real servers costs while nobody asks anything of it: processor
 * time and wake-ups as the kernel counts them, frames and bytes as its TCP sockets do.
 *
 * Processor time per message depends on the machine and on who else uses it. Five
 * processes that exchange as many frames over bare TLS sockets, measured in the same
 * minutes, show what part of it no server of this kind could save.
 */
import { execFile, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import {
  createAuthority,
  createKeyPair,
  issueCertificate,
} from "../../src/identity/certificate-authority.ts";
import { startCluster } from "../fixture/cluster.ts";
import type { MeshCredentials, MeshOrders } from "./bare-mesh.ts";
import type { Figure } from "./figure.ts";

const NODES = 5;
/** After the last copy is made: for so long compilers and collectors of garbage still have to do with the start. */
const CALM_MS = 60_000;
const FIRST_LOOK_MS = 15_000;
/** As Linux shows it to programs, whatever the kernel's own clock. */
const TICKS_PER_SECOND = 100;

const bare = fileURLToPath(new URL("./bare-mesh.ts", import.meta.url));

interface Usage {
  readonly ticks: number;
  /** Of all threads. */
  readonly switches: number;
}

interface Wire {
  readonly frames: number;
  readonly bytes: number;
}

/** @param seconds for how long it is watched. */
export async function idleRing(report: (figure: Figure) => void, seconds = 20): Promise<void> {
  const dataDirectory = await mkdtemp(join(tmpdir(), "orbweaver-idle-"));
  const cluster = await startCluster({ nodes: NODES, dataDirectory, allowAddresses: ["127.0.0.0/8"] });
  try {
    const servers = cluster.servers.map((server) => server.process.pid!);
    const scraping = (await Promise.all(servers.map(childrenOf))).flat();
    const ports = cluster.servers.map(({ peer }) => peer.slice(peer.lastIndexOf(":") + 1));
    const pids = [...servers, ...scraping];
    await delay(FIRST_LOOK_MS);
    const early = await Promise.all(pids.map(usageOf));
    await delay(seconds * 1000);
    const later = await Promise.all(pids.map(usageOf));
    const started = sum(pids.map((_, i) => later[i]!.ticks - early[i]!.ticks)) / TICKS_PER_SECOND / seconds;
    await delay(CALM_MS - FIRST_LOOK_MS - seconds * 1000);

    const usageBefore = await Promise.all(pids.map(usageOf));
    const wireBefore = await wireOf(ports);
    const startMs = performance.now();
    await delay(seconds * 1000);
    const tookSeconds = (performance.now() - startMs) / 1000;
    const usageAfter = await Promise.all(pids.map(usageOf));
    const wireAfter = await wireOf(ports);

    const percent = pids.map(
      (_, i) => (100 * (usageAfter[i]!.ticks - usageBefore[i]!.ticks)) / TICKS_PER_SECOND / tookSeconds,
    );
    const wakes = pids.map((_, i) => (usageAfter[i]!.switches - usageBefore[i]!.switches) / tookSeconds);
    const ofServers = (values: readonly number[]) => sum(values.slice(0, NODES)) / NODES;
    const ofScraping = (values: readonly number[]) => sum(values.slice(NODES)) / scraping.length;
    report({ name: "N = 5, real: just started, all processes", value: 100 * started, unit: "% of a core" });
    const what = "N = 5, real: idle";
    report({ name: `${what}, all processes`, value: sum(percent), unit: "% of a core", max: 3 });
    report({ name: `${what}, one server`, value: ofServers(percent), unit: "% of a core" });
    report({ name: `${what}, one scraping process`, value: ofScraping(percent), unit: "% of a core" });
    report({ name: `${what}, one server wakes`, value: ofServers(wakes), unit: "times a second" });
    report({ name: `${what}, one scraping process wakes`, value: ofScraping(wakes), unit: "times a second" });

    const framesASecond = (wireAfter.frames - wireBefore.frames) / tookSeconds;
    const bytesASecond = (wireAfter.bytes - wireBefore.bytes) / tookSeconds;
    report({ name: `${what}, sent per node and second`, value: framesASecond / NODES, unit: "frames" });
    report({ name: `${what}, sent per node and second (bytes)`, value: bytesASecond / NODES, unit: "bytes" });
    await cluster.stop();
    const floor = await bareMesh(framesASecond, seconds);
    report({ name: "N = 5, bare sockets: as many frames of 100 bytes", value: floor, unit: "% of a core" });
  } finally {
    await cluster.stop();
    await rm(dataDirectory, { recursive: true, force: true });
  }
}

/** What five processes with nothing but TLS sockets take together, in % of a core. */
async function bareMesh(framesPerSecond: number, seconds: number): Promise<number> {
  const credentials = await meshCredentials();
  const processes = Array.from({ length: NODES }, () => fork(bare, [], { execArgv: [] }));
  try {
    const ports: number[] = [];
    for (const child of processes) {
      child.send(credentials);
      ports.push((await once(child, "message"))[0] as number);
    }
    const pairs = (NODES * (NODES - 1)) / 2;
    const intervalMs = Math.round((1000 * pairs * 2) / framesPerSecond);
    for (const [i, child] of processes.entries()) {
      child.send({ ports: ports.slice(i + 1), intervalMs } satisfies MeshOrders);
      await once(child, "message");
    }
    await delay(CALM_MS);
    const pids = processes.map((child) => child.pid!);
    const before = await Promise.all(pids.map(usageOf));
    await delay(seconds * 1000);
    const after = await Promise.all(pids.map(usageOf));
    const ticks = sum(after.map((usage) => usage.ticks)) - sum(before.map((usage) => usage.ticks));
    return (100 * ticks) / TICKS_PER_SECOND / seconds;
  } finally {
    for (const child of processes) child.kill();
  }
}

async function meshCredentials(): Promise<MeshCredentials> {
  const authority = await createAuthority("bare", Date.now());
  const pair = createKeyPair();
  const cert = await issueCertificate(authority, {
    role: "node",
    name: "bare",
    hosts: ["127.0.0.1"],
    publicKey: pair.publicKey,
    nowMs: Date.now(),
  });
  return { cert, key: pair.privateKey, ca: authority.rootCertificate };
}

async function childrenOf(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
  return text.trim().split(/\s+/).filter(Boolean).map(Number);
}

async function usageOf(pid: number): Promise<Usage> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  // The name, in parentheses, may hold anything; fields are counted from its end, utime is the 14th of all.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const threads = await readdir(`/proc/${pid}/task`);
  const switches = await Promise.all(
    threads.map(async (thread) => {
      const status = await readFile(`/proc/${pid}/task/${thread}/status`, "utf8");
      return Number(/^voluntary_ctxt_switches:\s*(\d+)/m.exec(status)?.[1] ?? 0);
    }),
  );
  return { ticks: Number(fields[11]) + Number(fields[12]), switches: sum(switches) };
}

/** What went through the connections to these ports so far, both ways. A frame or an answer is one segment. */
async function wireOf(ports: readonly string[]): Promise<Wire> {
  const filter = ports.flatMap((port, i) => [...(i === 0 ? [] : ["or"]), "sport", "=", `:${port}`]);
  const { stdout } = await promisify(execFile)("ss", ["-tinH", "state", "established", "(", ...filter, ")"]);
  const total = (name: string) =>
    sum(Array.from(stdout.matchAll(new RegExp(`\\b${name}:(\\d+)`, "g")), ([, digits]) => Number(digits)));
  return {
    frames: total("data_segs_out") + total("data_segs_in"),
    bytes: total("bytes_acked") + total("bytes_received"),
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
