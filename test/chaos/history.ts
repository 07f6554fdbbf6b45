/**
 * What clients did and what they were told, in the order of one clock: as JSON
 * lines for people and other checkers, and as calls for the judge of this project.
 *
 * `ok`: it happened. `fail`: it did not; what stood in its way was seen. `info`:
 * it may have happened, then or at any time after. A process whose outcome is
 * unknown goes on under another number, for a process does one thing at a time.
 */
import { createWriteStream, type WriteStream } from "node:fs";
import { finished } from "node:stream/promises";
import {
  type Call,
  type Condition,
  judge,
  type Output,
  type Verdict,
} from "../simulation/linearizability.ts";

/** `expected` null: nothing stands there. */
export type Act =
  | { readonly f: "read"; readonly key: string }
  | { readonly f: "write"; readonly key: string; readonly value: string }
  | {
      readonly f: "cas";
      readonly key: string;
      readonly value: readonly [expected: string | null, next: string];
    }
  /** Of whatever stands there. */
  | { readonly f: "delete"; readonly key: string };

export type Ending =
  /** `value`: what a read saw, null for nothing. */
  | { readonly type: "ok"; readonly value?: string | null }
  /** `isFound`: whether something stood there; left out when the act has not reached the cluster. */
  | { readonly type: "fail"; readonly isFound?: boolean; readonly error: string }
  | { readonly type: "info"; readonly error: string };

export interface Counts {
  ok: number;
  fail: number;
  info: number;
}

export class History {
  readonly #file: WriteStream | undefined;
  readonly #startedNs = process.hrtime.bigint();
  readonly #processes: number;
  /** Number that the process with that index has now. */
  readonly #numbers: number[];
  readonly #calls = new Map<string, Call[]>();
  #lastNs = 0;
  readonly counts = new Map<Act["f"], Counts>();

  /** @param file where it is written as it grows. */
  constructor(processes: number, file: string | undefined) {
    this.#processes = processes;
    this.#numbers = [...Array(processes).keys()];
    this.#file = file === undefined ? undefined : createWriteStream(file);
  }

  /** Nanoseconds since the start; no two are equal. */
  now(): number {
    this.#lastNs = Math.max(this.#lastNs + 1, Number(process.hrtime.bigint() - this.#startedNs));
    return this.#lastNs;
  }

  /** @returns to be called with what came of it. */
  begin(index: number, act: Act): (ending: Ending) => void {
    const number = this.#numbers[index]!;
    const { f, key } = act;
    const asked = "value" in act ? act.value : null;
    const invoked = this.now();
    this.#tell({ process: number, type: "invoke", f, key, value: asked, time: invoked });
    return (ending) => {
      const returned = this.now();
      const value = f === "read" && ending.type === "ok" ? ending.value : asked;
      const error = ending.type === "ok" ? {} : { error: ending.error };
      this.#tell({ process: number, type: ending.type, f, key, value, time: returned, ...error });
      this.#count(f)[ending.type]++;
      if (ending.type === "info") this.#numbers[index] = number + this.#processes;
      const call = callOf(act, ending, invoked, returned);
      if (call === undefined) return;
      const calls = this.#calls.get(key);
      if (calls === undefined) this.#calls.set(key, [call]);
      else calls.push(call);
    };
  }

  get keys(): string[] {
    return [...this.#calls.keys()];
  }

  /** Each key by itself: no act has two. */
  judge(stepsMax: number): { readonly key: string; readonly verdict: Verdict; readonly calls: number }[] {
    return [...this.#calls].map(([key, calls]) => ({
      key,
      verdict: judge(calls, stepsMax),
      calls: calls.length,
    }));
  }

  async close(): Promise<void> {
    if (this.#file === undefined) return;
    this.#file.end();
    await finished(this.#file);
  }

  #count(f: Act["f"]): Counts {
    let counts = this.counts.get(f);
    if (counts === undefined) this.counts.set(f, (counts = { ok: 0, fail: 0, info: 0 }));
    return counts;
  }

  #tell(line: object): void {
    this.#file?.write(`${JSON.stringify(line)}\n`);
  }
}

/** Undefined: it says nothing about the register. */
function callOf(act: Act, ending: Ending, invoked: number, returned: number): Call | undefined {
  const { key } = act;
  if (act.f === "read") {
    if (ending.type !== "ok") return undefined;
    const output: Output = { kind: "values", values: [ending.value ?? null] };
    return { input: { kind: "read", keys: [key] }, output, invoked, returned };
  }
  const input = { kind: "write" as const, conditions: conditionsOf(act), changes: changesOf(act) };
  switch (ending.type) {
    case "ok":
      return { input, output: { kind: "written" }, invoked, returned };
    case "info":
      return { input, output: undefined, invoked, returned: Number.POSITIVE_INFINITY };
    case "fail": {
      if (ending.isFound === undefined) return undefined;
      return { input, output: { kind: "conflict", key, isFound: ending.isFound }, invoked, returned };
    }
  }
}

function conditionsOf(act: Exclude<Act, { f: "read" }>): Condition[] {
  switch (act.f) {
    case "write":
      return [];
    case "cas": {
      const [expected] = act.value;
      return [{ key: act.key, is: expected === null ? "absent" : { value: expected } }];
    }
    case "delete":
      return [{ key: act.key, is: "present" }];
  }
}

function changesOf(act: Exclude<Act, { f: "read" }>) {
  const value = act.f === "write" ? act.value : act.f === "cas" ? act.value[1] : null;
  return [{ key: act.key, value }];
}
