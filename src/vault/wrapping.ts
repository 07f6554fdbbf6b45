/**
 * Keys under a key: AES-256-GCM with a random nonce (few enough are ever wrapped)
 * and the wrapped key's name as associated data, so they can't be swapped.
 *
 * base64(nonce 12 bytes, ciphertext, tag 16 bytes)
 */
import { createCipheriv, createDecipheriv, type KeyObject, randomBytes } from "node:crypto";

const NONCE_BYTES = 12;
const TAG_BYTES = 16;

export function wrap(masterKey: KeyObject, name: string, secret: Uint8Array): string {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv("aes-256-gcm", masterKey, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(Buffer.from(name, "utf8"));
  return Buffer.concat([nonce, cipher.update(secret), cipher.final(), cipher.getAuthTag()]).toString(
    "base64",
  );
}

/** Undefined when `wrapped` was not made by `wrap` with this key and name. */
export function unwrap(masterKey: KeyObject, name: string, wrapped: string): Buffer | undefined {
  const bytes = Buffer.from(wrapped, "base64");
  if (bytes.length < NONCE_BYTES + TAG_BYTES) return undefined;
  const decipher = createDecipheriv("aes-256-gcm", masterKey, bytes.subarray(0, NONCE_BYTES), {
    authTagLength: TAG_BYTES,
  });
  decipher.setAAD(Buffer.from(name, "utf8"));
  decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
  const secret = decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES));
  try {
    return Buffer.concat([secret, decipher.final()]);
  } catch {
    // Only authentication can fail here.
    return undefined;
  }
}
