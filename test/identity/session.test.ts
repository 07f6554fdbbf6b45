import { test } from "tap";
import { ForbiddenError, InvalidInputError, UnauthenticatedError } from "../../src/errors.ts";
import {
  apiKeyIdOf,
  apiKeySchema,
  createApiKey,
  grantsOfKey,
  publicApiKey,
  verifyApiKey,
} from "../../src/identity/api-key.ts";
import { hashPassword, passwordSchema, randomPassword, verifyPassword } from "../../src/identity/password.ts";
import {
  allows,
  commonGrants,
  grantsOf,
  ROLES,
  requireScope,
  SCOPES,
} from "../../src/identity/permission.ts";
import {
  endSession,
  isLive,
  openSession,
  ownsSession,
  refreshSession,
  sessionIdOf,
  sessionSchema,
} from "../../src/identity/session.ts";
import {
  createUser,
  publicUser,
  requireEnabled,
  userNameSchema,
  userSchema,
} from "../../src/identity/user.ts";

const NOW = Date.UTC(2026, 10, 25);
const DAY = 86_400_000;

test("roles allow exactly what they are said to", async (t) => {
  const allowed = Object.fromEntries(
    ROLES.map((role) => [role, SCOPES.filter((scope) => allows(grantsOf(role), scope)).join(" ")]),
  );

  t.strictSame(allowed, {
    viewer: "jobs:read results:read",
    user: "jobs:read jobs:write results:read kv:read kv:write locks:write",
    operator: "jobs:read jobs:write results:read kv:read kv:write locks:write cluster:read cluster:admin",
    admin:
      "jobs:read jobs:write results:read kv:read kv:write locks:write cluster:read cluster:admin users:admin audit:read",
  });
  t.doesNotThrow(() => requireScope(["kv:*"], "kv:write"));
  t.throws(() => requireScope(["kv:read"], "kv:write"), ForbiddenError);
  t.throws(() => requireScope(["kv:*"], "jobs:read"), ForbiddenError);
  t.notOk(allows(["kv:read", "kv:write"], "kv:*"), "a wildcard is more than what it covers today");
  t.strictSame(commonGrants(["kv:*", "jobs:write"], ["kv:read", "jobs:read"]), ["kv:read"]);
});

test("a password is verified against its hash, never kept, and a missing user takes as long", async (t) => {
  const hash = await hashPassword("correct horse");

  t.match(hash, /^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/);
  t.not(await hashPassword("correct horse"), hash, "a fresh salt");
  t.ok(await verifyPassword("correct horse", hash));
  t.notOk(await verifyPassword("correct horsf", hash));
  t.notOk(await verifyPassword("", hash));
  t.ok(await verifyPassword("caf\u00e9-pass", await hashPassword("cafe\u0301-pass")), "one text, two forms");
  t.notOk(await verifyPassword("anything", undefined));
  await t.rejects(verifyPassword("x", "$2b$10$abc"), { code: "DAMAGED" });
  t.notOk(passwordSchema.safeParse("short").success);
  t.notOk(passwordSchema.safeParse("x".repeat(257)).success);
  t.match(randomPassword(), /^[a-km-np-z2-9]{24}$/);
  t.not(randomPassword(), randomPassword());
});

/** A vector of the reference implementation's own tests (phc-winner-argon2, test.c). */
test("the hash is argon2id as others compute it", async (t) => {
  const reference = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

  t.ok(await verifyPassword("password", reference));
});

test("a user's hash is never shown, a bad name never stored, a disabled user stopped", async (t) => {
  const user = createUser({
    name: "ada",
    role: "user",
    passwordHash: await hashPassword("correct horse"),
    nowMs: NOW,
  });

  t.strictSame(userSchema.parse(user), user);
  t.strictSame(publicUser(user), { name: "ada", role: "user", createdAt: NOW, disabled: false });
  for (const bad of ["", "Ada", "-a", "a b", "a/b", "x".repeat(65), "ä"])
    t.notOk(userNameSchema.safeParse(bad).success, bad);
  t.doesNotThrow(() => requireEnabled(user));
  t.throws(() => requireEnabled({ ...user, disabled: true }), ForbiddenError);
});

