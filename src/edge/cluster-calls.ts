/** Calls about the ring and its members. */
import { z } from "zod";
import { protectedCall } from "./call.ts";

const nothing = z.object({}).optional();

export const lookupSchema = z.object({ key: z.string().min(1).max(2048) });

export const clusterStatus = protectedCall({
  access: "cluster:read",
  input: nothing,
  run: ({ ground }) => ground.backend.cluster.status(),
});

export const clusterNodes = protectedCall({
  access: "cluster:read",
  input: nothing,
  run: async ({ ground }) => ({ items: await ground.backend.cluster.nodes(), nextCursor: null }),
});

export const clusterPartitions = protectedCall({
  access: "cluster:read",
  input: nothing,
  run: async ({ ground }) => ({ items: await ground.backend.cluster.partitions(), nextCursor: null }),
});

export const clusterLookup = protectedCall({
  access: "cluster:read",
  input: lookupSchema,
  run: ({ ground }, { key }) => ground.backend.cluster.lookup(key),
});

export const createJoinToken = protectedCall({
  access: "cluster:admin",
  input: nothing,
  run: ({ ground, principal }) => ground.backend.cluster.createJoinToken(principal.username),
});
