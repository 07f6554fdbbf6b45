/**
 * Rules and patterns come with every task, in clear; a job's are the same for all of its
 * pages. Keeps what was compiled last, by content.
 */
export class RecentlyCompiled<Source, Compiled> {
  readonly #max: number;
  readonly #compile: (source: Source) => Compiled;
  /** Least recently used first. */
  readonly #compiled = new Map<string, Compiled>();

  constructor(max: number, compile: (source: Source) => Compiled) {
    this.#max = max;
    this.#compile = compile;
  }

  get(source: Source): Compiled {
    const key = JSON.stringify(source);
    const known = this.#compiled.get(key);
    const compiled = known ?? this.#compile(source);
    this.#compiled.delete(key);
    this.#compiled.set(key, compiled);
    if (this.#compiled.size > this.#max) {
      const [oldest] = this.#compiled.keys();
      this.#compiled.delete(oldest!);
    }
    return compiled;
  }
}
