/**
 * Writers that never stop until they are told to, each with a client of its own.
 * Whatever they ask is counted, and what failed is noted in words.
 */
export abstract class Load {
  readonly #stopping = new AbortController();
  readonly #failed: string[] = [];
  #writers: readonly Promise<void>[] = [];
  #answers = 0;
  #longestMs = 0;

  /** Calls that were answered. */
  get answers(): number {
    return this.#answers;
  }

  /** Calls that failed, or answered something that was never written; in words. */
  get failed(): readonly string[] {
    return this.#failed;
  }

  /** Of the call that took longest. */
  get longestMs(): number {
    return this.#longestMs;
  }

  /** Resolves when the calls under way are answered. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#writers);
  }

  /** Of each writer: when to end. */
  protected get stopping(): AbortSignal {
    return this.#stopping.signal;
  }

  /** At the end of the constructor. */
  protected begin(writers: readonly Promise<void>[]): void {
    this.#writers = writers;
  }

  protected noteFailure(text: string): void {
    this.#failed.push(text);
  }

  /** Undefined: it failed, and that was noted. */
  protected async ask<T>(what: string, ask: () => Promise<T>): Promise<T | undefined> {
    const askedMs = performance.now();
    try {
      const answer = await ask();
      this.#answers++;
      return answer;
    } catch (error) {
      this.#failed.push(`${what}: ${error}`);
      return undefined;
    } finally {
      this.#longestMs = Math.max(this.#longestMs, performance.now() - askedMs);
    }
  }
}
