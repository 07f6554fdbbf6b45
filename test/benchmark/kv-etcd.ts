/**
 * Five members of etcd on this machine, as its documentation sets them up: TLS for
 * clients and peers, data on the disk that our servers use, everything else at its
 * defaults (fsync on). Asked through its JSON gateway.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import {
  createAuthority,
  createKeyPair,
  issueCertificate,
} from "../../src/identity/certificate-authority.ts";
import { HttpCaller, type HttpRequest } from "./kv-load.ts";

const MEMBERS = 5;
const READY_MS_MAX = 20_000;
const LOOK_MS = 100;

/** What is installed, or undefined. */
export function etcdVersion(): string | undefined {
  const { status, stdout } = spawnSync("etcd", ["--version"], { encoding: "utf8" });
  return status === 0 ? /^etcd Version: (.*)$/m.exec(stdout)?.[1] : undefined;
}

export class Etcd {
  /** `https://host:port` of each member. */
  readonly edges: readonly string[];
  /** PEM. */
  readonly ca: string;
  readonly #members: readonly ChildProcess[];
  readonly #directory: string;

  private constructor(
    edges: readonly string[],
    ca: string,
    members: readonly ChildProcess[],
    directory: string,
  ) {
    this.edges = edges;
    this.ca = ca;
    this.#members = members;
    this.#directory = directory;
  }

  /** Resolves when a linearizable read is answered by each member. */
  static async start(): Promise<Etcd> {
    const directory = await mkdtemp(join(tmpdir(), "orbweaver-bench-etcd-"));
    const nowMs = Date.now();
    const authority = await createAuthority("0".repeat(32), nowMs);
    const pair = createKeyPair();
    const certificate = await issueCertificate(authority, {
      role: "node",
      name: "etcd",
      hosts: ["127.0.0.1"],
      nowMs,
      publicKey: pair.publicKey,
    });
    const files = {
      ca: join(directory, "ca.crt"),
      cert: join(directory, "tls.crt"),
      key: join(directory, "tls.key"),
    };
    await writeFile(files.ca, authority.rootCertificate);
    await writeFile(files.cert, certificate);
    await writeFile(files.key, pair.privateKey, { mode: 0o600 });

    const ports = await freePorts(MEMBERS * 2);
    const edges = ports.slice(0, MEMBERS).map((port) => `https://127.0.0.1:${port}`);
    const peers = ports.slice(MEMBERS).map((port) => `https://127.0.0.1:${port}`);
    const all = peers.map((peer, i) => `member${i}=${peer}`).join();
    const members = edges.map((edge, i) => {
      const flags = {
        name: `member${i}`,
        "data-dir": join(directory, `member${i}`),
        "listen-client-urls": edge,
        "advertise-client-urls": edge,
        "listen-peer-urls": peers[i]!,
        "initial-advertise-peer-urls": peers[i]!,
        "initial-cluster": all,
        "initial-cluster-state": "new",
        "cert-file": files.cert,
        "key-file": files.key,
        "peer-cert-file": files.cert,
        "peer-key-file": files.key,
        "peer-trusted-ca-file": files.ca,
        "peer-client-cert-auth": "true",
      };
      const member = spawn(
        "etcd",
        Object.entries(flags).map(([name, value]) => `--${name}=${value}`),
        { stdio: ["ignore", "ignore", "pipe"], env: { PATH: process.env.PATH } },
      );
      member.stderr.pipe(createWriteStream(join(directory, `member${i}.log`)));
      return member;
    });
    const etcd = new Etcd(edges, authority.rootCertificate, members, directory);
    try {
      await Promise.all(edges.map((edge) => etcd.#ready(edge)));
    } catch (error) {
      await etcd.stop();
      throw error;
    }
    return etcd;
  }

  get pids(): number[] {
    return this.#members.map(({ pid }) => pid ?? 0);
  }

  async stop(): Promise<void> {
    await Promise.all(
      this.#members.map(async (member) => {
        if (member.exitCode !== null || member.signalCode !== null) return;
        const ended = once(member, "exit");
        member.kill("SIGKILL");
        await ended;
      }),
    );
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #ready(edge: string): Promise<void> {
    const deadline = performance.now() + READY_MS_MAX;
    for (;;) {
      const caller = new HttpCaller(edge, this.ca);
      const isReady = await caller.call(etcdRead("ready"), READY_MS_MAX).then(
        ({ status }) => status === 200,
        () => false,
      );
      await caller.close();
      if (isReady) return;
      if (performance.now() > deadline)
        throw new Error(`etcd at ${edge} is not ready; see ${this.#directory}`);
      await pause(LOOK_MS);
    }
  }
}

const base64 = (text: string | Buffer) => Buffer.from(text).toString("base64");
const JSON_HEADERS = { "content-type": "application/json" };

export function etcdWrite(key: string, value: Buffer): HttpRequest {
  const body = JSON.stringify({ key: base64(key), value: base64(value) });
  return { method: "POST", path: "/v3/kv/put", headers: JSON_HEADERS, body };
}

/** Linearizable: its default. */
export function etcdRead(key: string): HttpRequest {
  return {
    method: "POST",
    path: "/v3/kv/range",
    headers: JSON_HEADERS,
    body: JSON.stringify({ key: base64(key) }),
  };
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, "127.0.0.1"));
  await Promise.all(servers.map((server) => once(server, "listening")));
  const ports = servers.map((server) => {
    const address = server.address();
    return address !== null && typeof address === "object" ? address.port : 0;
  });
  await Promise.all(servers.map((server) => once(server.close(), "close")));
  return ports;
}
