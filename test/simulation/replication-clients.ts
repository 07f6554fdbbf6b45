/** Clients of a simulated group: what they ask, what they are told, and the history of it. */
import { compareVersions } from "../../src/replication/ballot.ts";
import type { Operation, Outcome } from "../../src/replication/register.ts";
import type { Call, Change, Condition, Input, Output } from "./linearizability.ts";
import type { Answer, SimulatedNode } from "./replication-node.ts";
import { textOf } from "./replication-witness.ts";

export interface ClientWorld {
  readonly random: () => number;
  readonly habits: Habits;
  nodes(): readonly SimulatedNode[];
  /** Runs `then` after `ms` of true time. */
  later(ms: number, then: () => void): void;
  complain(problem: string): void;
  acknowledged(version: string): void;
  denied(values: readonly string[]): void;
}

/** How clients behave; may change at any time. */
export interface Habits {
  /** Between an answer and the next question, at most. */
  thinkMs: number;
  /** As they are at the start. */
  clients: number;
  keys: readonly string[];
  /** Of values: how many are written to vanish soon. */
  expiryRatio: number;
  /** Of changes: how many carry a request id. */
  requestIdRatio: number;
}

const VALUES_LONG = 200;
const PATIENCE_MS_MIN = 60;
const PATIENCE_MS_MAX = 2500;
const REPEATS_MAX = 6;

interface Asked {
  readonly client: number;
  readonly operation: Operation;
  readonly input: Input;
  readonly invoked: number;
  readonly node: SimulatedNode;
  /** All attempts of one request share it. */
  readonly request: Request;
}

interface Request {
  readonly id: string | undefined;
  readonly invoked: number;
  attempts: number;
  /** One attempt may have happened, and nothing was heard of it. */
  isOpen: boolean;
  told: string | undefined;
  /** Of each key, the greatest version that anybody had been told of before this was asked. */
  readonly floor: ReadonlyMap<string, string>;
}

export class Clients {
  readonly #world: ClientWorld;
  readonly calls: Call[] = [];
  readonly #written = new Map<Call, string>();
  acknowledged = 0;
  readonly #asked = new Map<number, Asked>();
  /** What a client last saw under a key. */
  readonly #seen = new Map<string, { readonly value: string; readonly version: string }>();
  readonly #versions = new Map<string, string>();
  readonly #values = new Map<string, string>();
  /** Of each key, the greatest version that anybody was told of. */
  readonly #told = new Map<string, string>();
  #moment = 0;
  #number = 0;
  #value = 0;
  #isOver = false;

  constructor(world: ClientWorld) {
    this.#world = world;
  }

