/**
 * The members' procedures as one typed tRPC router. The assembly hands in the
 * schemas, so that nothing here knows what the members speak about; the two ways
 * in (the fast link, and plain tRPC over HTTP) call this same router.
 */
import assert from "node:assert/strict";
import {
  initTRPC,
  type TRPCBuiltRouter,
  type TRPCDecorateCreateRouterOptions,
  TRPCError,
  type TRPCMutationProcedure,
} from "@trpc/server";
import type { z } from "zod";
import { DamagedError, ForbiddenError, RefusedError } from "../errors.ts";
import type { Deliveries, MessageSchemas } from "./deliveries.ts";
import { DELIVER, deliverySchema } from "./frame.ts";
import type { PeerHandlers, PeerSender, ProcedureMap } from "./transport.ts";
import { expectedError, toWire, type WireError } from "./wire-error.ts";

/** The one procedure that a certificate of role `join` may call, and no other role. */
export const JOIN = "join";

export interface PeerContext {
  readonly sender: PeerSender;
  readonly role: "node" | "join";
  /** Whether the sender has shown its instances: what changes replicas needs that. */
  readonly isIntroduced: boolean;
}

export type PeerSchemas<Messages extends object, Procedures extends ProcedureMap> = {
  readonly messages: MessageSchemas<Messages>;
  readonly procedures: {
    readonly [P in keyof Procedures]: {
      readonly input: z.ZodType<Procedures[P]["input"]>;
      readonly output: z.ZodType<Procedures[P]["output"]>;
    };
  };
};

const t = initTRPC.context<PeerContext>().create({
  isDev: false, // Stack traces stay at home.
  errorFormatter: ({ shape, error }): typeof shape & { data: { cluster?: WireError } } => {
    const expected = expectedError(error);
    return expected === undefined ? shape : { ...shape, data: { ...shape.data, cluster: toWire(expected) } };
  },
});

type Mutation<Input, Output> = TRPCMutationProcedure<{ meta: unknown; input: Input; output: Output }>;
type RootTypes = (typeof t)["_config"]["$types"];

type PeerRecord<Procedures extends ProcedureMap> = {
  [P in keyof Procedures & string]: Mutation<Procedures[P]["input"], Procedures[P]["output"]>;
} & { deliver: Mutation<z.output<typeof deliverySchema>, null> };

export type PeerRouter<Procedures extends ProcedureMap> = TRPCBuiltRouter<
  RootTypes,
  TRPCDecorateCreateRouterOptions<PeerRecord<Procedures>>
>;

export function createPeerRouter<Messages extends object, Procedures extends ProcedureMap>(options: {
  readonly schemas: PeerSchemas<Messages, Procedures>;
  readonly handlers: PeerHandlers<Messages, Procedures>;
  readonly deliveries: Deliveries<Messages, Procedures>;
}): PeerRouter<Procedures> {
  const { schemas, handlers, deliveries } = options;

  const forRole = (role: PeerContext["role"]) =>
    t.procedure.use(({ ctx, next, path }) => {
      if (ctx.role === role) return next();
      throw new TRPCError({
        code: "FORBIDDEN",
        cause: new ForbiddenError(`a certificate of role ${ctx.role} may not call ${path}`),
      });
    });
  const member = forRole("node");
  const joiner = forRole("join");

  const deliver = member.input(deliverySchema).mutation(({ ctx, input }) => {
    if (!ctx.isIntroduced) throw new RefusedError("messages need a sender that has shown its instances");
    deliveries.take(ctx.sender, input[2]);
    return null;
  });

  const procedures: Record<string, typeof deliver | ReturnType<typeof procedure>> = { [DELIVER]: deliver };
  function procedure(name: keyof Procedures & string) {
    return (name === JOIN ? joiner : member)
      .input(schemas.procedures[name].input)
      .mutation(({ ctx, input }) => handlers.call(ctx.sender, name, input));
  }
  for (const name of procedureNames(schemas)) procedures[name] = procedure(name);
  const record: object = procedures;
  assert(isComplete(record, schemas));
  return t.router(record);
}

function procedureNames<Messages extends object, Procedures extends ProcedureMap>(
  schemas: PeerSchemas<Messages, Procedures>,
): (keyof Procedures & string)[] {
  const names = Object.keys(schemas.procedures) as (keyof Procedures & string)[];
  if (names.includes(DELIVER)) throw new DamagedError(`${DELIVER} is the transport's own procedure`);
  return names;
}

/** The one place where the table built by name gets the types of its names. */
function isComplete<Messages extends object, Procedures extends ProcedureMap>(
  record: object,
  schemas: PeerSchemas<Messages, Procedures>,
): record is PeerRecord<Procedures> {
  return [DELIVER, ...Object.keys(schemas.procedures)].every((name) => Object.hasOwn(record, name));
}
