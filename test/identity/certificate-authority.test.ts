import { X509Certificate } from "node:crypto";
import { test } from "tap";
import { InvalidInputError, RefusedError, UnauthenticatedError } from "../../src/errors.ts";
import {
  certificateHash,
  createAuthority,
  createCertificateRequest,
  createIssuing,
  createKeyPair,
  issueCertificate,
  publicKeyHash,
  publicKeyOfRequest,
  readCertificate,
} from "../../src/identity/certificate-authority.ts";
import { createJoinToken, readJoinToken, useJoinToken } from "../../src/identity/join-token.ts";

const NOW = Date.UTC(2026, 10, 25);
const DAY = 86_400_000;
const NODE = "ab".repeat(20);
const authority = await createAuthority("c0ffee", NOW);

/** The certificates of a PEM text, first to last. */
function chain(pem: string): X509Certificate[] {
  return pem
    .split(/(?<=-----END CERTIFICATE-----\n)/)
    .filter((text) => text.trim() !== "")
    .map((text) => new X509Certificate(text));
}

test("a node's certificate chains to the root through the issuing authority and says who it is", async (t) => {
  const pair = createKeyPair();
  const request = await createCertificateRequest(pair);

  const pem = await issueCertificate(authority, {
    role: "node",
    name: NODE,
    hosts: ["a.example", "10.1.2.3", "::1"],
    request,
    nowMs: NOW,
  });

  const [node, issuing] = chain(pem);
  const root = new X509Certificate(authority.rootCertificate);
  t.ok(node?.verify(issuing!.publicKey) && issuing?.verify(root.publicKey) && root.verify(root.publicKey));
  t.ok(node?.checkIssued(issuing!) && issuing?.checkIssued(root));
  t.strictSame([node?.ca, issuing?.ca, root.ca], [false, true, true]);
  t.strictSame(node?.keyUsage, ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"], "serverAuth and clientAuth");
  t.equal(
    node?.subjectAltName,
    `URI:orbweaver://c0ffee/node/${NODE}, DNS:a.example, IP Address:10.1.2.3, IP Address:0:0:0:0:0:0:0:1`,
  );
  t.equal(node?.publicKey.asymmetricKeyDetails?.namedCurve, "prime256v1");
  t.equal(node?.publicKey.export({ type: "spki", format: "pem" }), pair.publicKey);
  const name = readCertificate(pem);
  t.strictSame(name, {
    clusterId: "c0ffee",
    role: "node",
    name: NODE,
    serial: node?.serialNumber,
    notAfterMs: NOW + 30 * DAY,
  });
  t.strictSame(readCertificate(node!.raw), name, "DER as well as PEM");
  t.equal(node?.validFromDate.getTime(), NOW - 300_000);
});

test("each role gets its usages and its life; none outlives its issuer", async (t) => {
  const { publicKey } = createKeyPair();
  const issue = (role: "node" | "join" | "edge", nowMs: number) =>
    issueCertificate(authority, { role, name: NODE, hosts: ["localhost"], publicKey, nowMs });

  const [join] = chain(await issue("join", NOW));
  const [edge] = chain(await issue("edge", NOW));
  const [late] = chain(await issue("node", NOW + 350 * DAY));
  const renewed = { ...authority, ...(await createIssuing(authority, NOW + 300 * DAY)) };
  const [node, issuing] = chain(
    await issueCertificate(renewed, { role: "node", name: NODE, publicKey, nowMs: NOW + 350 * DAY }),
  );

  t.strictSame(join?.keyUsage, ["1.3.6.1.5.5.7.3.2"]);
  t.equal(join?.validToDate.getTime(), NOW + 3_600_000);
  t.strictSame(edge?.keyUsage, ["1.3.6.1.5.5.7.3.1"]);
  t.equal(late?.validToDate.getTime(), NOW + 365 * DAY);
  t.equal(node?.validToDate.getTime(), NOW + 380 * DAY, "under a renewed issuing authority");
  t.ok(issuing?.verify(new X509Certificate(authority.rootCertificate).publicKey));
});

test("no certificate is issued for a bad request, key, name or host", async (t) => {
  const pair = createKeyPair();
  const request = await createCertificateRequest(pair);
  const flipped = Buffer.from(request.split("\n").slice(1, -1).join(""), "base64");
  flipped[flipped.length - 3]! ^= 1;
  const wrongSignature = `-----BEGIN CERTIFICATE REQUEST-----\n${flipped.toString("base64")}\n-----END CERTIFICATE REQUEST-----\n`;
  const base = { role: "node", name: NODE, nowMs: NOW } as const;
  const bad: [string, Parameters<typeof issueCertificate>[1]][] = [
    ["a request signed by another key", { ...base, request: wrongSignature }],
    ["no request", { ...base, request: "hello" }],
    ["no key", { ...base, publicKey: "hello" }],
    [
      "a host that names another member",
      { ...base, publicKey: pair.publicKey, hosts: [`x, URI:orbweaver://c0ffee/node/${NODE}`] },
    ],
    ["a host with a port", { ...base, publicKey: pair.publicKey, hosts: ["a.example:80"] }],
    ["a name that leaves its place", { ...base, publicKey: pair.publicKey, name: "a/../b" }],
  ];

  for (const [what, wanted] of bad)
    await t.rejects(issueCertificate(authority, wanted), InvalidInputError, what);

  t.equal(publicKeyOfRequest(request).trim(), pair.publicKey.trim());
  t.throws(() => readCertificate("hello"), RefusedError);
  t.throws(() => readCertificate(authority.rootCertificate), RefusedError, "the root speaks for nobody");
});

test("a join token carries all that the first connection needs, and works for one server and one hour", async (t) => {
  const { token, record } = await createJoinToken(authority, ["10.0.0.1:7443"], NOW);

  const content = readJoinToken(` ${token}\n`);

  t.match(token, /^orbweaver-join-1\.[A-Za-z0-9_-]+$/);
  t.strictSame(record, { id: content.id, expiresAt: NOW + 3_600_000 });
  t.equal(content.clusterId, "c0ffee");
  t.strictSame(content.addresses, ["10.0.0.1:7443"]);
  t.equal(content.rootHash, certificateHash(authority.rootCertificate));
  t.match(readCertificate(content.certificate), {
    role: "join",
    name: content.id,
    notAfterMs: NOW + 3_600_000,
  });
  t.notMatch(token, new RegExp(Buffer.from(authority.rootKey).toString("base64url").slice(30, 60)));

  const first = publicKeyHash(createKeyPair().publicKey);
  const second = publicKeyHash(createKeyPair().publicKey);
  const used = useJoinToken(record, first, NOW + 1);
  t.strictSame(used, { ...record, usedBy: first });
  t.strictSame(useJoinToken(used, first, NOW + 2), used, "the same server, whose answer was lost");
  t.throws(() => useJoinToken(used, second, NOW + 2), UnauthenticatedError);
  t.throws(() => useJoinToken(record, first, NOW + 3_600_000), UnauthenticatedError);
  t.throws(() => useJoinToken(undefined, first, NOW), UnauthenticatedError);
});

test("a join token that was cut, changed or given another root is not read", async (t) => {
  const { token } = await createJoinToken(authority, [], NOW);
  const other = await createAuthority("c0ffee", NOW);
  const content = JSON.parse(Buffer.from(token.slice(17), "base64url").toString());
  const swapped = `orbweaver-join-1.${Buffer.from(JSON.stringify({ ...content, rootCertificate: other.rootCertificate })).toString("base64url")}`;

  for (const bad of [
    "",
    "hello",
    token.slice(0, 500),
    token.slice(3),
    swapped,
    "orbweaver-join-1.",
    token.repeat(20),
  ]) {
    t.throws(() => readJoinToken(bad), InvalidInputError);
  }
});