test("a refresh token is exchanged once; when an old one comes back the session ends", async (t) => {
  const opened = openSession("ada", NOW);
  t.equal(sessionIdOf(opened.refreshToken), opened.session.id);
  t.notMatch(
    JSON.stringify(opened.session),
    new RegExp(opened.refreshToken.slice(33)),
    "only a hash is kept",
  );
  t.strictSame(sessionSchema.parse(opened.session), opened.session);

  const first = refreshSession(opened.session, opened.refreshToken, NOW + 1);
  if (first.kind !== "rotated") return t.fail("not rotated");
  const second = refreshSession(first.session, first.refreshToken, NOW + 2);
  if (second.kind !== "rotated") return t.fail("not rotated");
  t.ok(ownsSession(second.session, opened.refreshToken));

  const replayed = refreshSession(second.session, opened.refreshToken, NOW + 3);
  t.equal(replayed.kind, "reused");
  t.equal(replayed.session.ended, "reused");
  t.notOk(isLive(replayed.session, NOW + 3));
  t.throws(
    () => refreshSession(replayed.session, second.refreshToken, NOW + 4),
    UnauthenticatedError,
    "thief and owner alike",
  );
});

test("a made-up refresh token neither renews nor ends a session", async (t) => {
  const { session, refreshToken } = openSession("ada", NOW);
  const other = openSession("bob", NOW);
  const id = session.id;

  for (const bad of [
    "",
    id,
    `${id}.`,
    `${id}.${"A".repeat(43)}`,
    `${id}.${refreshToken.slice(34)}x`,
    other.refreshToken,
  ]) {
    t.throws(() => refreshSession(session, bad, NOW), UnauthenticatedError);
    t.notOk(ownsSession(session, bad));
  }
  t.equal(refreshSession(session, refreshToken, NOW).kind, "rotated");
});

test("a session ends after a week idle, after a month in any case, and when it is ended", async (t) => {
  let { session, refreshToken } = openSession("ada", NOW);
  t.throws(() => refreshSession(session, refreshToken, NOW + 7 * DAY), UnauthenticatedError);
  for (const day of [6, 12, 18, 24, 29]) {
    const refreshed = refreshSession(session, refreshToken, NOW + day * DAY);
    if (refreshed.kind !== "rotated") return t.fail("not rotated");
    ({ session, refreshToken } = refreshed);
  }

  t.equal(session.expiresAt, NOW + 30 * DAY);
  t.throws(() => refreshSession(session, refreshToken, NOW + 30 * DAY), UnauthenticatedError);
  const ended = endSession(session, "signedOut");
  t.throws(() => refreshSession(ended, refreshToken, NOW + 29 * DAY), UnauthenticatedError);
  t.equal(endSession(ended, "revoked").ended, "signedOut", "the first reason stays");
});

test("the memory of used tokens is bounded", async (t) => {
  let { session, refreshToken } = openSession("ada", NOW);
  const first = refreshToken;
  for (let n = 0; n < 40; n++) {
    const refreshed = refreshSession(session, refreshToken, NOW + n);
    if (refreshed.kind !== "rotated") return t.fail("not rotated");
    ({ session, refreshToken } = refreshed);
  }

  t.equal(session.usedHashes.length, 32);
  t.throws(() => refreshSession(session, first, NOW + 50), UnauthenticatedError);
  t.strictSame(sessionSchema.parse(session), session);
});

test("an API key does what it was given, until its end, and never more than its owner", async (t) => {
  const base = { owner: "ada", role: "user", label: "ci", expiresAt: NOW + DAY, nowMs: NOW } as const;
  const { record, key } = createApiKey({ ...base, scopes: ["jobs:write", "kv:read"] });

  t.match(key, /^[0-9a-f]{32}\.[A-Za-z0-9_-]{43}$/);
  t.equal(apiKeyIdOf(key), record.id);
  t.strictSame(apiKeySchema.parse(record), record);
  t.notMatch(JSON.stringify(record), new RegExp(key.slice(33)));
  t.notOk("hash" in publicApiKey(record));
  t.equal(verifyApiKey(record, key, NOW + DAY - 1), record);
  t.throws(() => verifyApiKey(record, key, NOW + DAY), UnauthenticatedError, "expired");
  t.throws(() => verifyApiKey(undefined, key, NOW), UnauthenticatedError, "unknown");
  t.throws(
    () => verifyApiKey(record, `${record.id}.${"A".repeat(43)}`, NOW),
    UnauthenticatedError,
    "wrong secret",
  );
  t.throws(
    () => verifyApiKey(record, `${"0".repeat(32)}.${key.slice(33)}`, NOW),
    UnauthenticatedError,
    "wrong id",
  );
  t.throws(() => verifyApiKey(record, "hello", NOW), UnauthenticatedError);
  t.strictSame(grantsOfKey(record, "user"), ["jobs:write", "kv:read"]);
  t.strictSame(grantsOfKey(record, "viewer"), [], "its owner became a viewer");
  t.throws(() => createApiKey({ ...base, scopes: ["cluster:admin"] }), InvalidInputError);
  t.throws(() => createApiKey({ ...base, scopes: [] }), InvalidInputError);
  t.throws(() => createApiKey({ ...base, scopes: ["jobs:read"], expiresAt: NOW }), InvalidInputError);
});
