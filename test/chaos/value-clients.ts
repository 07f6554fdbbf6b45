/**
 * Clients of a few keys: each reads, writes, compares and sets, and deletes, as
 * chance has it, through servers that chance chooses. Half of them ask one edge
 * over REST and take what they are told; the others use the SDK, which repeats.
 *
 * Keys are given up after a while and others taken, so that what is told about
 * one stays short enough to be judged.
 */
import { setTimeout as pause } from "node:timers/promises";
import { ClusterError } from "../../src/errors.ts";
import { type Client, createClient } from "../../src/sdk/client.ts";
import type { Cluster, ServerProcess } from "../fixture/cluster.ts";
import { type Answered, type EdgePorts, NotSentError, problemIn } from "./edge-port.ts";
import type { Act, Ending, History } from "./history.ts";

export const NAMESPACE = "chaos";
const KEYS = 6;
const GENERATION_MS = 20_000;
const PAUSE_MS_MAX = 40;
/** Of each that many acts, one creates a key that nobody ever changes. */
const LEDGER_EVERY = 12;
const SDK_MS_MAX = 20_000;

/** Of a value that was seen: what a condition can name. */
interface Seen {
  readonly value: string;
  readonly etag: string;
}

export interface ValueClientsOptions {
  readonly clients: number;
  readonly cluster: Cluster;
  readonly ports: EdgePorts;
  readonly history: History;
  readonly random: () => number;
}

export class ValueClients {
  readonly #options: ValueClientsOptions;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>[];
  readonly #startedMs = performance.now();
  readonly #ledger = new Map<string, string>();
  readonly #unexpected: string[] = [];
  #acknowledgedMs = performance.now();
  #longestGapMs = 0;

