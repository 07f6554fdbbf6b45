/**
 * What servers tell one another with the pings that the ring sends anyway, so that
 * none of it needs a question of its own at rest:
 *
 *     [f64 what the sender's clock says][8 bytes: digest of the members as it knows them][digest of what it leads]
 *
 * To the ring these are bytes that it carries.
 */
import type { NodeId } from "../ring/identifier.ts";
import type { ClockWatch } from "./clock-watch.ts";
import type { ReplicaDriver } from "./replica-driver.ts";
import { ROSTER_DIGEST_BYTES, type Roster } from "./roster.ts";

const CLOCK_BYTES = 8;
/** A clock that took longer to get here says too little: what waited while this process stood still is old. */
const READING_TOOK_MS_MAX = 1_000;
const LED_AT = CLOCK_BYTES + ROSTER_DIGEST_BYTES;

export interface TidingsParts {
  /** This machine's clock, as it is: milliseconds since the epoch. */
  wall(): number;
  readonly clockWatch: Pick<ClockWatch, "heard">;
  readonly roster: Pick<Roster, "digest" | "heard">;
  readonly replicas: Pick<ReplicaDriver, "ledDigest" | "ledHeard">;
}

export class Tidings {
  readonly #parts: TidingsParts;

  constructor(parts: TidingsParts) {
    this.#parts = parts;
  }

  outgoing(peer: NodeId): Uint8Array {
    const { wall, roster, replicas } = this.#parts;
    const led = replicas.ledDigest(peer);
    const bytes = Buffer.allocUnsafe(LED_AT + led.byteLength);
    bytes.writeDoubleBE(wall());
    bytes.set(roster.digest, CLOCK_BYTES);
    bytes.set(led, LED_AT);
    return bytes;
  }

  /**
   * @param bytes that are too short say nothing.
   * @param tookMs since the ping that they answer; undefined: they answer none.
   */
  incoming(peer: NodeId, incarnation: number, bytes: Uint8Array, tookMs: number | undefined): void {
    if (bytes.byteLength < LED_AT) return;
    const { clockWatch, roster, replicas } = this.#parts;
    if (tookMs !== undefined && tookMs <= READING_TOOK_MS_MAX) {
      const epochMs = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).readDoubleBE();
      // It was read about in the middle of the way there and back.
      if (Number.isFinite(epochMs)) clockWatch.heard(peer, epochMs + tookMs / 2);
    }
    roster.heard(bytes.subarray(CLOCK_BYTES, LED_AT));
    replicas.ledHeard(peer, incarnation, bytes.subarray(LED_AT));
  }
}
