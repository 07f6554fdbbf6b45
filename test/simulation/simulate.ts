/** `npm run simulate -- ring|replication|crawl …`: the protocols in virtual time, with seeded faults. */
import { RING_USAGE, simulateRing } from "./ring-simulation.ts";

const USAGE = `npm run simulate -- COMMAND [options]

${RING_USAGE}

replication [options]   replica groups: --help says more
crawl [--seed 1] [--seeds 50] [--breaks [--break TEXT]]
  Frontier and completion: --seeds crawls while servers die, beginning with --seed; a seed always gives the same run.
  --breaks: instead, each rule is broken on purpose, and --seeds crawls at most are run until one notices.`;

/** Each stands in a file of its own, loaded when asked for. */
const SIMULATIONS: Readonly<Record<string, { readonly file: string; readonly name: string }>> = {
  replication: { file: "./replication-simulation.ts", name: "simulateReplication" },
  crawl: { file: "./crawl-simulation.ts", name: "simulateCrawl" },
};

async function simulate([command, ...args]: string[]): Promise<number> {
  const isAsked =
    command === undefined || command === "--help" || (command !== "replication" && args.includes("--help"));
  if (command === "ring" && !isAsked) return simulateRing(args);
  const simulation = command === undefined ? undefined : SIMULATIONS[command];
  if (simulation === undefined || isAsked) {
    process.stdout.write(`${isAsked ? "" : `there is no simulation ${command}\n\n`}${USAGE}\n`);
    return isAsked ? 0 : 2;
  }
  const url = new URL(simulation.file, import.meta.url);
  let loaded: Record<string, unknown>;
  try {
    loaded = await import(url.href);
  } catch (error) {
    const isMissing = error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND";
    if (!isMissing || !error.message.includes(url.pathname)) throw error;
    process.stderr.write(
      `the simulation ${command} is not part of this checkout: ${url.pathname} is missing\n`,
    );
    return 2;
  }
  const run = loaded[simulation.name];
  if (typeof run !== "function") throw new Error(`${url.pathname} does not export ${simulation.name}`);
  return Number(await run(args));
}

try {
  process.exitCode = await simulate(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 2;
}
