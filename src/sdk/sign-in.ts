/**
 * What a client proves itself with. With a name and a password it signs in when
 * it first needs to, exchanges its refresh token before the access token ends,
 * and signs in anew when the session is gone. One exchange at a time: a refresh
 * token that comes twice would end the session.
 */
import { UnauthenticatedError, UsageError } from "../errors.ts";
import type { Headers } from "./connection.ts";

export interface Credentials {
  /** An access token that is given as it is, and ends when it ends. */
  readonly token?: string | undefined;
  readonly apiKey?: string | undefined;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
}

interface Tokens {
  readonly accessToken: string;
  readonly refreshToken: string;
  /** Seconds. */
  readonly expiresIn: number;
}

export interface AccountCalls {
  token(credentials: { username: string; password: string }): Promise<Tokens>;
  refresh(refreshToken: string): Promise<Tokens>;
  revoke(refreshToken: string): Promise<void>;
}

/** Renewed this long before its end. */
const AHEAD_MS = 60_000;

export class SignIn {
  readonly #credentials: Credentials;
  readonly #calls: AccountCalls;
  #tokens: (Tokens & { readonly renewAtMs: number }) | undefined;
  #renewing: Promise<string> | undefined;

  /** @throws {UsageError} nothing to sign in with, or half of it. */
  constructor(credentials: Credentials, calls: AccountCalls) {
    const { token, apiKey, username, password } = credentials;
    const ways = [token, apiKey, username ?? password].filter((way) => way !== undefined);
    if (ways.length !== 1 || (username === undefined) !== (password === undefined)) {
      throw new UsageError("sign in with exactly one of: token, apiKey, username and password");
    }
    this.#credentials = credentials;
    this.#calls = calls;
  }

  /** Whether `forget` and another `headers` may help after a 401: not when signing in itself was refused. */
  get canRenew(): boolean {
    return this.#tokens !== undefined;
  }

  async headers(): Promise<Headers> {
    const { token, apiKey } = this.#credentials;
    if (apiKey !== undefined) return { "x-api-key": apiKey };
    return { authorization: `Bearer ${token ?? (await this.#accessToken())}` };
  }

  /** The server did not take it: the next headers are new ones. */
  forget(): void {
    if (this.#tokens !== undefined) this.#tokens = { ...this.#tokens, renewAtMs: 0 };
  }

  /** Ends the session, if one was opened. */
  async end(): Promise<void> {
    const tokens = this.#tokens;
    this.#tokens = undefined;
    if (tokens !== undefined) await this.#calls.revoke(tokens.refreshToken);
  }

  #accessToken(): Promise<string> {
    const tokens = this.#tokens;
    if (tokens !== undefined && performance.now() < tokens.renewAtMs)
      return Promise.resolve(tokens.accessToken);
    this.#renewing ??= this.#renew().finally(() => {
      this.#renewing = undefined;
    });
    return this.#renewing;
  }

  async #renew(): Promise<string> {
    const startedMs = performance.now();
    const tokens = (await this.#exchange()) ?? (await this.#signIn());
    this.#tokens = { ...tokens, renewAtMs: startedMs + tokens.expiresIn * 1000 - AHEAD_MS };
    return tokens.accessToken;
  }

  /** Undefined: there is no session any more, or it can't be known whether its token was exchanged. */
  async #exchange(): Promise<Tokens | undefined> {
    const old = this.#tokens;
    this.#tokens = undefined;
    if (old === undefined) return undefined;
    try {
      return await this.#calls.refresh(old.refreshToken);
    } catch {
      return undefined; // Whatever it was, the password opens a new session; if not even that, signing in says why.
    }
  }

  #signIn(): Promise<Tokens> {
    const { username, password } = this.#credentials;
    if (username === undefined || password === undefined) {
      throw new UnauthenticatedError("the access token has ended; sign in again");
    }
    return this.#calls.token({ username, password });
  }
}
