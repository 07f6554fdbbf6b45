import { createHmac, createPrivateKey, createPublicKey, sign } from "node:crypto";
import { test } from "tap";
import { DamagedError, UnauthenticatedError } from "../../src/errors.ts";
import { createSigningKey, signingKeySchema, TokenKeys } from "../../src/identity/token.ts";

const NOW = Date.UTC(2026, 10, 25, 12);
const SECOND = Math.floor(NOW / 1000);
const HOUR = 3_600_000;
const SID = "5".repeat(32);
const key = createSigningKey({ signFrom: NOW - HOUR, verifyUntil: NOW + 24 * HOUR });
const keys = new TokenKeys("c0ffee", [key]);
const subject = { user: "ada", role: "user", scopes: ["jobs:read", "kv:*"], sessionId: SID } as const;

const encode = (part: unknown) =>
  Buffer.from(typeof part === "string" ? part : JSON.stringify(part)).toString("base64url");
const decode = (part: string | undefined): Record<string, unknown> =>
  JSON.parse(Buffer.from(part ?? "", "base64url").toString());

/** Signs whatever it is given, with the cluster's real key. */
function signed(header: unknown, payload: unknown, record = key): string {
  return signedText(`${encode(header)}.${encode(payload)}`, record);
}

function signedText(input: string, record = key): string {
  const signature = sign("sha256", Buffer.from(input), {
    key: createPrivateKey({ format: "jwk", key: record.jwk }),
    dsaEncoding: "ieee-p1363",
  });
  return `${input}.${signature.toString("base64url")}`;
}

/** The same bytes in base64 whose spare bits at the end are not zero. */
function otherSpelling(part: string): string {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  return part.slice(0, -1) + alphabet[alphabet.indexOf(part.slice(-1)) + 1];
}

const header = { alg: "ES256", typ: "at+jwt", kid: key.kid };
const payload = {
  iss: "c0ffee",
  aud: "orbweaver-edge",
  sub: "ada",
  sid: SID,
  jti: "7".repeat(32),
  role: "user",
  scope: ["jobs:read"],
  iat: SECOND,
  exp: SECOND + 900,
};
const without = (name: string) => Object.fromEntries(Object.entries(payload).filter(([key]) => key !== name));

test("a token says who asks, for 15 minutes", async (t) => {
  const { accessToken, expiresInSeconds, tokenId } = keys.sign(subject, NOW);

  const claims = keys.verify(accessToken, NOW + 899_000);

  t.equal(expiresInSeconds, 900);
  t.match(claims, { ...subject, tokenId, expiresAtMs: NOW + 900_000 });
  t.strictSame(decode(accessToken.split(".")[0]), header);
  t.strictSame(Object.keys(decode(accessToken.split(".")[1])).sort(), Object.keys(payload).sort());
  t.throws(
    () => keys.verify(accessToken, NOW + 900_000),
    UnauthenticatedError,
    "known from before, and expired",
  );
  t.throws(() => new TokenKeys("c0ffee", [key]).verify(accessToken, NOW + 900_000), UnauthenticatedError);
});

test("a rightly signed token in our own form is accepted: the forgeries below fail for their own reason", async (t) => {
  t.match(keys.verify(signed(header, payload), NOW), { user: "ada", tokenId: "7".repeat(32) });
  t.match(keys.verify(signed(header, { ...payload, iat: SECOND + 60, exp: SECOND + 960 }), NOW), {
    user: "ada",
  });
});

