import { RecentMap } from "./recent-map.ts";

/**
 * Rules and patterns come with every task, in clear; a job's are the same for all of its
 * pages. Keeps what was compiled last, by content.
 */
export class RecentlyCompiled<Source, Compiled> {
  readonly #compile: (source: Source) => Compiled;
  readonly #compiled: RecentMap<Compiled>;

  constructor(max: number, compile: (source: Source) => Compiled) {
    this.#compile = compile;
    this.#compiled = new RecentMap(max);
  }

  get(source: Source): Compiled {
    const key = JSON.stringify(source);
    const known = this.#compiled.get(key);
    if (known !== undefined) return known;
    const compiled = this.#compile(source);
    this.#compiled.set(key, compiled);
    return compiled;
  }
}
