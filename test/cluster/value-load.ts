/**
 * Load on values that never stops: writers that count up in keys of their own, and
 * read what others wrote. They remember what was acknowledged, and every call that
 * failed or told something that was never written.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Client } from "../../src/sdk/client.ts";
import { Load } from "./load.ts";

const NAMESPACE = "load";

export interface ValueLoadOptions {
  /** Of each writer. */
  readonly keys?: number;
  /** Of one writer, between a write and the next. */
  readonly everyMs?: number;
}

export class ValueLoad extends Load {
  /** By key: the count that was acknowledged last. */
  readonly #acknowledged = new Map<string, number>();
  readonly #begun = new Map<string, number>();

  /** @param clients one a writer. */
  constructor(clients: readonly Client[], { keys = 20, everyMs = 10 }: ValueLoadOptions = {}) {
    super();
    this.begin(clients.map((client, writer) => this.#write(client, writer, keys, everyMs)));
  }

  get keys(): string[] {
    return [...this.#acknowledged.keys()];
  }

  /** What of all that was acknowledged is not there, asked by `client`; in words. */
  async lost(client: Client): Promise<string[]> {
    const lost: string[] = [];
    await eachOf(this.keys, 8, async (key) => {
      const found = (await client.kv.get(NAMESPACE, key))?.text();
      const problem = this.#problemOf(key, found, this.#acknowledged.get(key)!);
      if (problem !== undefined) lost.push(problem);
    });
    return lost;
  }

  /** Keys of which two of these servers, each asked for its own copy, keep different ones; in words. After `stop`. */
  async differing(clients: readonly Client[]): Promise<string[]> {
    const differing: string[] = [];
    await eachOf(this.keys, 8, async (key) => {
      const copies = await Promise.all(
        clients.map(async ({ kv }) => {
          const copy = await kv.get(NAMESPACE, key, { stale: true });
          return copy === undefined ? "nothing" : `${copy.text()} (${copy.etag})`;
        }),
      );
      if (new Set(copies).size > 1) differing.push(`${key}: ${copies.join(", ")}`);
    });
    return differing;
  }

  async #write(client: Client, writer: number, keys: number, everyMs: number): Promise<void> {
    const signal = this.stopping;
    for (let n = 0; !signal.aborted; n++) {
      const key = `writer ${writer}, key ${n % keys}`;
      const count = (this.#begun.get(key) ?? 0) + 1;
      this.#begun.set(key, count);
      const isWritten = await this.ask(`write ${count} to ${key}`, async () => {
        await client.kv.set(NAMESPACE, key, String(count));
        return true;
      });
      if (isWritten === true) this.#acknowledged.set(key, count);
      const others = this.keys;
      const other = others[(n * 7) % Math.max(1, others.length)];
      if (other !== undefined) {
        const before = this.#acknowledged.get(other)!;
        await this.ask(`read ${other}`, async () => {
          const problem = this.#problemOf(other, (await client.kv.get(NAMESPACE, other))?.text(), before);
          if (problem !== undefined) this.noteFailure(problem);
        });
      }
      await pause(everyMs, undefined, { signal }).catch(() => {});
    }
  }

  #problemOf(key: string, found: string | undefined, atLeast: number): string | undefined {
    const count = Number(found ?? 0);
    const isRight = count >= atLeast && count <= this.#begun.get(key)!;
    return isRight ? undefined : `${key}: ${found} instead of ${atLeast} to ${this.#begun.get(key)}`;
  }
}

async function eachOf<T>(
  items: readonly T[],
  atOnce: number,
  act: (item: T) => Promise<void>,
): Promise<void> {
  const left = [...items];
  const worker = async () => {
    for (let item = left.pop(); item !== undefined; item = left.pop()) await act(item);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}
