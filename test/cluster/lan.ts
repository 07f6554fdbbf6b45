/**
 * Hosts on two networks of their own, as in a deployment: one that clients reach
 * the edges by, one between the servers, which can be cut in pieces. Made of
 * network namespaces, veth pairs and bridges (iproute2, Linux, root); nothing
 * outside of this machine is touched, and other networks of it are left alone.
 *
 * A cut moves a host's port to another bridge: packets vanish without a word, as
 * behind a broken switch, connections stay open on both sides.
 */
import { execFile, spawnSync } from "node:child_process";
import { randomInt } from "node:crypto";
import { promisify } from "node:util";
import type { Place } from "../fixture/cluster.ts";

const run = promisify(execFile);
/** `ow`, the process id, a dash, what it is. */
const PREFIX = "ow";

/** Why there can be none here; undefined where there can. */
export async function lanObstacle(): Promise<string | undefined> {
  if (process.platform !== "linux") return `network namespaces are Linux's, this is ${process.platform}`;
  if (process.getuid?.() !== 0) return "network namespaces need root";
  const name = `${PREFIX}${process.pid}-t`;
  try {
    await run("ip", ["netns", "add", name]);
    await run("ip", ["-n", name, "link", "add", "probe", "type", "bridge"]);
    return undefined;
  } catch (error) {
    return `network namespaces can't be made here: ${error instanceof Error ? error.message.split("\n", 2).join(" ") : error}`;
  } finally {
    await run("ip", ["netns", "del", name]).catch(() => {});
  }
}

export class Lan {
  readonly #hosts: number;
  readonly #name: string;
  readonly #third: number;
  // What ends a process in a hurry does not wait for its teardown.
  readonly #atExit = () => {
    const namespaces = [this.#fabric, ...[...Array(this.#hosts).keys()].map((host) => this.#host(host))];
    for (const name of namespaces) spawnSync("ip", ["netns", "del", name]);
    spawnSync("ip", ["link", "del", `${this.#name}c`]);
  };

  private constructor(hosts: number) {
    this.#hosts = hosts;
    this.#name = `${PREFIX}${process.pid}-`;
    // 198.18.0.0/15 is for experiments between two networks (RFC 2544).
    this.#third = randomInt(1, 255);
  }

  /** @param hosts 1..99. @throws {Error} what the system refuses. */
  static async make(hosts: number): Promise<Lan> {
    await sweep();
    const lan = new Lan(hosts);
    process.once("exit", lan.#atExit);
    try {
      await lan.#open();
    } catch (error) {
      await lan.close();
      throw error;
    }
    return lan;
  }

  /** Of this process, on the network of the clients. */
  get address(): string {
    return `198.18.${this.#third}.254`;
  }

  /** For the server with that index. */
  place(index: number): Place {
    return {
      command: ["ip", "netns", "exec", this.#host(index)],
      flags: [
        ...["--edge-address", `198.18.${this.#third}.${index + 1}`],
        ...["--peer-address", `198.19.${this.#third}.${index + 1}`],
      ],
    };
  }

  /** Servers hear only those of their own group from now on; hosts in no group hear nobody. */
  async split(groups: readonly (readonly number[])[]): Promise<void> {
    await this.#plug((host) => {
      const group = groups.findIndex((members) => members.includes(host));
      // Of its own, behind those of the groups.
      return group < 0 ? this.#hosts + host : group;
    });
  }

  /** One network again. */
  async heal(): Promise<void> {
    await this.#plug(() => 0);
  }

  async close(): Promise<void> {
    await remove(await names(this.#name));
    process.off("exit", this.#atExit);
  }

  async #open(): Promise<void> {
    const hosts = [...Array(this.#hosts).keys()];
    const fabric = this.#fabric;
    await ip([`netns add ${fabric}`, ...hosts.map((host) => `netns add ${this.#host(host)}`)]);
    await ip(
      [...Array(2 * this.#hosts).keys()].flatMap((n) => [`link add b${n} type bridge`, `link set b${n} up`]),
      fabric,
    );
    await ip([
      `link add ${this.#name}c type bridge`,
      `link set ${this.#name}c up`,
      `addr add ${this.address}/24 dev ${this.#name}c`,
      ...hosts.flatMap((host) => [
        `link add ${this.#name}c${host} type veth peer name clients netns ${this.#host(host)}`,
        `link set ${this.#name}c${host} master ${this.#name}c up`,
      ]),
    ]);
    await ip(
      hosts.flatMap((host) => [
        `link add s${host} type veth peer name servers netns ${this.#host(host)}`,
        `link set s${host} master b0 up`,
      ]),
      fabric,
    );
    for (const host of hosts) {
      await ip(
        [
          "link set lo up",
          `addr add 198.18.${this.#third}.${host + 1}/24 dev clients`,
          `addr add 198.19.${this.#third}.${host + 1}/24 dev servers`,
          "link set clients up",
          "link set servers up",
        ],
        this.#host(host),
      );
    }
  }

  /** One after the other, but in one go: some milliseconds. */
  async #plug(bridgeOf: (host: number) => number): Promise<void> {
    await ip(
      [...Array(this.#hosts).keys()].map((host) => `link set s${host} master b${bridgeOf(host)}`),
      this.#fabric,
    );
  }

  get #fabric(): string {
    return `${this.#name}f`;
  }

  #host(index: number): string {
    return `${this.#name}h${index}`;
  }
}

/** One command a line. */
async function ip(commands: readonly string[], namespace?: string): Promise<void> {
  const running = run("ip", [...(namespace === undefined ? [] : ["-n", namespace]), "-batch", "-"]);
  running.child.stdin?.end(`${commands.join("\n")}\n`);
  await running;
}

/** Namespaces and links of whose name begins with that. */
async function names(start: string): Promise<{ namespaces: string[]; bridges: string[] }> {
  const [listed, links] = await Promise.all([
    run("ip", ["netns", "list"]),
    run("ip", ["-o", "link", "show", "type", "bridge"]),
  ]);
  const starts = (name: string | undefined): name is string => name?.startsWith(start) === true;
  return {
    namespaces: listed.stdout
      .split("\n")
      .map((line) => line.split(" ")[0])
      .filter(starts),
    bridges: links.stdout
      .split("\n")
      .map((line) => /^\d+: ([^:@]+)/.exec(line)?.[1])
      .filter(starts),
  };
}

async function remove({ namespaces, bridges }: { namespaces: string[]; bridges: string[] }): Promise<void> {
  // Their ends of the pairs go with them.
  for (const name of namespaces) await run("ip", ["netns", "del", name]).catch(() => {});
  for (const name of bridges) await run("ip", ["link", "del", name]).catch(() => {});
}

/** What processes left that were killed before they could clean up. */
async function sweep(): Promise<void> {
  const all = await names(PREFIX);
  const isLeft = (name: string) => {
    const pid = /^ow(\d+)-/.exec(name)?.[1];
    return pid !== undefined && !isAlive(Number(pid));
  };
  await remove({ namespaces: all.namespaces.filter(isLeft), bridges: all.bridges.filter(isLeft) });
}

/** Whether there is such a process. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
