/**
 * A sign-in that lasts: refresh tokens that change at each use (RFC 9700, 4.14).
 *
 * Whoever presents a token that was already exchanged is either a thief or the
 * owner after a theft; which of them can't be told, so the session ends. Only
 * hashes are kept. The last 32 used ones are remembered: an older one is merely
 * refused, and a made-up one too, so that knowing a session's id doesn't help to end it.
 */
import { z } from "zod";
import { UnauthenticatedError } from "../errors.ts";
import {
  hashSecret,
  matchesHash,
  parseIdAndSecret,
  randomId,
  randomSecret,
  secretHashSchema,
} from "./secret.ts";
import { userNameSchema } from "./user.ts";

const DAY_MS = 86_400_000;
/** However often it is refreshed. */
const LIFETIME_MS = 30 * DAY_MS;
const IDLE_MS = 7 * DAY_MS;
const USED_MAX = 32;

export const sessionSchema = z.object({
  id: z.string().regex(/^[0-9a-f]{32}$/),
  user: userNameSchema,
  /** Of the refresh token that is valid now. */
  hash: secretHashSchema,
  /** Of those already exchanged, newest first. */
  usedHashes: z.array(secretHashSchema).max(USED_MAX),
  createdAt: z.number(),
  refreshedAt: z.number(),
  expiresAt: z.number(),
  ended: z.enum(["no", "signedOut", "reused", "revoked"]),
});
export type Session = z.output<typeof sessionSchema>;

/** A session as it must be stored, and the token to give out; it is not kept anywhere. */
export interface OpenSession {
  readonly session: Session;
  /** `SESSIONID.SECRET` */
  readonly refreshToken: string;
}

export function openSession(user: string, nowMs: number): OpenSession {
  const id = randomId();
  const secret = randomSecret();
  return {
    session: {
      id,
      user,
      hash: hashSecret(secret),
      usedHashes: [],
      createdAt: nowMs,
      refreshedAt: nowMs,
      expiresAt: nowMs + Math.min(IDLE_MS, LIFETIME_MS),
      ended: "no",
    },
    refreshToken: `${id}.${secret}`,
  };
}

/** The session that a refresh token belongs to; undefined when it can't be one. */
export function sessionIdOf(refreshToken: string): string | undefined {
  return parseIdAndSecret(refreshToken)?.id;
}

export type Refreshed =
  | ({ readonly kind: "rotated" } & OpenSession)
  /** An old token came back: `session` is ended and must be stored; tell the caller nothing but 401. */
  | { readonly kind: "reused"; readonly session: Session };

/**
 * Exchanges a refresh token. Write the returned session on condition that the
 * stored one is still `session`, else two calls at once would both succeed.
 *
 * @throws {UnauthenticatedError} ended, expired, or not a token of this session; nothing changes.
 */
export function refreshSession(session: Session, refreshToken: string, nowMs: number): Refreshed {
  const parsed = parseIdAndSecret(refreshToken);
  if (parsed === undefined || parsed.id !== session.id || !isLive(session, nowMs)) throw signInAgain();
  if (matchesHash(parsed.secret, session.hash)) {
    const secret = randomSecret();
    return {
      kind: "rotated",
      session: {
        ...session,
        hash: hashSecret(secret),
        usedHashes: [session.hash, ...session.usedHashes].slice(0, USED_MAX),
        refreshedAt: nowMs,
        expiresAt: Math.min(nowMs + IDLE_MS, session.createdAt + LIFETIME_MS),
      },
      refreshToken: `${session.id}.${secret}`,
    };
  }
  if (session.usedHashes.some((used) => matchesHash(parsed.secret, used))) {
    return { kind: "reused", session: endSession(session, "reused") };
  }
  throw signInAgain();
}

/** For signing out: whoever holds the present token, or one used before, may end the session. */
export function ownsSession(session: Session, refreshToken: string): boolean {
  const parsed = parseIdAndSecret(refreshToken);
  if (parsed === undefined || parsed.id !== session.id) return false;
  return [session.hash, ...session.usedHashes].some((hash) => matchesHash(parsed.secret, hash));
}

export function endSession(session: Session, ended: "signedOut" | "reused" | "revoked"): Session {
  return session.ended === "no" ? { ...session, ended } : session;
}

export function isLive(session: Session, nowMs: number): boolean {
  return session.ended === "no" && nowMs < session.expiresAt;
}

function signInAgain(): UnauthenticatedError {
  return new UnauthenticatedError("the session has ended; sign in again");
}
