/**
 * The cluster's own certificate authority (RFC 5280): a root, an issuing
 * authority signed by it, and certificates for nodes, joiners and edges.
 *
 * Who a certificate speaks for stands in its one URI name,
 * `orbweaver://CLUSTER/ROLE/NAME`: common names and host names say where a
 * server is, not who it is, and change. Everything on P-256, so that a TLS 1.3
 * handshake costs about a millisecond.
 */
import "reflect-metadata"; // Must come before @peculiar/x509, which is built on its decorators.
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  webcrypto,
  X509Certificate,
} from "node:crypto";
import { isIP } from "node:net";
import * as x509 from "@peculiar/x509";
import { z } from "zod";
import { InvalidInputError, RefusedError } from "../errors.ts";

const DAY_MS = 86_400_000;
const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
/** A joiner's clock may lag this much. */
const BACKDATE_MS = 5 * 60_000;

export const NODE_CERTIFICATE_MS = 30 * DAY_MS;
export const JOIN_CERTIFICATE_MS = 60 * 60_000;
const ISSUING_CERTIFICATE_MS = 365 * DAY_MS;
const ROOT_CERTIFICATE_MS = 3650 * DAY_MS;

export const certificateRoleSchema = z.enum(["node", "join", "edge"]);
export type CertificateRole = z.output<typeof certificateRoleSchema>;

/** All PEM. What any member needs to issue certificates; the root's key is kept elsewhere. */
export const issuingAuthoritySchema = z.object({
  clusterId: z.string(),
  rootCertificate: z.string(),
  issuingCertificate: z.string(),
  issuingKey: z.string(),
});
export type IssuingAuthority = z.output<typeof issuingAuthoritySchema>;
export type Authority = IssuingAuthority & { readonly rootKey: string };

/** PEM: PKCS #8 and SPKI. */
export interface KeyPair {
  readonly privateKey: string;
  readonly publicKey: string;
}

export function createKeyPair(): KeyPair {
  return generateKeyPairSync("ec", {
    namedCurve: "P-256",
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
    publicKeyEncoding: { type: "spki", format: "pem" },
  });
}

