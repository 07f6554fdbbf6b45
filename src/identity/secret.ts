/**
 * Random secrets that are shown once and kept only as their SHA-256. With 256
 * random bits there is nothing to guess, so a slow hash would add cost but no
 * safety; that is for passwords, which people choose.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { z } from "zod";

/** SHA-256 as 64 hex digits. */
export const secretHashSchema = z.string().regex(/^[0-9a-f]{64}$/);

/** 256 random bits, base64url: 43 characters. */
export function randomSecret(): string {
  return randomBytes(32).toString("base64url");
}

/** 128 random bits as 32 hex digits: the name of a session, a key, a token. */
export function randomId(): string {
  return randomBytes(16).toString("hex");
}

export function hashSecret(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}

/** In time that doesn't depend on where the two differ. */
export function matchesHash(secret: string, hash: string): boolean {
  return timingSafeEqual(Buffer.from(hashSecret(secret), "hex"), Buffer.from(hash, "hex"));
}

/** Splits `ID.SECRET`; undefined when `text` can't be one. */
export function parseIdAndSecret(text: string): { readonly id: string; readonly secret: string } | undefined {
  const match = /^([0-9a-f]{32})\.([A-Za-z0-9_-]{43})$/.exec(text);
  return match === null ? undefined : { id: match[1]!, secret: match[2]! };
}
