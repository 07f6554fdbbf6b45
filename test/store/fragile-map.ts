/** A backend that dies: after some writes every further one fails, and nothing of it is kept. */
export class FragileMap extends Map<string, string> {
  /** Each set and delete takes one. */
  writesLeft = Number.POSITIVE_INFINITY;

  /** The next one fails, whatever is left. */
  failsOnce = false;

  override set(key: string, value: string): this {
    this.#spend();
    return super.set(key, value);
  }

  override delete(key: string): boolean {
    this.#spend();
    return super.delete(key);
  }

  #spend(): void {
    const fails = this.failsOnce;
    this.failsOnce = false;
    if (fails || this.writesLeft <= 0) throw new Error("the backend is gone");
    this.writesLeft--;
  }
}
