/**
 * How much an edge has in hand at once: requests that are being answered, and the
 * bytes of their bodies. Past either bound the next one is told to come again
 * before any of its body is read; streams that have begun count no more.
 */
import { UnavailableError } from "../errors.ts";

const REQUESTS_MAX = 1_024;
const BODY_BYTES_MAX = 128 * 1024 * 1024;

export class EdgeLoad {
  #requests = 0;
  #bytes = 0;

  /**
   * @param bytes of the body, as announced.
   * @returns to be called once, when the request has been answered.
   * @throws {UnavailableError} too much is in hand; another server may have less.
   */
  enter(bytes: number): () => void {
    // One that is larger than all may still be taken when nothing else is there.
    const isFull =
      this.#requests >= REQUESTS_MAX || (this.#bytes > 0 && this.#bytes + bytes > BODY_BYTES_MAX);
    if (isFull) {
      throw new UnavailableError(
        "this server has as many requests in hand as it can take; try again in a second, or ask another one",
      );
    }
    this.#requests++;
    this.#bytes += bytes;
    return () => {
      this.#requests--;
      this.#bytes -= bytes;
    };
  }
}