/** A new cluster's authority: root for ten years, issuing for one. */
export async function createAuthority(clusterId: string, nowMs: number): Promise<Authority> {
  const root = createKeyPair();
  const keys = {
    publicKey: await cryptoPublicKey(root.publicKey),
    privateKey: await cryptoPrivateKey(root.privateKey),
  };
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: randomSerial(),
      name: [{ O: ["Orbweaver"] }, { OU: [clusterId] }, { CN: ["root"] }],
      notBefore: new Date(nowMs - BACKDATE_MS),
      notAfter: new Date(nowMs + ROOT_CERTIFICATE_MS),
      signingAlgorithm: ALGORITHM,
      keys,
      extensions: [
        new x509.BasicConstraintsExtension(true, 1, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  const rootCertificate = pem(certificate);
  const issuing = await createIssuing({ clusterId, rootCertificate, rootKey: root.privateKey }, nowMs);
  return { clusterId, rootCertificate, rootKey: root.privateKey, ...issuing };
}

/** A fresh issuing authority under the same root: certificates of the one before stay valid. */
export async function createIssuing(
  root: { readonly clusterId: string; readonly rootCertificate: string; readonly rootKey: string },
  nowMs: number,
): Promise<{ readonly issuingCertificate: string; readonly issuingKey: string }> {
  const pair = createKeyPair();
  const publicKey = await cryptoPublicKey(pair.publicKey);
  const rootCertificate = new x509.X509Certificate(root.rootCertificate);
  const certificate = await x509.X509CertificateGenerator.create(
    {
      serialNumber: randomSerial(),
      subject: [{ O: ["Orbweaver"] }, { OU: [root.clusterId] }, { CN: ["issuing"] }],
      issuer: rootCertificate.subjectName,
      notBefore: new Date(nowMs - BACKDATE_MS),
      notAfter: new Date(Math.min(nowMs + ISSUING_CERTIFICATE_MS, rootCertificate.notAfter.getTime())),
      signingAlgorithm: ALGORITHM,
      publicKey,
      signingKey: await cryptoPrivateKey(root.rootKey),
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true), // It can't make further authorities.
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        await x509.SubjectKeyIdentifierExtension.create(publicKey, false, webcrypto),
        await x509.AuthorityKeyIdentifierExtension.create(rootCertificate.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  return { issuingCertificate: pem(certificate), issuingKey: pair.privateKey };
}

/** PEM of a PKCS #10 request, which proves that the asker holds the private key. */
export async function createCertificateRequest(pair: KeyPair): Promise<string> {
  const request = await x509.Pkcs10CertificateRequestGenerator.create(
    {
      name: "CN=orbweaver", // The authority decides the name; what is asked for here is not read.
      keys: {
        publicKey: await cryptoPublicKey(pair.publicKey),
        privateKey: await cryptoPrivateKey(pair.privateKey),
      },
      signingAlgorithm: ALGORITHM,
    },
    webcrypto,
  );
  return request.toString("pem");
}

/**
 * PEM of the certificate, followed by the issuing authority's: together what
 * TLS must present to someone who knows only the root.
 *
 * @throws {InvalidInputError} the key is not P-256, the request is not signed by it, or a host name is no host name.
 */
export async function issueCertificate(
  authority: IssuingAuthority,
  wanted: {
    readonly role: CertificateRole;
    /** Node id or token id. */
    readonly name: string;
    /** DNS names and IP addresses; needed for `node` and `edge`. */
    readonly hosts?: readonly string[];
    readonly nowMs: number;
    readonly lifetimeMs?: number;
  } & ({ readonly publicKey: string } | { readonly request: string }),
): Promise<string> {
  const issuing = new x509.X509Certificate(authority.issuingCertificate);
  const publicKey =
    "request" in wanted ? await keyOfRequest(wanted.request) : await cryptoPublicKey(wanted.publicKey);
  const lifetimeMs =
    wanted.lifetimeMs ?? (wanted.role === "join" ? JOIN_CERTIFICATE_MS : NODE_CERTIFICATE_MS);
  const usages = {
    node: [SERVER_AUTH, CLIENT_AUTH],
    join: [CLIENT_AUTH],
    edge: [SERVER_AUTH],
  }[wanted.role];
  const certificate = await x509.X509CertificateGenerator.create(
    {
      serialNumber: randomSerial(),
      subject: [{ O: ["Orbweaver"] }, { CN: [`${wanted.role} ${wanted.name.slice(0, 48)}`] }],
      issuer: issuing.subjectName,
      notBefore: new Date(wanted.nowMs - BACKDATE_MS),
      notAfter: new Date(Math.min(wanted.nowMs + lifetimeMs, issuing.notAfter.getTime())),
      signingAlgorithm: ALGORITHM,
      publicKey,
      signingKey: await cryptoPrivateKey(authority.issuingKey),
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension(usages, true),
        new x509.SubjectAlternativeNameExtension([
          { type: "url", value: nameUri(authority.clusterId, wanted.role, wanted.name) },
          ...(wanted.hosts ?? []).map(hostName),
        ]),
        await x509.AuthorityKeyIdentifierExtension.create(issuing.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  return pem(certificate) + authority.issuingCertificate;
}

/** For whom a certificate speaks. */
export interface CertificateName {
  readonly role: CertificateRole;
  /** Node id or token id. */
  readonly name: string;
  readonly clusterId: string;
  /** Hex. */
  readonly serial: string;
  readonly notAfterMs: number;
}

/**
 * Reads the first certificate of PEM text, or DER. It proves nothing by itself:
 * the chain must have been verified against the root, as TLS does.
 *
 * @throws {RefusedError} not a certificate of any Orbweaver cluster.
 */
export function readCertificate(certificate: string | Uint8Array): CertificateName {
  let parsed: X509Certificate;
  try {
    parsed = new X509Certificate(certificate);
  } catch (cause) {
    throw new RefusedError("not an X.509 certificate", { cause });
  }
  // Exactly one: a host name that looks like a second one makes the certificate speak for nobody.
  const uris = (parsed.subjectAltName ?? "").split(", ").filter((name) => name.startsWith("URI:"));
  const match =
    uris.length === 1
      ? /^URI:orbweaver:\/\/([0-9a-z-]{1,64})\/(node|join|edge)\/([0-9a-z-]{1,64})$/.exec(uris[0]!)
      : null;
  if (match === null) throw new RefusedError("the certificate names no member of an Orbweaver cluster");
  return {
    clusterId: match[1]!,
    role: certificateRoleSchema.parse(match[2]),
    name: match[3]!,
    serial: parsed.serialNumber,
    notAfterMs: parsed.validToDate.getTime(),
  };
}

/** SHA-256 of a certificate's DER, hex: what a join token pins. */
export function certificateHash(certificate: string | Uint8Array): string {
  return createHash("sha256").update(new X509Certificate(certificate).raw).digest("hex");
}

/** SHA-256 of a public key's DER, hex: who used a join token. */
export function publicKeyHash(publicKey: string): string {
  return createHash("sha256")
    .update(createPublicKey(publicKey).export({ type: "spki", format: "der" }))
    .digest("hex");
}

/** PEM of the key that a certificate request asks for, without checking the request. */
export function publicKeyOfRequest(request: string): string {
  try {
    return new x509.Pkcs10CertificateRequest(request).publicKey.toString("pem");
  } catch (cause) {
    throw new InvalidInputError("not a certificate request", [{ path: "csr", message: "not PKCS #10" }], {
      cause,
    });
  }
}

function nameUri(clusterId: string, role: CertificateRole, name: string): string {
  for (const part of [clusterId, name]) {
    if (!/^[0-9a-z-]{1,64}$/.test(part)) {
      throw new InvalidInputError(`"${part}" can't stand in a certificate`, [
        { path: "name", message: "0-9 a-z -" },
      ]);
    }
  }
  return `orbweaver://${clusterId}/${role}/${name}`;
}

function hostName(host: string): x509.JsonGeneralName {
  if (isIP(host) !== 0) return { type: "ip", value: host };
  const label = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
  if (host.length <= 253 && new RegExp(`^${label}(\\.${label})*$`, "i").test(host))
    return { type: "dns", value: host };
  throw new InvalidInputError(`"${host}" is neither a host name nor an IP address`, [
    { path: "hosts", message: "neither a host name nor an IP address" },
  ]);
}

async function keyOfRequest(request: string): Promise<webcrypto.CryptoKey> {
  const publicKey = publicKeyOfRequest(request);
  const key = await cryptoPublicKey(publicKey);
  if (!(await new x509.Pkcs10CertificateRequest(request).verify(webcrypto))) {
    throw new InvalidInputError("the certificate request is not signed by its own key", [
      { path: "csr", message: "bad signature" },
    ]);
  }
  return key;
}

async function cryptoPublicKey(publicKey: string): Promise<webcrypto.CryptoKey> {
  try {
    const der = createPublicKey(publicKey).export({ type: "spki", format: "der" });
    return await webcrypto.subtle.importKey("spki", der, ALGORITHM, true, ["verify"]);
  } catch (cause) {
    throw new InvalidInputError("not a P-256 public key", [{ path: "publicKey", message: "not P-256" }], {
      cause,
    });
  }
}

async function cryptoPrivateKey(privateKey: string): Promise<webcrypto.CryptoKey> {
  const der = createPrivateKey(privateKey).export({ type: "pkcs8", format: "der" });
  return await webcrypto.subtle.importKey("pkcs8", der, ALGORITHM, false, ["sign"]);
}

/** 126 random bits; positive and without a leading zero byte, as DER wants it. */
function randomSerial(): string {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0]! & 0x3f) | 0x40;
  return bytes.toString("hex");
}

function pem(certificate: x509.X509Certificate): string {
  return `${certificate.toString("pem").trim()}\n`;
}
