/**
 * Whether a history of operations on registers could have come from one copy
 * that takes one operation at a time (Herlihy and Wing 1990), by Wing and Gong's
 * search (1993) with Lowe's memory of positions already tried (2017).
 *
 * An operation whose outcome is unknown took effect at any moment after its call,
 * or never. Histories are judged key by key, which is enough for single-key
 * operations, and as a whole, which batches and scans need.
 */

export interface Condition {
  readonly key: string;
  /** `{ value }`: exactly that one stands there. */
  readonly is: "absent" | "present" | { readonly value: string };
}

export interface Change {
  readonly key: string;
  /** Null deletes. */
  readonly value: string | null;
  /** The entry may vanish at any time after; once it is gone it stays gone. */
  readonly mayExpire?: boolean;
}

export type Input =
  | { readonly kind: "read"; readonly keys: readonly string[] }
  | {
      readonly kind: "write";
      readonly conditions: readonly Condition[];
      readonly changes: readonly Change[];
    };

export type Output =
  /** In the order of the keys; null: absent. */
  | { readonly kind: "values"; readonly values: readonly (string | null)[] }
  | { readonly kind: "written" }
  /** The first condition that did not hold. */
  | { readonly kind: "conflict"; readonly key: string; readonly isFound: boolean };

export interface Call {
  readonly input: Input;
  /** Undefined: it is not known whether it took effect. */
  readonly output: Output | undefined;
  /** Any clock that orders all calls and returns; two moments are never equal. */
  readonly invoked: number;
  readonly returned: number;
  /** Where in the order it probably stands: what is tried first, never what is believed. */
  readonly rank?: number | undefined;
}

/** Of one key: its value, and whether it may vanish. */
type Held = { readonly value: string; readonly mayExpire: boolean };
type State = ReadonlyMap<string, Held>;

export type Verdict = "linearizable" | "not linearizable" | "undecided";

/** Each key by itself, then all together. `undecided`: more than `stepsMax` positions; the keys by themselves were in order. */
export function judge(calls: readonly Call[], stepsMax = 200_000): Verdict {
  const keys = new Set(calls.flatMap(({ input }) => keysOf(input)));
  for (const key of keys) {
    const verdict = searchTwice(project(calls, key), stepsMax);
    if (verdict === "not linearizable") return verdict;
  }
  return searchTwice(calls, stepsMax);
}

/** Most of what nobody ever saw anything of has never happened: an order without it is found sooner, when there is one. */
function searchTwice(calls: readonly Call[], stepsMax: number): Verdict {
  const seen = new Set<string | null>();
  for (const { input, output } of calls) {
    if (output?.kind === "values") for (const value of output.values) seen.add(value);
    if (output === undefined || input.kind === "read") continue;
    for (const { is } of input.conditions) if (typeof is === "object") seen.add(is.value);
  }
  const likely = calls.filter(
    ({ input, output }) =>
      output !== undefined ||
      (input.kind === "write" && input.changes.some(({ value }) => value !== null && seen.has(value))),
  );
  return likely.length < calls.length && search(likely, stepsMax) === "linearizable"
    ? "linearizable"
    : search(calls, stepsMax);
}

function keysOf(input: Input): readonly string[] {
  if (input.kind === "read") return input.keys;
  return [...input.conditions, ...input.changes].map(({ key }) => key);
}

/** What the history says about one key alone. */
function project(calls: readonly Call[], key: string): Call[] {
  const projected: Call[] = [];
  for (const { input, output, invoked, returned, rank } of calls) {
    if (!keysOf(input).includes(key)) continue;
    if (input.kind === "read") {
      if (output?.kind !== "values") continue;
      const value = output.values[input.keys.indexOf(key)] ?? null;
      projected.push({
        input: { kind: "read", keys: [key] },
        output: { kind: "values", values: [value] },
        invoked,
        returned,
        rank,
      });
      continue;
    }
    const changes = input.changes.filter((change) => change.key === key);
    if (output?.kind === "conflict") {
      // Of the conditions behind the one that failed nothing is known.
      const failed = input.conditions.findIndex((condition) => condition.key === output.key);
      const before = input.conditions.slice(0, failed).filter((condition) => condition.key === key);
      const conditions = output.key === key ? [...before, input.conditions[failed]!] : before;
      if (conditions.length === 0) continue;
      projected.push({
        input: { kind: "write", conditions, changes: output.key === key ? changes : [] },
        output: output.key === key ? output : { kind: "written" },
        invoked,
        returned,
        rank,
      });
      continue;
    }
    const conditions = input.conditions.filter((condition) => condition.key === key);
    projected.push({ input: { kind: "write", conditions, changes }, output, invoked, returned, rank });
  }
  return projected;
}

