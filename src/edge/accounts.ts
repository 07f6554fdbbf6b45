/**
 * Signing in, and knowing who asks, on any member.
 *
 * Each request needs a user, a session or key, and a signing key; asking their
 * leader each time would make every call twice as dear. So they are held as a
 * copy, renewed every two seconds; a copy that nobody confirmed for five is not
 * trusted, and calls get 503. What the copy lacks is asked for: a session that
 * another server opened a moment ago is good at once.
 */
import { OutcomeUnknownError, UnauthenticatedError, UnavailableError } from "../errors.ts";
import { type ApiKey, apiKeyIdOf, grantsOfKey, verifyApiKey } from "../identity/api-key.ts";
import { verifyPassword } from "../identity/password.ts";
import { commonGrants, type Grant, grantsOf } from "../identity/permission.ts";
import {
  isLive,
  openSession,
  ownsSession,
  refreshSession,
  type Session,
  sessionIdOf,
} from "../identity/session.ts";
import { createSigningKey, type SigningKey, TokenKeys } from "../identity/token.ts";
import { requireEnabled, type User, userNameSchema } from "../identity/user.ts";
import type { Log } from "../log.ts";
import type { KeyLayout } from "../node/key-layout.ts";
import type { Registers } from "../node/registers.ts";
import { SystemEntries } from "../node/system-entries.ts";
import type { Accounts, Principal, SignIn } from "./backend.ts";

const RENEW_MS = 2_000;
/** While nobody asks: often enough to know of a new signing key before it is used. */
const RENEW_MS_IDLE = 20_000;
/** Since the last question: then the next one waits until the copy is renewed. */
const IDLE_AFTER_MS = 10_000;
const CONFIRMED_MS_MAX = 5_000;
/** A majority that does not answer so long is not waited for where any copy will do. */
const PROVED_MS_MAX = 1_500;
/** Until the first copy is there, ask quickly: a server that just started is waited for. */
const FIRST_RENEW_MS = 100;
const DAY_MS = 86_400_000;
/** A new signing key every 30 days, announced ahead of its use, kept until its tokens are gone. */
const SIGNING_AGE_MS_MAX = 30 * DAY_MS;
const SIGNING_ANNOUNCE_MS = 60_000;
const SIGNING_LIFE_MS = 60 * DAY_MS;
const EXCHANGE_ATTEMPTS_MAX = 3;

interface Copy {
  readonly users: ReadonlyMap<string, User>;
  readonly sessions: ReadonlyMap<string, Session>;
  readonly apiKeys: ReadonlyMap<string, ApiKey>;
  /** performance.now() when the reads that made it began. */
  readonly confirmedAtMs: number;
}

