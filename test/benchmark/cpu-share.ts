/** How much processor time some processes took, and how much all others of the machine did meanwhile (Linux). */
import { readFileSync } from "node:fs";

/** USER_HZ, which Linux shows to programs as 100 whatever it uses itself. */
const US_PER_TICK = 10_000;

export class CpuShare {
  readonly #pids: readonly number[];
  readonly #before: readonly number[];
  readonly #machineBefore: { readonly busy: number; readonly all: number };

  /** Counts from now on. */
  constructor(pids: readonly number[]) {
    this.#pids = pids;
    this.#before = pids.map(ticksOf);
    this.#machineBefore = machineTicks();
  }

  /** @returns microseconds of each process; `others` as a share of the machine, 0..1. */
  take(): { readonly ownUs: readonly number[]; readonly others: number } {
    const own = this.#pids.map((pid, i) => ticksOf(pid) - this.#before[i]!);
    const { busy, all } = machineTicks();
    const sum = own.reduce((total, ticks) => total + ticks, 0);
    const others = busy - this.#machineBefore.busy - sum;
    return {
      ownUs: own.map((ticks) => ticks * US_PER_TICK),
      others: Math.max(0, others) / Math.max(1, all - this.#machineBefore.all),
    };
  }
}

function ticksOf(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name before may hold anything, also spaces and parentheses.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return Number(fields[11]) + Number(fields[12]);
  } catch {
    return 0;
  }
}

function machineTicks(): { busy: number; all: number } {
  const line = readFileSync("/proc/stat", "utf8").split("\n")[0]!;
  const [user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft = 0, steal = 0] = line
    .split(/\s+/)
    .slice(1)
    .map(Number);
  const busy = user + nice + system + irq + soft + steal;
  return { busy, all: busy + idle + wait };
}
