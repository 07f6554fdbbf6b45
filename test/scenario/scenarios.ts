/**
 * `npm run scenarios -- [--row N]…`: what may happen to a cluster, with real
 * processes, sockets and disks, one row after the other. A line tells what was
 * seen of each. Exit code 1 when a row failed; a row that can't be run on this
 * machine says why. Interrupted, it ends the row under way as one that failed.
 */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { interruption } from "../../src/cli/interrupt.ts";
import { reasonOf, type Scenario } from "./scenario.ts";
import { scenarios } from "./scenario-list.ts";

const ROW = fileURLToPath(new URL("./row.ts", import.meta.url));
/** After the time that a row has by itself: for taking everything down. */
const END_MS_MAX = 30_000;
const FAILURE_LINES_MAX = 60;

interface Seen {
  readonly result: "passed" | "failed" | "skipped";
  /** What was seen, in its own words. */
  readonly figures: readonly string[];
  /** TAP of what failed. */
  readonly failure: readonly string[];
  readonly durationMs: number;
}

const chosen = readRows();
if (chosen !== undefined) {
  const interrupted = interruption();
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for (const scenario of scenarios.filter(({ row }) => chosen.includes(String(row)))) {
    if (interrupted.aborted) break;
    const seen = await see(scenario, interrupted);
    counts[seen.result]++;
    tell(scenario, seen);
  }
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  process.exitCode = counts.failed > 0 || interrupted.aborted ? 1 : 0;
}

/** Undefined: there is nothing to run, and why has been said. */
function readRows(): string[] | undefined {
  try {
    const { values } = parseArgs({
      options: { row: { type: "string", multiple: true }, help: { type: "boolean" } },
    });
    if (values.help === true) {
      console.log("npm run scenarios -- [--row N]...\n  All rows, or those that are named:");
      for (const { row, name } of scenarios) console.log(`${String(row).padStart(4)}  ${name}`);
      return undefined;
    }
    const rows = values.row?.flatMap((some) => some.split(",")) ?? scenarios.map(({ row }) => String(row));
    const unknown = rows.filter((row) => !scenarios.some((one) => String(one.row) === row));
    if (unknown.length === 0) return rows;
    console.error(
      `--row ${unknown.join(",")}: is not run with real processes; there are ${scenarios.map(({ row }) => row).join(", ")}`,
    );
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
  }
  process.exitCode = 2;
  return undefined;
}

/** In a process of its own, so that one that hangs or dies takes nothing with it. */
async function see({ row, secondsMax }: Scenario, interrupted: AbortSignal): Promise<Seen> {
  const startedMs = performance.now();
  const child = spawn(process.execPath, [ROW, String(row)], { stdio: ["ignore", "pipe", "inherit"] });
  const timer = setTimeout(() => child.kill("SIGKILL"), secondsMax * 1000 + END_MS_MAX);
  const end = () => {
    child.kill("SIGTERM");
    setTimeout(() => child.kill("SIGKILL"), END_MS_MAX).unref();
  };
  interrupted.addEventListener("abort", end, { once: true });
  const figures: string[] = [];
  const failure: string[] = [];
  let isFailing = false;
  let reason: string | undefined;
  for await (const line of createInterface({ input: child.stdout })) {
    const comment = /^\s+# (?!Subtest: |time=|\{)(.+)$/.exec(line)?.[1];
    if (comment !== undefined) {
      reason ??= reasonOf(comment);
      if (reasonOf(comment) === undefined) figures.push(comment);
    } else if (/^\s*not ok /.test(line)) isFailing = true;
    else if (/^\s*ok /.test(line)) isFailing = false;
    if (isFailing && failure.length < FAILURE_LINES_MAX) failure.push(line);
  }
  clearTimeout(timer);
  interrupted.removeEventListener("abort", end);
  const durationMs = performance.now() - startedMs;
  if (child.exitCode === null && child.signalCode === null)
    await new Promise((resolve) => child.once("exit", resolve));
  if (child.exitCode !== 0) return { result: "failed", figures, failure, durationMs };
  if (reason !== undefined) return { result: "skipped", figures: [reason], failure, durationMs };
  return { result: "passed", figures, failure, durationMs };
}

function tell({ row, name }: Scenario, { result, figures, failure, durationMs }: Seen): void {
  const seconds = `${(durationMs / 1000).toFixed(0)} s`;
  console.log(`${String(row).padStart(2)}  ${result.padEnd(7)}  ${name}  (${seconds})`);
  for (const figure of figures) console.log(`             ${figure}`);
  if (result === "failed") for (const line of failure) console.log(`    ${line}`);
}