export class RegisterAccounts implements Accounts {
  readonly #entries: SystemEntries;
  readonly #keys: TokenKeys;
  readonly #log: Log;
  #isStopping = false;
  #copy: Copy | undefined;
  // Of the signing keys in use, so that they are parsed again only after a change.
  #kids = "";
  #renewing: Promise<void> = Promise.resolve();
  #renewedAtMs = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  /** performance.now() of the last question. */
  #askedAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: { registers: Registers; layout: KeyLayout; clusterId: string; log: Log }) {
    this.#entries = new SystemEntries(options.registers, options.layout);
    this.#keys = new TokenKeys(options.clusterId, []);
    this.#log = options.log;
  }

  /** Begins to hold the copy. */
  start(): void {
    clearTimeout(this.#timer);
    this.#renewedAtMs = performance.now();
    const renewing = this.renew().then(() => {
      if (this.#isStopping || this.#renewing !== renewing) return;
      this.#timer = setTimeout(() => this.start(), this.#untilNextMs);
      this.#timer.unref();
    });
    this.#renewing = renewing;
  }

  get #untilNextMs(): number {
    if (this.#copy === undefined) return FIRST_RENEW_MS;
    return performance.now() - this.#askedAtMs < IDLE_AFTER_MS ? RENEW_MS : RENEW_MS_IDLE;
  }

  /** Makes a new copy now; keeps the old one when nobody answers. */
  async renew(): Promise<void> {
    try {
      await this.#renew();
    } catch (error) {
      this.#log.debug("accounts not confirmed", { error });
    }
  }

  /** A question that is under way is not waited for: its answer changes nothing any more. */
  stop(): void {
    this.#isStopping = true;
    clearTimeout(this.#timer);
  }

  async login(username: string, password: string): Promise<SignIn> {
    const name = userNameSchema.safeParse(username);
    const found = name.success ? await this.#entries.read("user", name.data) : undefined;
    const matches = await verifyPassword(password, found?.record.passwordHash);
    if (found === undefined || !matches) throw new UnauthenticatedError("wrong user name or password");
    requireEnabled(found.record);
    await this.#requireKeys();
    const { session, refreshToken } = openSession(found.record.name, Date.now());
    await this.#entries.put("session", session.id, session, "absent", session.expiresAt);
    return this.#signIn(found.record, session.id, refreshToken);
  }

  async prove(username: string, password: string): Promise<readonly Grant[]> {
    const name = userNameSchema.safeParse(username);
    const found = name.success ? await this.#anyCopy(name.data) : undefined;
    const matches = await verifyPassword(password, found?.passwordHash);
    if (found === undefined || !matches) throw new UnauthenticatedError("wrong user name or password");
    requireEnabled(found);
    return grantsOf(found.role);
  }

  async #anyCopy(name: string): Promise<User | undefined> {
    try {
      return (await this.#entries.read("user", name, { timeoutMs: PROVED_MS_MAX }))?.record;
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error;
      return (await this.#entries.read("user", name, { isStale: true }))?.record;
    }
  }

  async refresh(refreshToken: string): Promise<SignIn> {
    const id = sessionIdOf(refreshToken);
    if (id === undefined) throw sessionEnded();
    await this.#requireKeys();
    for (let attempt = 1; attempt <= EXCHANGE_ATTEMPTS_MAX; attempt++) {
      const found = await this.#entries.read("session", id);
      if (found === undefined) throw sessionEnded();
      const user = await this.#entries.read("user", found.record.user);
      if (user === undefined) throw sessionEnded();
      requireEnabled(user.record);
      const next = refreshSession(found.record, refreshToken, Date.now());
      const written = await this.#entries.put(
        "session",
        id,
        next.session,
        found.version,
        next.session.expiresAt,
      );
      if (!written) continue;
      if (next.kind === "reused") {
        this.#log.warn("refresh token used twice: session ended", { sessionId: id });
        throw sessionEnded();
      }
      return this.#signIn(user.record, id, next.refreshToken);
    }
    throw new UnavailableError("the session is being refreshed elsewhere; try again");
  }

  async revoke(refreshToken: string): Promise<void> {
    const id = sessionIdOf(refreshToken);
    if (id === undefined) return;
    for (let attempt = 1; attempt <= EXCHANGE_ATTEMPTS_MAX; attempt++) {
      const found = await this.#entries.read("session", id);
      if (found === undefined || !ownsSession(found.record, refreshToken)) return;
      // Absent is as good as ended, and takes no room.
      if (await this.#entries.remove("session", id, found.version)) {
        this.#forgetSession(id);
        return;
      }
    }
    throw new OutcomeUnknownError("ending the session");
  }

  async authenticateToken(accessToken: string): Promise<Principal> {
    const copy = await this.#confirmed();
    const nowMs = Date.now();
    const claims = this.#keys.verify(accessToken, nowMs);
    const session =
      copy.sessions.get(claims.sessionId) ?? (await this.#entries.read("session", claims.sessionId))?.record;
    if (session === undefined || session.user !== claims.user || !isLive(session, nowMs))
      throw sessionEnded();
    const user = await this.#user(copy, claims.user);
    if (user === undefined) throw sessionEnded();
    requireEnabled(user);
    return {
      username: user.name,
      role: user.role,
      // A role that was lowered takes effect before the token's end.
      scopes: commonGrants(claims.scopes, grantsOf(user.role)),
      sessionId: session.id,
    };
  }

  async authenticateKey(apiKey: string): Promise<Principal> {
    const copy = await this.#confirmed();
    const id = apiKeyIdOf(apiKey);
    const known =
      id === undefined
        ? undefined
        : (copy.apiKeys.get(id) ?? (await this.#entries.read("apiKey", id))?.record);
    const record = verifyApiKey(known, apiKey, Date.now());
    const owner = await this.#user(copy, record.owner);
    if (owner === undefined) throw new UnauthenticatedError("the API key is not valid; make a new one");
    requireEnabled(owner);
    return { username: owner.name, role: owner.role, scopes: grantsOfKey(record, owner.role) };
  }

  jwks(): { readonly keys: readonly object[] } {
    return this.#keys.jwks(Date.now());
  }

  #signIn(user: User, sessionId: string, refreshToken: string): SignIn {
    const scopes = grantsOf(user.role);
    const signed = this.#keys.sign({ user: user.name, role: user.role, scopes, sessionId }, Date.now());
    return {
      accessToken: signed.accessToken,
      refreshToken,
      tokenType: "Bearer",
      expiresIn: signed.expiresInSeconds,
    };
  }

  async #user(copy: Copy, name: string): Promise<User | undefined> {
    return copy.users.get(name) ?? (await this.#entries.read("user", name))?.record;
  }

  /** A copy on its way is waited for: the first one, or the one after a silence. */
  async #confirmed(): Promise<Copy> {
    const isCurrent = (copy: Copy | undefined): copy is Copy =>
      copy !== undefined && performance.now() - copy.confirmedAtMs <= CONFIRMED_MS_MAX;
    this.#askedAtMs = performance.now();
    if (!isCurrent(this.#copy)) {
      // Begun long ago, the last renewal is over, or is given up with whoever does not answer it.
      const isResting = this.#askedAtMs - this.#renewedAtMs >= CONFIRMED_MS_MAX;
      if (isResting && this.#copy !== undefined && !this.#isStopping) this.start();
      await this.#renewing;
    }
    const copy = this.#copy;
    if (!isCurrent(copy)) {
      throw new UnavailableError(
        "this server can't reach the cluster's accounts at the moment, for which most servers have to be up; try again or ask another server; /readyz of each server says what it lacks",
      );
    }
    return copy;
  }

  /** Signing in must work while the first copy is still on its way. */
  async #requireKeys(): Promise<void> {
    if (this.#kids === "") this.#useKeys(await this.#entries.list("signing"));
  }

  #useKeys(records: readonly SigningKey[]): void {
    const kids = records
      .map(({ kid }) => kid)
      .sort()
      .join();
    if (kids === this.#kids) return;
    this.#keys.replace(records);
    this.#kids = kids;
  }

  #forgetSession(id: string): void {
    const copy = this.#copy;
    if (copy === undefined) return;
    const sessions = new Map(copy.sessions);
    sessions.delete(id);
    this.#copy = { ...copy, sessions };
  }

  async #renew(): Promise<void> {
    const confirmedAtMs = performance.now();
    // Asked in one turn, so that the partition's leader confirms once that it still leads.
    const [signing, users, apiKeys, sessions] = await Promise.all([
      this.#entries.list("signing"),
      this.#entries.list("user"),
      this.#entries.list("apiKey"),
      this.#entries.list("session"),
    ]);
    this.#useKeys(signing);
    this.#copy = {
      users: new Map(users.map((user) => [user.name, user])),
      sessions: new Map(sessions.map((session) => [session.id, session])),
      apiKeys: new Map(apiKeys.map((key) => [key.id, key])),
      confirmedAtMs,
    };
    await this.#renewSigningKeys(signing);
  }

  /** Several servers may do it at once: then there are some keys more than needed, all good. */
  async #renewSigningKeys(records: readonly SigningKey[]): Promise<void> {
    const nowMs = Date.now();
    const isFresh = records.some(
      ({ signFrom, verifyUntil }) =>
        nowMs - signFrom < SIGNING_AGE_MS_MAX && verifyUntil - nowMs > SIGNING_LIFE_MS - SIGNING_AGE_MS_MAX,
    );
    if (records.length === 0 || isFresh) return;
    const signFrom = nowMs + SIGNING_ANNOUNCE_MS;
    const verifyUntil = signFrom + SIGNING_LIFE_MS;
    const key = createSigningKey({ signFrom, verifyUntil });
    await this.#entries.put("signing", key.kid, key, "absent", verifyUntil);
    this.#log.info("signing key renewed", { kid: key.kid });
  }
}

function sessionEnded(): UnauthenticatedError {
  return new UnauthenticatedError("the session has ended; sign in again");
}
