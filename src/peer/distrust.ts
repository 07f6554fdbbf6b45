/**
 * What it means when TLS breaks a connection between servers off. Its codes say
 * what was wrong with a chain of certificates; people need to know which server
 * is in the wrong place.
 */

const AS_NEW = "start it as a new one: --as-new --join HOST:PORT --join-token-file FILE";

/** OpenSSL's words for a certificate that was looked at here, and for the alert of the other side. */
const MEANINGS: readonly [RegExp, string][] = [
  [
    /^(SELF_SIGNED_CERT|DEPTH_ZERO_SELF_SIGNED|UNABLE_TO_|CERT_SIGNATURE_FAILURE|CERT_UNTRUSTED)/,
    "its certificate is not signed by this cluster: it is a server of another one",
  ],
  [/^CERT_HAS_EXPIRED/, `its certificate has ended: it was away for too long; ${AS_NEW}`],
  [/^CERT_NOT_YET_VALID/, "its certificate is not valid yet: compare the clocks of the two machines"],
  [/ALERT_UNKNOWN_CA$/, "it does not know the authority of this cluster: it is a server of another one"],
  [
    /ALERT_CERTIFICATE_EXPIRED$/,
    `this server's certificate has ended, it says: this one was away for too long; ${AS_NEW}`,
  ],
  [/ALERT_BAD_CERTIFICATE$/, "it does not take this server's certificate"],
  [/PEER_DID_NOT_RETURN_A_CERTIFICATE$/, "it shows no certificate: it is no server of a cluster"],
];

/** Undefined where the connection broke for another reason. @param code of the error, or of one of its causes. */
export function meaningOfDistrust(code: string): string | undefined {
  return MEANINGS.find(([pattern]) => pattern.test(code))?.[1];
}

/** The same for an error whose causes hold the code. */
export function distrustIn(error: unknown): string | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const meaning = "code" in cause ? meaningOfDistrust(String(cause.code)) : undefined;
    if (meaning !== undefined) return meaning;
  }
  return undefined;
}
