/**
 * Access tokens: JWT as RFC 9068 shapes them and RFC 8725 wants them checked.
 *
 * ES256 only; the algorithm is never taken from the token. jsonwebtoken by itself
 * accepts tokens without `exp`, any `typ`, a future `iat` and unknown `crit`, and
 * JSON with members given twice; so the shape is checked here: a token passes only
 * if both its parts are exactly what our own serialisation gives for their content.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
} from "node:crypto";
import jwt from "jsonwebtoken";
import { z } from "zod";
import { DamagedError, UnauthenticatedError } from "../errors.ts";
import { type Grant, grantSchema, type Role, roleSchema } from "./permission.ts";
import { randomId } from "./secret.ts";
import { userNameSchema } from "./user.ts";

export const ACCESS_TOKEN_SECONDS = 15 * 60;
const AUDIENCE = "orbweaver-edge";
const TYPE = "at+jwt";
const TOKEN_CHARS_MAX = 4096;
/** Two servers' clocks may be this far apart before one of them leaves service. */
const CLOCK_SKEW_SECONDS = 60;
/** A token that was verified is not verified again until it expires: an ES256 check costs 80 us. */
const VERIFIED_MAX = 1024;

const coordinate = z.string().regex(/^[A-Za-z0-9_-]{43}$/);
const publicJwkSchema = z.object({
  kty: z.literal("EC"),
  crv: z.literal("P-256"),
  x: coordinate,
  y: coordinate,
});

export const signingKeySchema = z.object({
  kid: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
  jwk: publicJwkSchema.extend({ d: coordinate }),
  /** Milliseconds since the epoch. Tokens are signed with the newest key whose time has come. */
  signFrom: z.number(),
  /** Nothing that this key signed is accepted from here on. */
  verifyUntil: z.number(),
});
export type SigningKey = z.output<typeof signingKeySchema>;

/** `kid` is the key's thumbprint (RFC 7638), so that one name never means two keys. */
export function createSigningKey(options: { signFrom: number; verifyUntil: number }): SigningKey {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const { kty, crv, x, y, d } = privateKey.export({ format: "jwk" });
  const kid = createHash("sha256").update(JSON.stringify({ crv, kty, x, y })).digest("base64url");
  const { signFrom, verifyUntil } = options;
  return signingKeySchema.parse({ kid, jwk: { kty, crv, x, y, d }, signFrom, verifyUntil });
}

/** Who asks, as proved by an access token. */
export interface AccessClaims {
  readonly user: string;
  readonly role: Role;
  readonly scopes: readonly Grant[];
  /** Tokens are revoked by their session. */
  readonly sessionId: string;
  readonly tokenId: string;
  readonly expiresAtMs: number;
}

const headerSchema = z.strictObject({
  alg: z.literal("ES256"),
  typ: z.literal(TYPE),
  kid: z.string().max(64),
});

const payloadSchema = z.strictObject({
  iss: z.string(),
  aud: z.literal(AUDIENCE),
  sub: userNameSchema,
  sid: z.string().regex(/^[0-9a-f]{32}$/),
  jti: z.string().regex(/^[0-9a-f]{32}$/),
  role: roleSchema,
  scope: z.array(grantSchema).max(32),
  iat: z.int().positive(),
  exp: z.int().positive(),
});

interface Key {
  readonly record: SigningKey;
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

/** Signs and verifies the access tokens of one cluster with the keys that it has now. */
export class TokenKeys {
  readonly #issuer: string;
  #keys: ReadonlyMap<string, Key> = new Map();
  /** By token, oldest first, at most VERIFIED_MAX; each counts only while its key does. */
  readonly #verified = new Map<string, AccessClaims & { readonly keyId: string }>();

  /** @param clusterId the issuer: a token of another cluster is refused. */
  constructor(clusterId: string, records: readonly SigningKey[]) {
    this.#issuer = clusterId;
    this.replace(records);
  }

  /** Uses exactly `records` from now on. */
  replace(records: readonly SigningKey[]): void {
    this.#keys = new Map(
      records.map((record) => {
        const privateKey = createPrivateKey({ format: "jwk", key: record.jwk });
        return [record.kid, { record, privateKey, publicKey: createPublicKey(privateKey) }];
      }),
    );
  }