  start(): void {
    for (let client = 0; client < this.#world.habits.clients; client++) this.#think(client);
  }

  /** No new operations; those without an answer stay unknown. */
  stop(): void {
    this.#isOver = true;
    for (const [number, asked] of this.#asked) {
      this.#asked.delete(number);
      this.#record(asked.input, undefined, asked.request.invoked);
    }
  }

  /** The calls, each change with the place of its version among all of them. */
  get history(): Call[] {
    const seenAt = ({ input }: Call) =>
      input.kind === "read"
        ? undefined
        : input.changes.map(({ value }) => this.#versions.get(value ?? "")).find((one) => one !== undefined);
    const versions = this.calls.map((call) => this.#written.get(call) ?? seenAt(call));
    const stepOf = (version: string) => Number(version.split(".")[3] ?? 0);
    const sorted = [...new Set(versions)]
      .filter((one) => one !== undefined)
      .sort((a, b) => compareVersions(a, b) || stepOf(a) - stepOf(b));
    const ranks = new Map(sorted.map((version, rank) => [version, rank]));
    return this.calls.map((call, i) => ({ ...call, rank: ranks.get(versions[i] ?? "") }));
  }

  /** All keys at once, when calm has returned; `then` hears whether it was answered. */
  readAll(node: SimulatedNode, then: (isRead: boolean) => void): void {
    const number = ++this.#number;
    const keys = [...this.#world.habits.keys];
    const input: Input = { kind: "read", keys };
    const operation: Operation = { kind: "get", keys };
    const request: Request = {
      id: undefined,
      invoked: ++this.#moment,
      attempts: 0,
      isOpen: false,
      told: undefined,
      floor: new Map(this.#told),
    };
    this.#final = { number, then };
    this.#asked.set(number, { client: -1, operation, input, invoked: request.invoked, node, request });
    node.operate(number, operation);
  }

  #final: { readonly number: number; readonly then: (isRead: boolean) => void } | undefined;

  /** The node lost power: nobody will answer. */
  crashed(node: SimulatedNode): void {
    for (const [number, asked] of this.#asked) {
      if (asked.node === node) this.answered(number, { code: "OUTCOME_UNKNOWN" });
    }
  }

  answered(number: number, answer: Answer): void {
    const asked = this.#asked.get(number);
    if (asked === undefined) {
      // Told after the client had given up: true all the same.
      if ("kind" in answer && answer.kind === "written") this.#world.acknowledged(answer.version);
      return;
    }
    this.#asked.delete(number);
    const { request, input } = asked;
    if (this.#final?.number === number) {
      if ("kind" in answer)
        this.#record(input, this.#outputOf(asked.operation, input, answer), request.invoked);
      this.#final.then("kind" in answer);
      return;
    }
    if ("kind" in answer) {
      this.#notBehind(asked, answer);
      if (answer.kind === "written") {
        this.#world.acknowledged(answer.version);
        this.acknowledged++;
      }
      const outcome = JSON.stringify(answer);
      if (request.id !== undefined) {
        if (request.told !== undefined && request.told !== outcome)
          this.#world.complain(`${request.id} was told ${request.told}, then ${outcome}`);
        request.told = outcome;
        // Asking once more must tell the same.
        if (this.#world.random() < 0.2 && request.attempts < REPEATS_MAX) return this.#repeat(asked);
      }
      const { input: judged, output } = this.#judged(asked, answer);
      this.#record(judged, output, request.invoked, answer);
      return this.#think(asked.client);
    }
    if (answer.code === "OUTCOME_UNKNOWN") {
      request.isOpen = true;
    } else if (request.id === undefined && asked.operation.kind === "batch") {
      this.#world.denied(valuesOf(asked.operation));
    }
    if (request.id !== undefined && request.attempts < REPEATS_MAX) return this.#repeat(asked);
    if (request.told !== undefined) {
      const told = JSON.parse(request.told) as Outcome;
      const { input: judged, output } = this.#judged(asked, told);
      this.#record(judged, output, request.invoked, told);
    } else if (request.isOpen) this.#record(input, undefined, request.invoked);
    this.#think(asked.client);
  }

  /** Nobody is shown a state older than one that somebody was told of before it was asked. */
  #notBehind({ operation, request }: Asked, answer: Outcome): void {
    const shown: [key: string, version: string][] = [];
    switch (answer.kind) {
      case "entries":
      case "scanned":
        for (const entry of answer.entries) if (entry !== undefined) shown.push([entry.key, entry.version]);
        break;
      case "written":
        if (operation.kind === "batch") {
          for (const { key } of operation.changes) shown.push([key, answer.version]);
        }
        break;
      case "conflict":
        if (answer.failed.found !== undefined) shown.push([answer.failed.key, answer.failed.found]);
    }
    for (const [key, version] of shown) {
      const floor = request.floor.get(key);
      if (floor !== undefined && compareVersions(version, floor) < 0)
        this.#world.complain(`${key} was shown at ${version} after ${floor} had been told of`);
      const told = this.#told.get(key);
      if (told === undefined || compareVersions(version, told) > 0) this.#told.set(key, version);
    }
  }

  #judged(asked: Asked, answer: Outcome): { input: Input; output: Output } {
    if (answer.kind === "scanned" && asked.operation.kind === "scan") {
      const { prefix, after, limit } = asked.operation;
      if (answer.entries.length > limit) this.#world.complain("a scan gave more than was asked for");
      const last = answer.more ? (answer.entries.at(-1)?.key ?? "") : "\xff";
      const keys = this.#world.habits.keys.filter(
        (key) => key.startsWith(prefix) && (after === undefined || key > after) && key <= last,
      );
      for (const { key } of answer.entries)
        if (!keys.includes(key)) this.#world.complain(`a scan gave ${JSON.stringify(key)}`);
      const input: Input = { kind: "read", keys };
      const values = keys.map((key) => {
        const entry = answer.entries.find((found) => found.key === key);
        if (entry !== undefined) this.#see(key, textOf(entry.value), entry.version);
        return entry === undefined ? null : textOf(entry.value);
      });
      return { input, output: { kind: "values", values } };
    }
    return { input: asked.input, output: this.#outputOf(asked.operation, asked.input, answer) };
  }

  #outputOf(operation: Operation, input: Input, answer: Outcome): Output {
    switch (answer.kind) {
      case "entries":
        return {
          kind: "values",
          values: answer.entries.map((entry) => {
            if (entry === undefined) return null;
            this.#see(entry.key, textOf(entry.value), entry.version);
            return textOf(entry.value);
          }),
        };
      case "written":
        if (operation.kind === "batch" && input.kind === "write") {
          for (const { key, value } of input.changes)
            if (value !== null) this.#see(key, value, answer.version);
        }
        return { kind: "written" };
      case "conflict":
        return { kind: "conflict", key: answer.failed.key, isFound: answer.failed.found !== undefined };
      case "scanned":
      case "changed":
      case "compacted":
        throw new Error(`${answer.kind} is judged elsewhere`);
    }
  }

  /** A value is written once, so it has one version; and a version of a key is of one value. */
  #see(key: string, value: string, version: string): void {
    const known = this.#versions.get(value);
    if (known === undefined) this.#versions.set(value, version);
    else if (known !== version) this.#world.complain(`${value} at ${version}, before at ${known}`);
    const place = `${key}@${version}`;
    const other = this.#values.get(place);
    if (other === undefined) this.#values.set(place, value);
    else if (other !== value) this.#world.complain(`${place} is ${value}, and was ${other}`);
    this.#seen.set(key, { value, version });
  }

  #record(input: Input, output: Output | undefined, invoked: number, answer?: Outcome): void {
    const returned = output === undefined ? Number.POSITIVE_INFINITY : ++this.#moment;
    const call: Call = { input, output, invoked, returned };
    if (answer?.kind === "written") this.#written.set(call, answer.version);
    this.calls.push(call);
  }

  #think(client: number): void {
    this.#world.later(this.#world.random() * this.#world.habits.thinkMs, () => {
      if (this.#isOver) return;
      const { operation, input } = this.#invent();
      const id = operation.kind === "batch" ? operation.requestId : undefined;
      const request: Request = {
        id,
        invoked: ++this.#moment,
        attempts: 0,
        isOpen: false,
        told: undefined,
        floor: new Map(this.#told),
      };
      this.#ask(client, operation, input, request);
    });
  }