/** Depth first over all orders that agree with real time, each position once. */
function search(all: readonly Call[], stepsMax: number): Verdict {
  // A read without an answer says nothing.
  const calls = all
    .filter(
      ({ input, output }) => output !== undefined || (input.kind === "write" && input.changes.length > 0),
    )
    .sort((a, b) => a.invoked - b.invoked);
  const known = calls.map((call, index) => ({ call, index })).filter(({ call }) => call.output !== undefined);
  const unknown = calls
    .map((call, index) => ({ call, index }))
    .filter(({ call }) => call.output === undefined);
  interface Position {
    readonly state: State;
    /** All known calls before this one of `known` are placed. */
    readonly first: number;
    /** Placed out of order: known ones behind `first`, and unknown ones. */
    readonly ahead: ReadonlySet<number>;
  }
  const seen = new Set<string>();
  const stack: Position[] = [{ state: new Map(), first: 0, ahead: new Set() }];
  let steps = 0;
  while (stack.length > 0) {
    const position = stack.pop()!;
    const { state, ahead } = position;
    let { first } = position;
    while (first < known.length && ahead.has(known[first]!.index)) first++;
    if (first === known.length) return "linearizable";
    const kept = [...ahead]
      .filter((index) => calls[index]!.output === undefined || index > known[first]!.index)
      .sort((a, b) => a - b);
    const mark = `${first}|${kept.join(",")}|${stateKey(state)}`;
    if (seen.has(mark)) continue;
    seen.add(mark);
    if (++steps > stepsMax) return "undecided";
    let returnedMin = Number.POSITIVE_INFINITY;
    const open: number[] = [];
    for (let i = first; i < known.length; i++) {
      const { call, index } = known[i]!;
      if (call.invoked > returnedMin) break;
      if (ahead.has(index)) continue;
      returnedMin = Math.min(returnedMin, call.returned);
      open.push(index);
    }
    const candidates = unknown
      .filter(({ call, index }) => call.invoked < returnedMin && !ahead.has(index))
      .map(({ index }) => index);
    candidates.push(...open.filter((index) => calls[index]!.invoked < returnedMin));
    const rankOf = (index: number) => {
      const { rank, output } = calls[index]!;
      return rank ?? (output === undefined ? Number.POSITIVE_INFINITY : -1);
    };
    candidates.sort((a, b) => {
      const [x, y] = [rankOf(a), rankOf(b)];
      return x === y ? calls[b]!.returned - calls[a]!.returned : y - x;
    });
    // What changes nothing and could have come now may as well: no order is lost by that.
    const pure = open.find(
      (index) => calls[index]!.invoked < returnedMin && changesNothing(state, calls[index]!),
    );
    // The last one pushed is tried first: the one with the least rank, else the known call that returns first.
    for (const index of pure === undefined ? candidates : [pure]) {
      const next = step(state, calls[index]!);
      if (next === undefined) continue;
      const nextAhead = new Set(kept);
      stack.push({ state: next, first, ahead: nextAhead.add(index) });
    }
  }
  return "not linearizable";
}

/** Whether the call can have happened just now, with no entry changed or vanished. */
function changesNothing(state: State, call: Call): boolean {
  const { input, output } = call;
  if (input.kind === "write" && input.changes.length > 0 && output?.kind !== "conflict") return false;
  const next = step(state, call);
  return next !== undefined && next.size === state.size;
}

/** The state after the call, when it can have happened just now. */
function step(state: State, { input, output }: Call): State | undefined {
  const next = new Map(state);
  const vanish = (key: string): boolean => {
    const held = next.get(key);
    if (held?.mayExpire === true) next.delete(key);
    return !next.has(key);
  };
  if (input.kind === "read") {
    if (output?.kind !== "values") return undefined;
    for (const [i, key] of input.keys.entries()) {
      const value = output.values[i] ?? null;
      if (value === null ? !vanish(key) : next.get(key)?.value !== value) return undefined;
    }
    return next;
  }
  const holds = ({ key, is }: Condition): boolean => {
    if (is === "absent") return vanish(key);
    const held = next.get(key);
    return is === "present" ? held !== undefined : held?.value === is.value;
  };
  if (output?.kind === "conflict") {
    for (const condition of input.conditions) {
      if (condition.key !== output.key) {
        if (!holds(condition)) return undefined;
        continue;
      }
      if (!output.isFound) return condition.is !== "absent" && vanish(condition.key) ? next : undefined;
      const held = next.get(condition.key);
      if (held === undefined) return undefined;
      const isHeld =
        condition.is === "present" || (condition.is !== "absent" && held.value === condition.is.value);
      return isHeld ? undefined : next;
    }
    return undefined;
  }
  for (const condition of input.conditions) if (!holds(condition)) return undefined;
  for (const { key, value, mayExpire } of input.changes) {
    if (value === null) next.delete(key);
    else next.set(key, { value, mayExpire: mayExpire === true });
  }
  return next;
}

function stateKey(state: State): string {
  return [...state]
    .map(([key, { value, mayExpire }]) => `${key}=${value}${mayExpire ? "?" : ""}`)
    .sort()
    .join(";");
}