  /** @throws {DamagedError} no key may sign now: the cluster's signing keys were not renewed. */
  sign(
    subject: { user: string; role: Role; scopes: readonly Grant[]; sessionId: string },
    nowMs: number,
  ): { readonly accessToken: string; readonly expiresInSeconds: number; readonly tokenId: string } {
    const key = this.#signingKey(nowMs);
    const iat = Math.floor(nowMs / 1000);
    const tokenId = randomId();
    const payload: z.output<typeof payloadSchema> = {
      iss: this.#issuer,
      aud: AUDIENCE,
      sub: subject.user,
      sid: subject.sessionId,
      jti: tokenId,
      role: subject.role,
      scope: [...subject.scopes],
      iat,
      exp: iat + ACCESS_TOKEN_SECONDS,
    };
    const accessToken = jwt.sign(payload, key.privateKey, {
      algorithm: "ES256",
      header: { alg: "ES256", typ: TYPE, kid: key.record.kid },
    });
    return { accessToken, expiresInSeconds: ACCESS_TOKEN_SECONDS, tokenId };
  }

  /**
   * Says nothing about the session: whether it was ended since is the caller's to ask.
   *
   * @throws {UnauthenticatedError} whatever is wrong with the token; the text doesn't tell what.
   */
  verify(token: string, nowMs: number): AccessClaims {
    const known = this.#verified.get(token);
    if (known !== undefined) {
      const key = this.#keys.get(known.keyId);
      if (nowMs < known.expiresAtMs && key !== undefined && nowMs < key.record.verifyUntil) return known;
      this.#verified.delete(token);
      throw invalidToken();
    }
    const claims = this.#verifyAnew(token, nowMs);
    if (this.#verified.size >= VERIFIED_MAX) {
      const [oldest] = this.#verified.keys();
      if (oldest !== undefined) this.#verified.delete(oldest);
    }
    this.#verified.set(token, claims);
    return claims;
  }

  /** The public keys, for `/.well-known/jwks.json` (RFC 7517). */
  jwks(nowMs: number): { readonly keys: readonly object[] } {
    return {
      keys: [...this.#keys.values()]
        .filter(({ record }) => nowMs < record.verifyUntil)
        .map(({ record }) => ({
          ...publicJwkSchema.parse(record.jwk),
          kid: record.kid,
          alg: "ES256",
          use: "sig",
        })),
    };
  }

  #verifyAnew(token: string, nowMs: number): AccessClaims & { readonly keyId: string } {
    if (token.length > TOKEN_CHARS_MAX) throw invalidToken();
    const match = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})$/.exec(token);
    if (match === null || !isCanonical(match[3]!)) throw invalidToken();
    const header = headerSchema.safeParse(canonicalJson(match[1]!));
    const payload = payloadSchema.safeParse(canonicalJson(match[2]!));
    if (!header.success || !payload.success) throw invalidToken();
    const key = this.#keys.get(header.data.kid);
    if (key === undefined || nowMs >= key.record.verifyUntil) throw invalidToken();
    const nowSeconds = Math.floor(nowMs / 1000);
    try {
      jwt.verify(token, key.publicKey, {
        algorithms: ["ES256"],
        issuer: this.#issuer,
        audience: AUDIENCE,
        clockTimestamp: nowSeconds,
      });
    } catch (cause) {
      throw invalidToken({ cause });
    }
    const { iat, exp, sub, sid, jti, role, scope } = payload.data;
    if (iat > nowSeconds + CLOCK_SKEW_SECONDS || exp > iat + ACCESS_TOKEN_SECONDS) throw invalidToken();
    return {
      user: sub,
      role,
      scopes: scope,
      sessionId: sid,
      tokenId: jti,
      expiresAtMs: exp * 1000,
      keyId: header.data.kid,
    };
  }

  #signingKey(nowMs: number): Key {
    let newest: Key | undefined;
    for (const key of this.#keys.values()) {
      const outlives = key.record.verifyUntil >= nowMs + ACCESS_TOKEN_SECONDS * 1000;
      if (key.record.signFrom > nowMs || !outlives) continue;
      if (newest === undefined || key.record.signFrom > newest.record.signFrom) newest = key;
    }
    if (newest === undefined)
      throw new DamagedError("no signing key is valid now; renew the cluster's signing keys");
    return newest;
  }
}

/** The content of one part, or undefined unless it is byte for byte what JSON.stringify gives for it. */
function canonicalJson(part: string): unknown {
  if (!isCanonical(part)) return undefined;
  const text = Buffer.from(part, "base64url").toString("utf8");
  try {
    const content: unknown = JSON.parse(text);
    return JSON.stringify(content) === text ? content : undefined;
  } catch {
    return undefined; // Not JSON: refused like any other content.
  }
}

/** Whether nothing but `part` stands for its bytes: base64 has spare bits at its end. */
function isCanonical(part: string): boolean {
  return Buffer.from(part, "base64url").toString("base64url") === part;
}

function invalidToken(options?: ErrorOptions): UnauthenticatedError {
  return new UnauthenticatedError("the access token is not valid; sign in again", options);
}