test("forged, foreign, expired and misshapen tokens are refused alike", async (t) => {
  const good = signed(header, payload);
  const [h, p, s] = good.split(".") as [string, string, string];
  const publicPem = createPublicKey(createPrivateKey({ format: "jwk", key: key.jwk }))
    .export({ type: "spki", format: "pem" })
    .toString();
  const hmacInput = `${encode({ ...header, alg: "HS256" })}.${p}`;
  const hmac = (secret: string) => createHmac("sha256", secret).update(hmacInput).digest("base64url");
  const stranger = createSigningKey({ signFrom: 0, verifyUntil: NOW + HOUR });
  const text = JSON.stringify(payload);
  const spare = ["ada", "adam", "adams"]
    .map((sub) => encode({ ...payload, sub }))
    .find((part) => part.length % 4 !== 0)!;
  t.match(keys.verify(signedText(`${h}.${spare}`), NOW), { role: "user" });
  const forgeries: [string, string][] = [
    ["nothing", ""],
    ["no token", "hello"],
    ["alg none without signature", `${encode({ ...header, alg: "none" })}.${p}.`],
    ["alg none with signature", `${encode({ ...header, alg: "none" })}.${p}.${s}`],
    ["alg NoNe", `${encode({ ...header, alg: "NoNe" })}.${p}.${s}`],
    ["HS256 with the public key as secret", `${hmacInput}.${hmac(publicPem)}`],
    ["HS256 in the length of ES256", `${hmacInput}.${hmac(publicPem)}${hmac(publicPem)}`],
    ["alg ES384", signed({ ...header, alg: "ES384" }, payload)],
    ["no alg", signed({ typ: "at+jwt", kid: key.kid }, payload)],
    ["no kid", signed({ alg: "ES256", typ: "at+jwt" }, payload)],
    ["unknown kid", signed({ ...header, kid: stranger.kid }, payload, stranger)],
    ["another key under our kid", signed(header, payload, stranger)],
    ["no typ", signed({ alg: "ES256", kid: key.kid }, payload)],
    ["typ JWT", signed({ ...header, typ: "JWT" }, payload)],
    ["its own key in the header", signed({ ...header, jwk: stranger.jwk }, payload, stranger)],
    ["crit", signed({ ...header, crit: ["x"], x: 1 }, payload)],
    ...Object.keys(payload).map((name): [string, string] => [`no ${name}`, signed(header, without(name))]),
    ["another issuer", signed(header, { ...payload, iss: "other" })],
    ["another audience", signed(header, { ...payload, aud: "other" })],
    ["several audiences", signed(header, { ...payload, aud: ["orbweaver-edge", "x"] })],
    ["expired", signed(header, { ...payload, iat: SECOND - 901, exp: SECOND - 1 })],
    ["expiring this second", signed(header, { ...payload, iat: SECOND - 900, exp: SECOND })],
    ["issued in the future", signed(header, { ...payload, iat: SECOND + 61, exp: SECOND + 900 })],
    ["living too long", signed(header, { ...payload, exp: SECOND + 901 })],
    ["exp as text", signed(header, { ...payload, exp: String(SECOND + 900) })],
    ["a role that there isn't", signed(header, { ...payload, role: "root" })],
    ["a scope that there isn't", signed(header, { ...payload, scope: ["*"] })],
    ["one more claim", signed(header, { ...payload, admin: true })],
    ["a claim given twice", signed(header, text.replace('"sub":"ada"', '"sub":"bob","sub":"ada"'))],
    [
      "a claim given twice, spelt differently",
      signed(header, text.replace('"sub":"ada"', '"s\\u0075b":"bob","sub":"ada"')),
    ],
    ["white space", signed(header, text.replace("{", "{ "))],
    ["a header member given twice", signed(JSON.stringify(header).replace("{", '{"alg":"none",'), payload)],
    ["payload that is no object", signed(header, "[]")],
    ["payload that is no JSON", signed(header, "{")],
    ["changed after signing", `${h}.${encode({ ...payload, role: "admin" })}.${s}`],
    ["a signature cut short", good.slice(0, -1)],
    ["a signature in another spelling", `${h}.${p}.${otherSpelling(s)}`],
    ["a payload in another spelling", signedText(`${h}.${otherSpelling(spare)}`)],
    ["padding", `${good}=`],
    ["a fourth part", `${good}.${s}`],
    ["white space around", ` ${good}`],
    ["far too long", `${h}.${p}${"A".repeat(4096)}.${s}`],
  ];

  for (const [what, token] of forgeries) {
    t.throws(
      () => keys.verify(token, NOW),
      { code: "UNAUTHENTICATED", message: /^the access token is not valid/ },
      what,
    );
  }
});

test("keys overlap: the newest due one signs, each verifies until its end, and then no more", async (t) => {
  const next = createSigningKey({ signFrom: NOW + HOUR, verifyUntil: NOW + 48 * HOUR });
  const both = new TokenKeys("c0ffee", [next, key]);
  const kidOf = (token: string) => decode(token.split(".")[0]).kid;

  const old = both.sign(subject, NOW).accessToken;
  const fresh = both.sign(subject, NOW + HOUR).accessToken;

  t.equal(kidOf(old), key.kid);
  t.equal(kidOf(fresh), next.kid);
  t.match(both.verify(fresh, NOW + HOUR), { user: "ada" });
  t.equal(kidOf(both.sign(subject, NOW + 24 * HOUR).accessToken), next.kid);
  t.strictSame(
    both.jwks(NOW).keys.map((jwk) => Object.keys(jwk).sort()),
    [
      ["alg", "crv", "kid", "kty", "use", "x", "y"],
      ["alg", "crv", "kid", "kty", "use", "x", "y"],
    ],
    "never the private half",
  );
  t.equal(both.jwks(NOW + 24 * HOUR).keys.length, 1);
  const token = both.sign(subject, NOW).accessToken;
  both.verify(token, NOW);
  both.replace([next]);
  t.throws(() => both.verify(token, NOW), UnauthenticatedError, "its key was taken away");
  const short = new TokenKeys("c0ffee", [{ ...key, verifyUntil: NOW + 900_000 }]);
  const last = short.sign(subject, NOW).accessToken;
  t.match(short.verify(last, NOW + 899_000), { user: "ada" });
  t.throws(() => short.sign(subject, NOW + 1), DamagedError, "a key must outlive what it signs");
  t.throws(() => new TokenKeys("c0ffee", []).sign(subject, NOW), DamagedError);
  t.throws(() => new TokenKeys("other", [key]).verify(old, NOW), UnauthenticatedError, "another cluster");
});

test("a signing key survives being stored", async (t) => {
  const stored = signingKeySchema.parse(JSON.parse(JSON.stringify(key)));

  const { accessToken } = new TokenKeys("c0ffee", [stored]).sign(subject, NOW);

  t.match(keys.verify(accessToken, NOW), { user: "ada" });
  t.not(createSigningKey(key).kid, key.kid);
});
