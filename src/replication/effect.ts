/** What a replica wants done. Performed in order, by the driver or the simulator. */
import type { ReplicaId } from "./ballot.ts";
import type { Body } from "./message.ts";
import type { Ballot, Key, Outcome } from "./register.ts";
import type { HeldEntry } from "./replica-state.ts";

/** Why an operation got no outcome. */
export type Refusal =
  | { readonly code: "NOT_LEADER" }
  | { readonly code: "OUTCOME_UNKNOWN" }
  | { readonly code: "BUSY"; readonly retryAfterMs: number }
  /** The answer would not fit into a frame: ask for less at a time. */
  | { readonly code: "TOO_LARGE" };

export type ReplicaEffect =
  | { readonly kind: "send"; readonly to: ReplicaId; readonly body: Body }
  /** To a node whose replica's id is not known. */
  | { readonly kind: "invite"; readonly nodeId: string; readonly body: Body }
  | { readonly kind: "answer"; readonly operation: number; readonly outcome: Outcome | Refusal }
  /** Keep the present state under `snapshot` until it is released; scans of it are answered by `scanned`. */
  | { readonly kind: "snapshot"; readonly snapshot: number }
  /** At most `limit` entries and about `bytesMax` bytes, at least one entry when there is one. */
  | {
      readonly kind: "scan";
      readonly snapshot: number;
      readonly generation: number;
      readonly prefix: Key;
      readonly after: Key | undefined;
      readonly limit: number;
      readonly bytesMax: number;
      /** For another replica's sake: must not starve operations. */
      readonly isTransfer: boolean;
    }
  | { readonly kind: "release"; readonly snapshot: number }
  /** Delete all entries of a generation that is not in use any more; told through `dropped`. */
  | { readonly kind: "dropGeneration"; readonly generation: number }
  /** Serves under `ballot` from now on. */
  | { readonly kind: "leading"; readonly ballot: Ballot }
  | { readonly kind: "stoppedLeading" }
  /** What this replica says that it leads or stands for has changed. */
  | { readonly kind: "standing" }
  /** End of a comparison: which replicas hold what this leader held in the same state. `silent`: not heard, or not level. */
  | {
      readonly kind: "compared";
      readonly comparison: number;
      readonly same: readonly ReplicaId[];
      readonly different: readonly ReplicaId[];
      readonly silent: readonly ReplicaId[];
    }
  /** This memory is to be given up; the next one here has another id. */
  | { readonly kind: "forget" }
  /** The entries here are not those that the meta record vouches for. */
  | { readonly kind: "damaged"; readonly what: string }
  | { readonly kind: "defect"; readonly what: string };

/** What a scan found. */
export interface Scanned {
  readonly entries: readonly (HeldEntry & { readonly key: Key })[];
  /** Nothing comes after these. */
  readonly isLast: boolean;
}