  constructor(options: ValueClientsOptions) {
    this.#options = options;
    this.#running = Array.from({ length: options.clients }, (_, index) =>
      this.#run(index).catch((error: unknown) => {
        this.#unexpected.push(`client ${index} ended: ${error}`);
      }),
    );
  }

  /** Keys that were created and must be there for good, with their values. */
  get ledger(): ReadonlyMap<string, string> {
    return this.#ledger;
  }

  /** Answers that no client should ever get, in words. */
  get unexpected(): readonly string[] {
    return this.#unexpected;
  }

  /** Between two acknowledged writes, of whomever. */
  get longestGapMs(): number {
    return Math.max(this.#longestGapMs, performance.now() - this.#acknowledgedMs);
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#running);
  }

  /** Reads a key through that server alone, as process `index`, and says what it saw. */
  async read(index: number, key: string, server: ServerProcess): Promise<Ending> {
    const end = this.#options.history.begin(index, { f: "read", key });
    const { ending } = await this.#overRest(server, { f: "read", key }, undefined);
    end(ending);
    return ending;
  }

  async #run(index: number): Promise<void> {
    const { cluster, random, history } = this.#options;
    const { signal } = this.#stopping;
    const isSdk = index % 2 === 1;
    const sdk = isSdk ? this.#sdk(index) : undefined;
    let known: { readonly generation: number; readonly seen: Map<string, Seen> } = {
      generation: -1,
      seen: new Map(),
    };
    for (let n = 0; !signal.aborted; n++) {
      const generation = Math.floor((performance.now() - this.#startedMs) / GENERATION_MS);
      if (generation !== known.generation) known = { generation, seen: new Map() };
      const value = `p${index}-${n}`;
      const key = `g${generation}-k${Math.floor(random() * KEYS)}`;
      const isLedger = n % LEDGER_EVERY === LEDGER_EVERY - 1;
      const act: Act = isLedger
        ? { f: "cas", key: `ledger-${value}`, value: [null, value] }
        : chooseAct(key, value, known.seen.get(key), random);
      const seen = known.seen.get(act.key);
      const servers = cluster.servers.filter((server) => server.hasBeenReady);
      const server = servers[Math.floor(random() * servers.length)]!;
      const end = history.begin(index, act);
      const outcome =
        sdk === undefined
          ? await this.#overRest(server, act, seen?.etag)
          : await this.#bySdk(sdk, act, seen?.etag);
      end(outcome.ending);
      this.#learn(act, outcome, known.seen);
      await pause(random() * PAUSE_MS_MAX);
    }
    await sdk?.close();
  }

  #learn(act: Act, { ending, etag }: Outcome, seen: Map<string, Seen>): void {
    const value = act.f === "read" && ending.type === "ok" ? ending.value : undefined;
    const written = act.f === "write" ? act.value : act.f === "cas" ? act.value[1] : value;
    if (ending.type === "ok" && typeof written === "string" && etag !== undefined)
      seen.set(act.key, { value: written, etag });
    else seen.delete(act.key);
    if (ending.type !== "ok" || act.f === "read") return;
    const nowMs = performance.now();
    this.#longestGapMs = Math.max(this.#longestGapMs, nowMs - this.#acknowledgedMs);
    this.#acknowledgedMs = nowMs;
    if (act.key.startsWith("ledger-") && act.f === "cas") this.#ledger.set(act.key, act.value[1]);
  }

  #sdk(index: number): Client {
    const { cluster } = this.#options;
    const edges = cluster.servers.map(({ edge }) => edge);
    const turned = [...edges.slice(index % edges.length), ...edges.slice(0, index % edges.length)];
    return createClient({ servers: turned, ...cluster.admin, ca: cluster.ca, timeoutMs: SDK_MS_MAX });
  }

  async #bySdk({ kv }: Client, act: Act, etag: string | undefined): Promise<Outcome> {
    const { key } = act;
    try {
      switch (act.f) {
        case "read": {
          const found = await kv.get(NAMESPACE, key);
          return { ending: { type: "ok", value: found?.text() ?? null }, etag: found?.etag };
        }
        case "write": {
          const written = await kv.set(NAMESPACE, key, act.value);
          return { ending: { type: "ok" }, etag: written.etag };
        }
        case "cas": {
          const [expected, next] = act.value;
          const result =
            expected === null || etag === undefined
              ? await kv.create(NAMESPACE, key, next)
              : await kv.compareAndSet(NAMESPACE, key, etag, next);
          return result.written
            ? { ending: { type: "ok" }, etag: result.etag }
            : { ending: { type: "fail", isFound: result.etag !== null, error: "PRECONDITION_FAILED" } };
        }
        case "delete":
          return (await kv.delete(NAMESPACE, key))
            ? { ending: { type: "ok" } }
            : { ending: { type: "fail", isFound: false, error: "NOT_FOUND" } };
      }
    } catch (thrown) {
      if (!(thrown instanceof ClusterError)) throw thrown;
      if (thrown.remedy === "reject")
        this.#unexpected.push(`SDK, ${act.f}: ${thrown.code} ${thrown.message}`);
      return { ending: { type: act.f === "read" ? "fail" : "info", error: thrown.code } };
    }
  }

  async #overRest(server: ServerProcess, act: Act, etag: string | undefined): Promise<Outcome> {
    const path = `/v1/kv/${NAMESPACE}/${encodeURIComponent(act.key)}`;
    const { ports } = this.#options;
    try {
      const answer = await requestOf(act, etag, (method, options) =>
        ports.ask(server.edge, method, path, options),
      );
      return this.#outcomeOf(act, answer);
    } catch (error) {
      const type = act.f === "read" || error instanceof NotSentError ? "fail" : "info";
      return { ending: { type, error: error instanceof Error ? error.message : String(error) } };
    }
  }

  #outcomeOf(act: Act, answer: Answered): Outcome {
    const { status, headers, body } = answer;
    const etag = typeof headers.etag === "string" ? headers.etag : undefined;
    if (status === 200 && act.f === "read")
      return { ending: { type: "ok", value: body.toString("utf8") }, etag };
    if (status === 200 || status === 204) return { ending: { type: "ok" }, etag };
    const problem = problemIn(answer);
    const error = problem?.code ?? `HTTP ${status}`;
    if (status === 404 && act.f === "read") return { ending: { type: "ok", value: null } };
    if (status === 404) return { ending: { type: "fail", isFound: false, error } };
    if (status === 412) {
      const isFound = problem?.etag !== null && problem?.etag !== undefined;
      return { ending: { type: "fail", isFound, error } };
    }
    if (status === 429) return { ending: { type: "fail", error } };
    if (status !== 503) this.#unexpected.push(`${act.f}: ${status} ${error} ${problem?.detail ?? ""}`);
    return { ending: { type: act.f === "read" ? "fail" : "info", error } };
  }
}

interface Outcome {
  readonly ending: Ending;
  /** Of what stands there now, when it is known. */
  readonly etag?: string | undefined;
}

function chooseAct(key: string, value: string, seen: Seen | undefined, random: () => number): Act {
  const chance = random();
  if (chance < 0.4) return { f: "read", key };
  if (chance < 0.65) return { f: "write", key, value };
  if (chance < 0.9) return { f: "cas", key, value: [seen?.value ?? null, value] };
  return { f: "delete", key };
}

function requestOf<T>(
  act: Act,
  etag: string | undefined,
  ask: (method: string, options: { body?: string; headers?: Record<string, string> }) => T,
): T {
  switch (act.f) {
    case "read":
      return ask("GET", {});
    case "write":
      return ask("PUT", { body: act.value, headers: { "content-type": "text/plain" } });
    case "cas": {
      const [expected, body] = act.value;
      const condition =
        expected === null || etag === undefined ? { "if-none-match": "*" } : { "if-match": etag };
      return ask("PUT", { body, headers: { "content-type": "text/plain", ...condition } });
    }
    case "delete":
      return ask("DELETE", {});
  }
}
