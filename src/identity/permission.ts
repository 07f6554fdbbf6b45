/**
 * Roles, scopes, and the one check that each request passes. A role is a name
 * for a set of scopes; tokens and API keys carry scopes, and the check reads
 * only those.
 */
import { z } from "zod";
import { ForbiddenError } from "../errors.ts";

/** What a call may ask for. */
export const SCOPES = [
  "jobs:read",
  "jobs:write",
  "results:read",
  "kv:read",
  "kv:write",
  "locks:write",
  "cluster:read",
  "cluster:admin",
  "users:admin",
  "audit:read",
] as const;
export type Scope = (typeof SCOPES)[number];

/** What can be granted: a scope, or `kv:*` for all that begin with `kv:`. */
export const grantSchema = z.enum([...SCOPES, "kv:*"]);
export type Grant = z.output<typeof grantSchema>;

export const ROLES = ["viewer", "user", "operator", "admin"] as const;
export const roleSchema = z.enum(ROLES);
export type Role = z.output<typeof roleSchema>;

const VIEWER = ["jobs:read", "results:read"] as const;
const USER = [...VIEWER, "jobs:write", "kv:*", "locks:write"] as const;
const OPERATOR = [...USER, "cluster:read", "cluster:admin"] as const;
const ADMIN = [...OPERATOR, "users:admin", "audit:read"] as const;

const GRANTS: Readonly<Record<Role, readonly Grant[]>> = {
  viewer: VIEWER,
  user: USER,
  operator: OPERATOR,
  admin: ADMIN,
};

export function grantsOf(role: Role): readonly Grant[] {
  return GRANTS[role];
}

/** Admins see what every tenant owns; all others see their own things. */
export function seesAllTenants(role: Role): boolean {
  return role === "admin";
}

export function allows(grants: readonly Grant[], scope: Grant): boolean {
  return grants.some((grant) => grant === scope || (grant === "kv:*" && scope.startsWith("kv:")));
}

/** @throws {ForbiddenError} none of `grants` covers `scope`. */
export function requireScope(grants: readonly Grant[], scope: Scope): void {
  if (!allows(grants, scope)) {
    throw new ForbiddenError(
      `this needs the scope ${scope}; ask an administrator for a role or key that has it`,
    );
  }
}

/** Those of `wanted` that `held` covers too: a key never does more than its owner may today. */
export function commonGrants(wanted: readonly Grant[], held: readonly Grant[]): Grant[] {
  const common = new Set<Grant>();
  for (const grant of wanted) {
    if (allows(held, grant)) common.add(grant);
    else if (grant === "kv:*") for (const scope of held) if (scope.startsWith("kv:")) common.add(scope);
  }
  return [...common];
}
