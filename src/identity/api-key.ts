/** Keys for programs: `ID.SECRET`, shown once; scopes and an end; only a hash is kept. */
import { z } from "zod";
import { InvalidInputError, UnauthenticatedError } from "../errors.ts";
import { allows, commonGrants, type Grant, grantSchema, grantsOf, type Role } from "./permission.ts";
import {
  hashSecret,
  matchesHash,
  parseIdAndSecret,
  randomId,
  randomSecret,
  secretHashSchema,
} from "./secret.ts";
import { userNameSchema } from "./user.ts";

export const apiKeySchema = z.object({
  id: z.string().regex(/^[0-9a-f]{32}$/),
  owner: userNameSchema,
  /** What its owner calls it. */
  label: z.string().max(100),
  scopes: z.array(grantSchema).min(1),
  hash: secretHashSchema,
  createdAt: z.number(),
  expiresAt: z.number(),
});
export type ApiKey = z.output<typeof apiKeySchema>;

/** Without the hash: what may be listed. */
export function publicApiKey(key: ApiKey): Omit<ApiKey, "hash"> {
  const { hash: _, ...shown } = key;
  return shown;
}

/**
 * @returns the record to store and `key`, to be shown once.
 * @throws {InvalidInputError} scopes that `role` doesn't have itself, or an end that has passed.
 */
export function createApiKey(options: {
  owner: string;
  role: Role;
  label: string;
  scopes: readonly Grant[];
  expiresAt: number;
  nowMs: number;
}): { readonly record: ApiKey; readonly key: string } {
  const missing = options.scopes.filter((scope) => !allows(grantsOf(options.role), scope));
  if (missing.length > 0 || options.scopes.length === 0) {
    throw new InvalidInputError("an API key needs scopes, and can have only those of its owner", [
      {
        path: "scopes",
        message: missing.length > 0 ? `not yours: ${missing.join(", ")}` : "must not be empty",
      },
    ]);
  }
  if (options.expiresAt <= options.nowMs) {
    throw new InvalidInputError("an API key must expire in the future", [
      { path: "expiresAt", message: "has passed" },
    ]);
  }
  const id = randomId();
  const secret = randomSecret();
  return {
    record: {
      id,
      owner: options.owner,
      label: options.label,
      scopes: [...new Set(options.scopes)],
      hash: hashSecret(secret),
      createdAt: options.nowMs,
      expiresAt: options.expiresAt,
    },
    key: `${id}.${secret}`,
  };
}

/** The id under which a presented key is stored; undefined when it can't be one. */
export function apiKeyIdOf(key: string): string | undefined {
  return parseIdAndSecret(key)?.id;
}

/** @throws {UnauthenticatedError} unknown (`record` undefined), wrong or expired: the three are not told apart. */
export function verifyApiKey(record: ApiKey | undefined, key: string, nowMs: number): ApiKey {
  const parsed = parseIdAndSecret(key);
  // Compared even when there is nothing to compare with, so that both take equal time.
  const matches = matchesHash(parsed?.secret ?? "", record?.hash ?? "0".repeat(64));
  if (record === undefined || parsed?.id !== record.id || !matches || nowMs >= record.expiresAt) {
    throw new UnauthenticatedError("the API key is not valid; make a new one");
  }
  return record;
}

/** What the key may do today: its scopes, as far as its owner's present role has them. */
export function grantsOfKey(record: ApiKey, ownerRole: Role): Grant[] {
  return commonGrants(record.scopes, grantsOf(ownerRole));
}
