/** The part of the REST table that is for operators. */
import { z } from "zod";
import { credentialsSchema } from "./account-calls.ts";
import {
  auditEventSchema,
  auditPageSchema,
  drainNode,
  keepNode,
  listAudit,
  listLosses,
  lossesSchema,
  nodeIdParameterSchema,
  recoveredSchema,
  recoverPartitions,
  recoverySchema,
  removeNode,
} from "./administration-calls.ts";
import { asEmpty, asJson, listOf, type Route, route } from "./route.ts";

const KIB = 1024;

export const administrationRoutes: readonly Route[] = [
  route("post", "/v1/cluster/nodes/:id/drain", {
    call: drainNode,
    summary: "Move a server's leaderships and copies away; GET /v1/cluster/nodes shows what is left",
    params: nodeIdParameterSchema,
    response: z.object({ nodeId: z.string(), membership: z.literal("draining") }),
    status: 202,
    input: ({ params }) => params,
    answer: asJson,
  }),
  route("delete", "/v1/cluster/nodes/:id/drain", {
    call: keepNode,
    summary: "Let a server that drains keep its share again",
    params: nodeIdParameterSchema,
    response: null,
    status: 204,
    input: ({ params }) => params,
    answer: asEmpty,
  }),
  route("delete", "/v1/cluster/nodes/:id", {
    call: removeNode,
    summary: "Strike a server off: its certificate is refused, its copies are replaced",
    params: nodeIdParameterSchema,
    response: null,
    status: 204,
    input: ({ params }) => params,
    answer: asEmpty,
  }),
  route("post", "/v1/cluster/losses", {
    call: listLosses,
    summary: "Partitions that have lost their majority, and what each survivor holds of them",
    body: { schema: credentialsSchema, bytesMax: 16 * KIB },
    response: lossesSchema,
    input: ({ body }) => body,
    answer: asJson,
  }),
  route("post", "/v1/cluster/recoveries", {
    call: recoverPartitions,
    summary: "Let partitions go on from one survivor; what only the lost servers held is gone",
    body: { schema: recoverySchema, bytesMax: 4096 * KIB },
    response: recoveredSchema,
    input: ({ body }) => body,
    answer: asJson,
  }),
  route("get", "/v1/audit", {
    call: listAudit,
    summary: "What was done to the cluster, and by whom",
    query: auditPageSchema,
    response: listOf(auditEventSchema),
    input: ({ query }) => query,
    answer: asJson,
  }),
];
