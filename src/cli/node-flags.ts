/**
 * How Node runs a server. What a request needs lives about as long as a write is
 * under way: with the usual young generation a tenth of a busy server's time went
 * into copying what would soon be gone.
 */
export const SERVER_NODE_FLAGS = ["--max-semi-space-size=64"] as const;