  #repeat({ client, operation, input, request }: Asked): void {
    // Whoever stops in between leaves it open.
    const number = ++this.#number;
    const node = this.#choose();
    this.#asked.set(number, { client, operation, input, invoked: request.invoked, node, request });
    this.#world.later(20 + this.#world.random() * 300, () => {
      if (this.#asked.delete(number)) this.#ask(client, operation, input, request);
    });
  }

  #choose(): SimulatedNode {
    const nodes = this.#world.nodes();
    const leaders = nodes.filter((node) => node.isUp && node.replica?.servingBallot !== undefined);
    const from = leaders.length > 0 && this.#world.random() < 0.95 ? leaders : nodes;
    return from[Math.floor(this.#world.random() * from.length)]!;
  }

  #ask(client: number, operation: Operation, input: Input, request: Request): void {
    const node = this.#choose();
    const number = ++this.#number;
    request.attempts++;
    this.#asked.set(number, { client, operation, input, invoked: request.invoked, node, request });
    if (!node.isUp) return this.answered(number, { code: "NOT_LEADER" });
    // Were all patient, none would be left to ask while a leader that is cut off holds some.
    const patienceMs = PATIENCE_MS_MIN + this.#world.random() ** 4 * PATIENCE_MS_MAX;
    this.#world.later(patienceMs, () => {
      if (this.#asked.has(number)) this.answered(number, { code: "OUTCOME_UNKNOWN" });
    });
    node.operate(number, operation);
  }

  #invent(): { operation: Operation; input: Input } {
    const { random, habits } = this.#world;
    const keys = habits.keys.filter(() => random() < 0.5);
    const key = habits.keys[Math.floor(random() * habits.keys.length)]!;
    const dice = random();
    if (dice < 0.25) return { operation: { kind: "get", keys: [key] }, input: { kind: "read", keys: [key] } };
    if (dice < 0.3 && keys.length > 0)
      return { operation: { kind: "get", keys }, input: { kind: "read", keys } };
    if (dice < 0.4) {
      const after = random() < 0.3 ? key : undefined;
      const limit = random() < 0.5 ? 100 : 1 + Math.floor(random() * 3);
      const operation: Operation = {
        kind: "scan",
        prefix: "",
        limit,
        ...(after === undefined ? {} : { after }),
      };
      // Which keys it tells about shows in its answer.
      return { operation, input: { kind: "read", keys: habits.keys } };
    }
    const touched = dice < 0.5 && keys.length > 0 ? keys : [key];
    const changes: Change[] = touched.map((name) => ({
      key: name,
      value: random() < 0.15 ? null : `v${++this.#value}`,
      mayExpire: random() < habits.expiryRatio,
    }));
    const conditions: Condition[] = [];
    const versions = new Map<string, string>();
    if (random() < 0.5) {
      const on = random() < 0.2 ? habits.keys[Math.floor(random() * habits.keys.length)]! : touched[0]!;
      const seen = this.#seen.get(on);
      if (seen !== undefined && random() < 0.7) {
        conditions.push({ key: on, is: { value: seen.value } });
        versions.set(on, seen.version);
      } else conditions.push({ key: on, is: random() < 0.6 ? "absent" : "present" });
    }
    const requestId = random() < habits.requestIdRatio ? `r${++this.#number}` : undefined;
    const epochMs = this.#world.nodes()[0]!.epochMs();
    const operation: Operation = {
      kind: "batch",
      changes: changes.map((change) =>
        change.value === null
          ? { kind: "delete", key: change.key }
          : {
              kind: "put",
              key: change.key,
              value: Buffer.from(change.value + (random() < 0.2 ? " ".repeat(VALUES_LONG) : "")),
              ...(change.mayExpire === true ? { expiresAtMs: epochMs + random() * 1500 } : {}),
            },
      ),
      conditions: conditions.map(({ key: on, is }) => ({
        key: on,
        is: typeof is === "string" ? is : versions.get(on)!,
      })),
      ...(requestId === undefined ? {} : { requestId }),
    };
    return { operation, input: { kind: "write", conditions, changes } };
  }
}

function valuesOf(operation: Operation): string[] {
  if (operation.kind !== "batch") return [];
  return operation.changes.flatMap((change) => (change.kind === "put" ? [textOf(change.value)] : []));
}
