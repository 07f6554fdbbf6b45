/**
 * How often one may try to sign in, and how many passwords are hashed at once:
 * each takes 33 ms of a core and 19 MiB, so it would be a cheap way to stop a server.
 */
import { RateLimiterMemory, RateLimiterRes } from "rate-limiter-flexible";
import { BusyError, UnauthenticatedError } from "../errors.ts";

const ATTEMPTS_PER_MINUTE = 120;
/** By address and name together: a stranger elsewhere can't lock a user out. */
const FAILURES_MAX = 10;
const FAILURES_SECONDS = 300;
const AT_ONCE_MAX = 2;
const WAITING_MAX = 32;
const WAIT_HINT_MS = 2_000;

export class LoginLimits {
  readonly #attempts = new RateLimiterMemory({ points: ATTEMPTS_PER_MINUTE, duration: 60 });
  readonly #failures = new RateLimiterMemory({ points: FAILURES_MAX, duration: FAILURES_SECONDS });
  // Those that wait for one of the AT_ONCE_MAX places, first come first served.
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  /**
   * Runs one attempt to sign in.
   *
   * @throws {BusyError} too many attempts, or too many at once.
   */
  async attempt<T>(address: string, username: string, login: () => Promise<T>): Promise<T> {
    const who = `${address} ${username}`;
    const failed = await this.#failures.get(who);
    if (failed !== null && failed.consumedPoints >= FAILURES_MAX) {
      throw new BusyError("signing in with this name from this address", failed.msBeforeNext);
    }
    await consume(this.#attempts, address, "signing in from this address");
    await this.#place();
    try {
      return await login();
    } catch (error) {
      if (error instanceof UnauthenticatedError) await this.#failures.penalty(who);
      throw error;
    } finally {
      this.#leave();
    }
  }

  async #place(): Promise<void> {
    if (this.#running < AT_ONCE_MAX) {
      this.#running++;
      return;
    }
    if (this.#waiting.length >= WAITING_MAX) throw new BusyError("signing in", WAIT_HINT_MS);
    // Whoever leaves hands its place on: #running stays as it is.
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#running--;
    else next();
  }
}

async function consume(limiter: RateLimiterMemory, key: string, what: string): Promise<void> {
  try {
    await limiter.consume(key);
  } catch (refusal) {
    if (refusal instanceof RateLimiterRes) throw new BusyError(what, refusal.msBeforeNext);
    throw refusal;
  }
}
