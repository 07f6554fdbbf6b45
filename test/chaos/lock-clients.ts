/**
 * Clients that want the same few locks: some release them, some let them run out.
 * Whoever gets a lock gets a greater token than everyone before, and nobody gets
 * one while another surely holds it.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { z } from "zod";
import type { Cluster } from "../fixture/cluster.ts";
import type { EdgePorts } from "./edge-port.ts";

const LOCKS = 2;
const TTL_MS = 2_000;
const WAIT_MS = 1_500;
const HELD_MS_MAX = 400;
const PAUSE_MS_MAX = 200;

const leaseSchema = z.object({ owner: z.string(), fencingToken: z.int().positive() });

/** All times by `performance.now()`. */
interface Grant {
  readonly lock: string;
  readonly token: number;
  readonly owner: string;
  readonly askedMs: number;
  readonly grantedMs: number;
  /** Surely held until then: it was released, or its time may be over. */
  readonly sureUntilMs: number;
}

export class LockClients {
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>[];
  readonly #grants: Grant[] = [];
  /** Clients that an answer of another shape has ended, in words. */
  readonly #ended: string[] = [];

  constructor(options: {
    readonly clients: number;
    readonly cluster: Cluster;
    readonly ports: EdgePorts;
    readonly random: () => number;
  }) {
    this.#running = Array.from({ length: options.clients }, (_, index) =>
      this.#run(options).catch((error: unknown) => {
        this.#ended.push(`client ${index} of locks ended: ${error}`);
      }),
    );
  }

  get grants(): number {
    return this.#grants.length;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#running);
  }

  /** What is wrong with the grants, in words. */
  violations(): string[] {
    const byLock = Map.groupBy(this.#grants, ({ lock }) => lock);
    return [...this.#ended, ...[...byLock].flatMap(([lock, grants]) => violationsOf(lock, grants))];
  }

  async #run({
    cluster,
    ports,
    random,
  }: {
    readonly cluster: Cluster;
    readonly ports: EdgePorts;
    readonly random: () => number;
  }): Promise<void> {
    const anyone = () => {
      const servers = cluster.servers.filter((server) => server.hasBeenReady);
      return servers[Math.floor(random() * servers.length)]!.edge;
    };
    const json = { "content-type": "application/json" };
    while (!this.#stopping.signal.aborted) {
      const lock = `chaos-${Math.floor(random() * LOCKS)}`;
      const askedMs = performance.now();
      const answer = await ports
        .ask(anyone(), "POST", `/v1/locks/${lock}`, {
          body: JSON.stringify({ ttlMs: TTL_MS, waitMs: WAIT_MS }),
          headers: { ...json, "idempotency-key": randomUUID() },
          waitMs: WAIT_MS,
        })
        // Perhaps it was granted: then it runs out.
        .catch(() => undefined);
      if (answer?.status === 200) {
        const { owner, fencingToken: token } = leaseSchema.parse(JSON.parse(answer.body.toString("utf8")));
        const grantedMs = performance.now();
        const endMs = askedMs + TTL_MS;
        await pause(random() * HELD_MS_MAX);
        const isReleased = random() < 0.8;
        const sureUntilMs = isReleased ? Math.min(endMs, performance.now()) : endMs;
        this.#grants.push({ lock, token, owner, askedMs, grantedMs, sureUntilMs });
        if (isReleased) {
          await ports
            .ask(anyone(), "DELETE", `/v1/locks/${lock}`, { body: JSON.stringify({ owner }), headers: json })
            .catch(() => undefined);
        }
      }
      await pause(random() * PAUSE_MS_MAX);
    }
  }
}

function violationsOf(lock: string, grants: readonly Grant[]): string[] {
  const found: string[] = [];
  const inOrder = grants.toSorted((a, b) => a.grantedMs - b.grantedMs);
  for (const [i, later] of inOrder.entries()) {
    for (const earlier of inOrder.slice(Math.max(0, i - 50), i)) {
      const isAfter = later.askedMs > earlier.grantedMs;
      if (later.token === earlier.token && later.owner !== earlier.owner)
        found.push(`${lock}: token ${later.token} was given to two owners`);
      if (isAfter && later.token <= earlier.token)
        found.push(`${lock}: token ${later.token} was given after ${earlier.token}`);
      const isSure = later.sureUntilMs > later.grantedMs && later.grantedMs < earlier.sureUntilMs;
      if (isSure && later.owner !== earlier.owner)
        found.push(`${lock}: tokens ${earlier.token} and ${later.token} were held at the same time`);
    }
  }
  return found;
}
