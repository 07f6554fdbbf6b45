/** What a ring wants done: messages to send, and news for its driver, in order. */
import type { NodeId } from "./identifier.ts";
import type { Found } from "./lookup.ts";
import type { Sender } from "./member.ts";
import type { RingMessage } from "./message.ts";

export type RingEffect =
  /** `led` of pings and pongs is empty: the driver fills it in. */
  | { readonly kind: "send"; readonly to: Sender; readonly message: RingMessage }
  /** It is silent, refuses connections, or said goodbye. */
  | { readonly kind: "suspected"; readonly nodeId: NodeId }
  | { readonly kind: "alive"; readonly nodeId: NodeId }
  /** Neighbours, fingers or members are others than before. */
  | { readonly kind: "changed" }
  /** Others see this node as a member. */
  | { readonly kind: "joined" }
  | { readonly kind: "found"; readonly request: number; readonly found: Found }
  | { readonly kind: "lost"; readonly request: number }
  | { readonly kind: "chosen"; readonly request: number; readonly point: NodeId }
  | { readonly kind: "notChosen"; readonly request: number }
  /** The address book is worth persisting again. */
  | { readonly kind: "contacts" };
