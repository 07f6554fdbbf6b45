/**
 * The asking for credits of one partition: one question at a time for each job,
 * and after one that brought nothing a pause. The frontier wants credits at every
 * turn until it has them; this keeps that from becoming a flood.
 */
import type { Clock } from "./clock.ts";

export interface CreditRequestsPorts {
  readonly clock: Clock;
  /** Asks the job's leader. Rejects when there was no answer. */
  ask(jobId: string, want: number): Promise<"more" | "none" | "over">;
  /** Something has become possible: more credits, or another question. */
  onChange(): void;
}

const CREDIT_RETRY_MS = 250;

export class CreditRequests {
  readonly #ports: CreditRequestsPorts;
  // When a question may be repeated, by job; infinite while one, or a pause, is under way.
  readonly #freeAtMs = new Map<string, number>();

  constructor(ports: CreditRequestsPorts) {
    this.#ports = ports;
  }

  want(jobId: string, want: number): void {
    const { clock } = this.#ports;
    const nowMs = clock.now();
    const atMs = this.#freeAtMs.get(jobId) ?? Number.NEGATIVE_INFINITY;
    if (nowMs < atMs) {
      if (atMs !== Number.POSITIVE_INFINITY) {
        this.#freeAtMs.set(jobId, Number.POSITIVE_INFINITY);
        clock.after(atMs - nowMs, () => {
          this.#freeAtMs.delete(jobId);
          this.#ports.onChange();
        });
      }
      return;
    }
    this.#freeAtMs.set(jobId, Number.POSITIVE_INFINITY);
    this.#ports.ask(jobId, want).then(
      (answer) => {
        if (answer === "none") this.#pause(jobId);
        else this.#freeAtMs.delete(jobId);
        this.#ports.onChange();
      },
      () => {
        this.#pause(jobId);
        this.#ports.onChange();
      },
    );
  }

  /** The job is over. */
  forget(jobId: string): void {
    this.#freeAtMs.delete(jobId);
  }

  #pause(jobId: string): void {
    // Nothing is kept of a job that has ended meanwhile.
    if (!this.#freeAtMs.has(jobId)) return;
    this.#freeAtMs.set(jobId, this.#ports.clock.now() + CREDIT_RETRY_MS);
  }
}
