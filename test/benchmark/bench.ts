/** `npm run bench -- NAME`: runs one benchmark and prints its figures beside their limits. */
import { readFile, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { type Benchmark, type Figure, isKept } from "./figure.ts";

const NAMES = ["crawl", "kv", "edge", "ring", "primitives"] as const;

const USAGE = `npm run bench -- ${NAMES.join("|")} [--part NAME]... [--json FILE] [--compare FILE] [--profile FILE]
  --json: writes the figures there; --compare: shows them beside those of an earlier --json.
  --part: only that one of the benchmark's parts. --profile: also sample a server's processor, where that is possible.
  Exit code 1 when a limit is not kept, 2 when there is no such benchmark.`;

interface Run {
  readonly benchmark: string;
  readonly startedAt: string;
  readonly node: string;
  readonly cores: number;
  readonly seconds: number;
  readonly figures: Figure[];
}

async function bench(args: string[]): Promise<number> {
  const { positionals, values } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      part: { type: "string", multiple: true },
      json: { type: "string" },
      compare: { type: "string" },
      profile: { type: "string" },
      help: { type: "boolean" },
    },
  });
  const name = NAMES.find((known) => known === positionals[0]);
  if (values.help === true || name === undefined || positionals.length > 1) {
    process.stdout.write(`${USAGE}\n`);
    return values.help === true ? 0 : 2;
  }
  const benchmark = await load(name);
  if (benchmark === undefined) {
    process.stderr.write(`the benchmark ${name} is not part of this checkout\n`);
    return 2;
  }
  const earlier = values.compare === undefined ? undefined : await readRun(values.compare);

  const startMs = performance.now();
  const startedAt = new Date().toISOString();
  const figures: Figure[] = [];
  const report = (figure: Figure) => {
    figures.push(figure);
    const before = earlier?.figures.find((other) => other.name === figure.name);
    print(figure, before);
  };
  await benchmark(report, {
    parts: values.part ?? [],
    progress: (text) => process.stderr.write(`… ${text}\n`),
    profileFile: values.profile,
  });
  const seconds = (performance.now() - startMs) / 1000;
  const missed = figures.filter((figure) => !isKept(figure));
  process.stdout.write(
    `${figures.length} figures in ${seconds.toFixed(0)} s, ${missed.length} beyond their limit\n`,
  );
  if (values.json !== undefined) {
    const run: Run = {
      benchmark: name,
      startedAt,
      node: process.version,
      cores: availableParallelism(),
      seconds,
      figures,
    };
    await writeFile(values.json, `${JSON.stringify(run, null, 2)}\n`);
  }
  return missed.length === 0 ? 0 : 1;
}

async function load(name: string): Promise<Benchmark | undefined> {
  const url = new URL(`./${name}-bench.ts`, import.meta.url);
  try {
    const loaded: { benchmark: Benchmark } = await import(url.href);
    return loaded.benchmark;
  } catch (error) {
    const isMissing = error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND";
    if (isMissing && error.message.includes(url.pathname)) return undefined;
    throw error;
  }
}

async function readRun(file: string): Promise<Run> {
  return JSON.parse(await readFile(file, "utf8"));
}

function print(figure: Figure, earlier: Figure | undefined): void {
  const { name, value, unit, min, max } = figure;
  const limits = [
    ...(min === undefined ? [] : [`at least ${short(min)}`]),
    ...(max === undefined ? [] : [`at most ${short(max)}`]),
  ].join(", ");
  const verdict = limits === "" ? "" : isKept(figure) ? `ok (${limits})` : `MISSED (${limits})`;
  const ratio =
    earlier === undefined
      ? ""
      : `  ${earlier.value === 0 ? "" : `${(value / earlier.value).toFixed(2)} x `}${short(earlier.value)} before`;
  process.stdout.write(`${name.padEnd(58)} ${`${short(value)} ${unit}`.padEnd(26)} ${verdict}${ratio}\n`);
}

function short(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toFixed(Math.abs(value) < 100 ? 2 : 0);
}

try {
  process.exitCode = await bench(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 2;
}
