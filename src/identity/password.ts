/**
 * Passwords: argon2id (RFC 9106) with 19 MiB and two passes, as OWASP advises,
 * in PHC string form, so that parameters can grow without breaking old hashes.
 * Runs on libuv's threads, about 33 ms each; whoever calls bounds how many at once.
 */
import { argon2, randomBytes, timingSafeEqual } from "node:crypto";
import { z } from "zod";
import { DamagedError } from "../errors.ts";

const MEMORY_KIB = 19_456;
const PASSES = 2;
const LANES = 1;
const HASH_BYTES = 32;
const SALT_BYTES = 16;

/** What a new password must be. The upper bound keeps hashing cheap. */
export const passwordSchema = z
  .string()
  .min(8, "must have at least 8 characters")
  .max(256, "must have at most 256 characters");

const PHC =
  /^\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,2}),p=(\d)\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})$/;

export const passwordHashSchema = z.string().regex(PHC);

/** Verified against when there is no such user, so that both cases take equal time. */
const NOBODY = `$argon2id$v=19$m=${MEMORY_KIB},t=${PASSES},p=${LANES}$${"A".repeat(22)}$${"A".repeat(43)}`;

/** `$argon2id$v=19$m=…,t=…,p=…$salt$hash` under a fresh salt. */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(SALT_BYTES);
  const hash = await derive(password, salt, MEMORY_KIB, PASSES, LANES, HASH_BYTES);
  return `$argon2id$v=19$m=${MEMORY_KIB},t=${PASSES},p=${LANES}$${unpadded(salt)}$${unpadded(hash)}`;
}

/**
 * @param encoded the user's hash; undefined when there is no such user: false, after the same work.
 * @throws {DamagedError} `encoded` is no argon2id hash.
 */
export async function verifyPassword(password: string, encoded: string | undefined): Promise<boolean> {
  const match = PHC.exec(encoded ?? NOBODY);
  if (match === null) throw new DamagedError("a stored password hash is not argon2id; set a new password");
  const wanted = Buffer.from(match[5]!, "base64");
  const given = await derive(
    password,
    Buffer.from(match[4]!, "base64"),
    Number(match[1]),
    Number(match[2]),
    Number(match[3]),
    wanted.length,
  );
  return timingSafeEqual(given, wanted) && encoded !== undefined;
}

/** A password for a first administrator: 120 random bits, without characters that look alike. */
export function randomPassword(): string {
  const alphabet = "abcdefghijkmnpqrstuvwxyz23456789"; // 32 characters: five bits each
  return Array.from(randomBytes(24), (byte) => alphabet[byte & 31]).join("");
}

function derive(
  password: string,
  nonce: Buffer,
  memory: number,
  passes: number,
  parallelism: number,
  tagLength: number,
): Promise<Buffer> {
  // NFKC: the same password typed on two systems may arrive in two forms.
  const message = password.normalize("NFKC");
  return new Promise((resolve, reject) => {
    argon2("argon2id", { message, nonce, parallelism, tagLength, memory, passes }, (error, key) =>
      error === null ? resolve(key) : reject(error),
    );
  });
}

function unpadded(bytes: Buffer): string {
  return bytes.toString("base64").replaceAll("=", "");
}
