/**
 * Ports of the servers of one machine. Where any free one will do it is chosen
 * once and kept: members find each other again by the addresses that they know,
 * and after a stop of all of them nobody could tell a new one.
 */
import { once } from "node:events";
import { readFile, rename, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { z } from "zod";
import { UsageError } from "../errors.ts";

const portsSchema = z.array(z.object({ edge: z.int().min(1).max(65_535), peer: z.int().min(1).max(65_535) }));
export type RingPorts = z.output<typeof portsSchema>;

export interface ChosenPorts {
  readonly ports: RingPorts;
  /** A server that is there keeps other ports than those that were asked for. */
  readonly isOther: boolean;
}

/**
 * A server that is there keeps the ports by which the others know it.
 *
 * @param first of the first server; each next one has the next port. 0: any free one, kept in `data`.
 * @param isThere whether the n-th server has its data already.
 * @throws {UsageError} there are not that many ports above the first.
 */
export async function ringPorts(
  data: string,
  first: { readonly edge: number; readonly peer: number },
  count: number,
  isThere: (n: number) => boolean,
): Promise<ChosenPorts> {
  const kept = await readKept(data);
  const own = (n: number) => (isThere(n) ? kept[n] : undefined);
  const isAsked = (name: "edge" | "peer") =>
    kept.every((_, n) => (own(n)?.[name] ?? first[name] + n) === first[name] + n);
  const taken = new Set(kept.flatMap(({ edge, peer }) => [edge, peer]));
  const choose = async (name: "edge" | "peer", n: number): Promise<number> => {
    // Where those that are there have other ports, the next in line may be one of them.
    if (first[name] === 0 || !isAsked(name)) {
      // The system may give the port again that it gave a moment ago, or one of a server that is there.
      let port = await freePort();
      while (taken.has(port)) port = await freePort();
      taken.add(port);
      return port;
    }
    if (first[name] + count - 1 > 65_535) {
      throw new UsageError(
        `--${name}-port ${first[name]}: ${count} servers need as many ports from there on`,
      );
    }
    const other = name === "edge" ? "peer" : "edge";
    if (first[other] !== 0 && Math.abs(first.edge - first.peer) < count && isAsked(other)) {
      throw new UsageError(
        `--edge-port ${first.edge} and --peer-port ${first.peer}: ${count} servers need as many ports from each on; give numbers that are farther apart`,
      );
    }
    return first[name] + n;
  };
  const ports: RingPorts = [];
  for (let n = 0; n < count; n++) {
    ports.push({
      edge: own(n)?.edge ?? (await choose("edge", n)),
      peer: own(n)?.peer ?? (await choose("peer", n)),
    });
  }
  await writeFile(join(data, "ports.json.new"), `${JSON.stringify(ports)}\n`);
  await rename(join(data, "ports.json.new"), join(data, "ports.json"));
  const isOther = (name: "edge" | "peer") => first[name] !== 0 && !isAsked(name);
  return { ports, isOther: isOther("edge") || isOther("peer") };
}

async function readKept(data: string): Promise<RingPorts> {
  const path = join(data, "ports.json");
  const text = await readFile(path, "utf8").catch(() => "[]");
  try {
    return portsSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new UsageError(`${path}: can't be read; delete it, and new ports are chosen`, { cause });
  }
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const bound = probe.address();
  probe.close();
  await once(probe, "close");
  return bound !== null && typeof bound === "object" ? bound.port : 0;
}
