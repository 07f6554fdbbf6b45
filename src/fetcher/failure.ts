/**
 * What a failed request tells people, and whether to try again.
 */

export interface Failure {
  /** Stable for a kind of failure: people group by it. */
  readonly reason: string;
  readonly retryable: boolean;
}

export const UNKNOWN_HOST = "the host's name is not known to DNS";

const FAILURE_BY_CODE: Readonly<Record<string, Failure>> = {
  __proto__: null as never,
  BLOCKED_ADDRESS: {
    reason: "blocked: the host is at no public address (--allow-addresses opens ranges)",
    retryable: false,
  },
  ENOTFOUND: { reason: UNKNOWN_HOST, retryable: true },
  EAI_AGAIN: { reason: "DNS did not answer", retryable: true },
  EAI_FAIL: { reason: "DNS did not answer", retryable: true },
  ECONNREFUSED: { reason: "connection refused", retryable: true },
  ECONNRESET: { reason: "connection broken", retryable: true },
  EPIPE: { reason: "connection broken", retryable: true },
  UND_ERR_SOCKET: { reason: "connection broken", retryable: true },
  UND_ERR_DESTROYED: { reason: "connection broken", retryable: true },
  EHOSTUNREACH: { reason: "no route to the host", retryable: true },
  ENETUNREACH: { reason: "no route to the host", retryable: true },
  EADDRNOTAVAIL: { reason: "no route to the host", retryable: true },
  ETIMEDOUT: { reason: "time-out while connecting", retryable: true },
  UND_ERR_CONNECT_TIMEOUT: { reason: "time-out while connecting", retryable: true },
  UND_ERR_HEADERS_TIMEOUT: { reason: "time-out while waiting for the answer", retryable: true },
  UND_ERR_BODY_TIMEOUT: { reason: "time-out while the body was read", retryable: true },
  UND_ERR_HEADERS_OVERFLOW: { reason: "the answer's head is too large", retryable: false },
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: { reason: "the answer was cut short", retryable: true },
  UND_ERR_INVALID_ARG: { reason: "the request can't be sent: a header is not allowed", retryable: false },
  ERR_INVALID_CHAR: { reason: "the request can't be sent: a header is not allowed", retryable: false },
  HPE_INVALID_EOF_STATE: { reason: "the answer was cut short", retryable: true },
  EPROTO: { reason: "TLS failed", retryable: false },
  EMFILE: { reason: "this server has too many open files", retryable: true },
};

/** @param error as undici or a socket gives it. */
export function failureOf(error: unknown): Failure {
  // Several addresses were tried: the last one's reason is as good as any.
  if (error instanceof AggregateError && error.errors.length > 0) return failureOf(error.errors.at(-1));
  const code = codeOf(error);
  const known = FAILURE_BY_CODE[code];
  if (known !== undefined) return known;
  if (code.startsWith("HPE_") || (error instanceof Error && error.name === "HTTPParserError"))
    return { reason: "the answer is no valid HTTP/1.1", retryable: false };
  if (code.startsWith("ERR_SSL_") || code.startsWith("ERR_TLS_") || isCertificateCode(code)) {
    return { reason: `TLS failed: ${code}`, retryable: false };
  }
  if (error instanceof Error && code === "" && codeOf(error.cause) !== "") return failureOf(error.cause);
  const text = error instanceof Error ? error.message : String(error);
  return { reason: `the request failed: ${(code || text).slice(0, 100)}`, retryable: true };
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
}

function isCertificateCode(code: string): boolean {
  return /CERT|ISSUER|SIGNATURE_FAILURE|CRL_|CHAIN/.test(code) && !code.startsWith("E");
}
