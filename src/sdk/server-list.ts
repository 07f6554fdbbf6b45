/**
 * The servers that a client may ask, and which of them it asks now. It stays with
 * one as long as that answers; after a failure the next one has its turn.
 */
import { UsageError } from "../errors.ts";

const SERVERS_MAX = 256;

export class ServerList {
  // Origins, each once, never empty; #current is an index into it.
  readonly #servers: string[];
  #current = 0;

  /** @throws {UsageError} none, or not an `https://host:port`. */
  constructor(servers: readonly string[]) {
    this.#servers = [...new Set(servers.map(originOf))];
    if (this.#servers.length === 0)
      throw new UsageError("name at least one server, e.g. https://10.0.0.5:8443");
  }

  get current(): string {
    return this.#servers[this.#current]!;
  }

  get all(): readonly string[] {
    return this.#servers;
  }

  /** `failed` gave no answer. Callers that failed at the same server at once move on once. */
  moveOnFrom(failed: string): void {
    if (this.current === failed) this.#current = (this.#current + 1) % this.#servers.length;
  }

  /** Members that the cluster told of. What is no https origin is passed over: nothing is wrong with ours. */
  learn(servers: readonly string[]): void {
    for (const server of servers) {
      const origin = URL.parse(server);
      if (origin?.protocol !== "https:" || this.#servers.includes(origin.origin)) continue;
      if (this.#servers.length < SERVERS_MAX) this.#servers.push(origin.origin);
    }
  }
}

function originOf(text: string): string {
  const url = URL.parse(text);
  if (url?.protocol !== "https:" || url.pathname !== "/" || url.search !== "" || url.username !== "") {
    throw new UsageError(`${text}: is no server; write https://HOST:PORT, e.g. https://10.0.0.5:8443`);
  }
  return url.origin;
}
