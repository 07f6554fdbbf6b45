/**
 * A call: what may be asked of the edge, by which scope, with which input. REST
 * routes and tRPC procedures are two ways to the same calls, so that permission
 * is stated once for both.
 */
import type { z } from "zod";
import { UnauthenticatedError } from "../errors.ts";
import { requireScope, type Scope } from "../identity/permission.ts";
import type { EdgeBackend, Principal } from "./backend.ts";
import type { JobOwners } from "./job-owners.ts";
import type { LoginLimits } from "./login-limits.ts";

/** What calls work with, the same for all requests of an edge. */
export interface CallGround {
  readonly backend: EdgeBackend;
  readonly owners: JobOwners;
  readonly loginLimits: LoginLimits;
}

/** One request, from whom and from where. */
export interface Asker {
  readonly ground: CallGround;
  /** Of the connection: no proxy's word is taken for it. */
  readonly address: string;
  /** Aborted when the client is gone. */
  readonly signal: AbortSignal;
  /**
   * Proved once per request, however many calls it makes.
   *
   * @throws {UnauthenticatedError} no or bad credentials.
   * @throws {UnavailableError} nothing certain is known of them.
   */
  principal(): Promise<Principal>;
}

export interface Permitted {
  readonly ground: CallGround;
  readonly principal: Principal;
  readonly signal: AbortSignal;
}

export interface ProtectedCall<Input extends z.ZodType, Output> {
  readonly access: Scope;
  readonly input: Input;
  readonly run: (asker: Permitted, input: z.output<Input>) => Promise<Output>;
}

export interface OpenCall<Input extends z.ZodType, Output> {
  readonly access: "open";
  readonly input: Input;
  readonly run: (asker: Asker, input: z.output<Input>) => Promise<Output>;
}

export type Call<Input extends z.ZodType, Output> = ProtectedCall<Input, Output> | OpenCall<Input, Output>;

export function protectedCall<Input extends z.ZodType, Output>(
  call: ProtectedCall<Input, Output>,
): ProtectedCall<Input, Output> {
  return call;
}

export function openCall<Input extends z.ZodType, Output>(
  call: OpenCall<Input, Output>,
): OpenCall<Input, Output> {
  return call;
}

/** Whether `asker` may make calls of this access; undefined: it is open to everyone. */
export async function admit(asker: Asker, access: Scope | "open"): Promise<Permitted | undefined> {
  if (access === "open") return undefined;
  const principal = await asker.principal();
  requireScope(principal.scopes, access);
  return {
    ground: asker.ground,
    principal,
    get signal() {
      return asker.signal;
    },
  };
}

/** Checks permission, then runs the call. */
export async function perform<Input extends z.ZodType, Output>(
  asker: Asker,
  call: Call<Input, Output>,
  input: z.output<Input>,
): Promise<Output> {
  if (call.access === "open") return call.run(asker, input);
  const permitted = await admit(asker, call.access);
  if (permitted === undefined) throw new UnauthenticatedError("sign in first");
  return call.run(permitted, input);
}
