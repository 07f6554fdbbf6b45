/**
 * What operators do to the cluster: send a server away in good order, strike one
 * off, let a partition go on that lost its majority for ever. Each is an entry of
 * the audit log, and nothing here happens by itself.
 */
import { hash } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { NotFoundError, UnavailableError, WrongStateError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { PeerRef } from "../peer/transport.ts";
import { majorityOf } from "../replication/quorum.ts";
import { planRecovery } from "../replication/recovery.ts";
import { isNodeId, type NodeId } from "../ring/identifier.ts";
import type { Member } from "../ring/member.ts";
import type { AuditedAct, AuditLog } from "./audit-log.ts";
import type { ClusterEntries, MemberRecord } from "./cluster-entries.ts";
import type { ClusterPartition } from "./cluster-view.ts";
import type { Holding } from "./peer-contract.ts";
import type { RingDriver } from "./ring-driver.ts";
import type { Roster } from "./roster.ts";

const ATTEMPTS_MAX = 5;
const TELL_MS = 2_000;
/** Entries are counted for it. */
const HOLDINGS_MS = 60_000;
const HOLDINGS_AT_ONCE = 256;
const RECOVER_MS = 10_000;
const AUDIT_ATTEMPTS_MAX = 10;
/** A partition that goes on alone needs a moment to lead. */
const AUDIT_PAUSE_MS = 500;

/** What one survivor of a lost partition holds. */
export interface SurvivorReport {
  readonly nodeId: NodeId;
  readonly replica: string;
  /** `round.replica` of the ballot whose state it holds, and how many batches of it. */
  readonly accepted: string;
  readonly seq: number;
  readonly entries: number | null;
  /** Milliseconds since it last knew that it was level with a leader; null: not since it was started. */
  readonly ageMs: number | null;
}

export interface PartitionLoss {
  readonly partition: number;
  readonly members: string[];
  readonly survivors: SurvivorReport[];
  /** Members that did not answer. */
  readonly lost: string[];
  /** From whom it can go on; null: nobody holds anything of it. */
  readonly best: NodeId | null;
  /** Stands for what was seen of it: a recovery that names it happens only while the survivors hold the same. */
  readonly seen: string;
}

interface FoundLoss extends PartitionLoss {
  readonly decided: { readonly claim: Holding["claim"]; readonly round: number } | undefined;
}

export interface AdministrationParts {
  readonly self: Member;
  readonly entries: Pick<ClusterEntries, "read" | "write">;
  readonly audit: AuditLog;
  readonly roster: Roster;
  readonly ring: Pick<RingDriver, "members" | "isSuspected">;
  readonly log: Log;
  partitions(): Promise<ClusterPartition[]>;
  /** What another member, or this one, holds of these partitions. */
  holdings(
    of: Member,
    asked: { readonly partitions: readonly number[]; readonly counted: boolean },
    timeoutMs: number,
  ): Promise<Holding[]>;
  recoverAt(
    of: Member,
    decided: { readonly partition: number; readonly claim: Holding["claim"]; readonly round: number },
    timeoutMs: number,
  ): Promise<boolean>;
  tellRosterChanged(to: PeerRef, timeoutMs: number): Promise<void>;
}

export class Administration {
  readonly #parts: AdministrationParts;

  constructor(parts: AdministrationParts) {
    this.#parts = parts;
  }

  /**
   * Leaderships and copies of that server go to others from now on; it stays a member.
   *
   * @throws {NotFoundError} @throws {WrongStateError} it was removed, or no other server would be left.
   */
  async drain(actor: string, nodeId: string): Promise<void> {
    this.#requireOthers(nodeId);
    await this.#change(nodeId, "draining", { actor, action: "cluster.drain", subject: nodeId, details: {} });
  }

  /** One that drains keeps its share again. @throws {NotFoundError} @throws {WrongStateError} it was removed. */
  async keep(actor: string, nodeId: string): Promise<void> {
    await this.#change(nodeId, "active", { actor, action: "cluster.keep", subject: nodeId, details: {} });
  }

  /**
   * Strikes a server off for good: its certificate is refused, its copies are replaced at once.
   *
   * @throws {NotFoundError} @throws {WrongStateError} data would be without a majority: drain it first.
   */
  async remove(actor: string, nodeId: string): Promise<void> {
    this.#requireOthers(nodeId);
    await this.#requireMajorities(nodeId);
    await this.#change(nodeId, "removed", { actor, action: "cluster.remove", subject: nodeId, details: {} });
  }

  /** Partitions without a majority, and how each could go on. Changes nothing. */
  async losses(): Promise<PartitionLoss[]> {
    return (await this.#losses(true)).map(({ decided: _, ...loss }) => loss);
  }

  /**
   * Each of these goes on from its best survivor. Which ones did; the others are not as they were seen any more.
   *
   * @param chosen as `losses` showed them.
   */
  async recover(
    actor: string,
    chosen: readonly { readonly partition: number; readonly seen: string }[],
  ): Promise<{ readonly recovered: number[]; readonly failed: number[] }> {
    const { log, recoverAt } = this.#parts;
    const present = new Map((await this.#losses(false)).map((loss) => [loss.partition, loss]));
    const members = new Map(this.#live().map((member) => [member.nodeId, member]));
    const recovered: PartitionLoss[] = [];
    const failed: number[] = [];
    for (const { partition, seen } of chosen) {
      const loss = present.get(partition);
      const member = loss?.best == null ? undefined : members.get(loss.best);
      const isDone =
        loss?.decided !== undefined &&
        loss.seen === seen &&
        member !== undefined &&
        (await recoverAt(member, { partition, ...loss.decided }, RECOVER_MS).catch((error: unknown) => {
          log.warn("partition not recovered", { partition, at: member.nodeId, error });
          return false;
        }));
      if (!isDone) failed.push(partition);
      else {
        recovered.push(loss);
        log.warn("partition goes on without its majority", {
          partition,
          from: loss.best,
          lost: loss.lost,
          actor,
        });
      }
    }
    if (recovered.length > 0) {
      await this.#auditLater({
        actor,
        action: "cluster.recover",
        subject: recovered.map(({ partition }) => partition).join(","),
        details: {
          from: [...new Set(recovered.map(({ best }) => best))],
          lost: [...new Set(recovered.flatMap(({ lost }) => lost))],
          failed,
        },
      });
    }
    return { recovered: recovered.map(({ partition }) => partition), failed };
  }

  async #losses(counted: boolean): Promise<FoundLoss[]> {
    const { partitions, log } = this.#parts;
    // A leader that nobody has asked anything since does not know yet that it stands alone.
    const unserved = (await partitions())
      .filter(
        ({ durability, copies, members: of }) => durability === "unserved" || copies < majorityOf(of.length),
      )
      .map(({ partition }) => partition);
    const members = this.#live();
    const losses: FoundLoss[] = [];
    for (let at = 0; at < unserved.length; at += HOLDINGS_AT_ONCE) {
      const asked = unserved.slice(at, at + HOLDINGS_AT_ONCE);
      const answers = await Promise.all(
        members.map((member) =>
          this.#parts
            .holdings(member, { partitions: asked, counted }, HOLDINGS_MS)
            .catch((error: unknown): Holding[] => {
              log.warn("a member did not say what it holds", { peer: member.nodeId, error });
              return [];
            }),
        ),
      );
      for (const partition of asked) {
        const held = answers.flatMap((list) => list.filter((one) => one.partition === partition));
        const loss = lossOf(partition, held);
        if (loss !== undefined) losses.push(loss);
      }
    }
    return losses;
  }

  /** The entries of the audit log may be in a partition that has just begun to lead again. */
  async #auditLater(event: AuditedAct): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#parts.audit.append(event);
        return;
      } catch (error) {
        if (attempt === AUDIT_ATTEMPTS_MAX) {
          this.#parts.log.error("the audit log could not be written", { ...event, error });
          return;
        }
        await pause(AUDIT_PAUSE_MS);
      }
    }
  }

  async #change(nodeId: string, state: MemberRecord["state"], event: AuditedAct): Promise<void> {
    const { entries, audit, roster, log } = this.#parts;
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
      const found = await entries.read("member", nodeId);
      if (found === undefined) throw new NotFoundError(`the cluster has no server ${nodeId}`);
      const { record, version } = found;
      if (record.state === state) return;
      if (record.state === "removed") {
        throw new WrongStateError(`server ${nodeId.slice(0, 8)} was removed; nothing is left to do`);
      }
      const beside = await audit.next(event);
      const changed = { ...record, state };
      const isWritten = await entries.write(
        [{ kind: "member", name: nodeId, record: changed, is: version }],
        { repeatable: true },
        beside,
      );
      if (!isWritten) continue;
      log.warn("member changed", { peer: nodeId, state, actor: event.actor });
      await this.#tellAll();
      await roster.renew();
      return;
    }
    throw new UnavailableError("the members are being changed by others; try again");
  }

  /** Those that don't hear it look by themselves soon. */
  async #tellAll(): Promise<void> {
    const { self, tellRosterChanged } = this.#parts;
    await Promise.allSettled(
      this.#live()
        .filter(({ nodeId }) => nodeId !== self.nodeId)
        .map(({ nodeId, address }) => tellRosterChanged({ nodeId, address }, TELL_MS)),
    );
  }

  #live(): Member[] {
    const { self, ring, roster } = this.#parts;
    const others = ring.members().filter(({ nodeId }) => nodeId !== self.nodeId && !ring.isSuspected(nodeId));
    return [self, ...others].filter(({ nodeId }) => !roster.removed.has(nodeId));
  }

  #requireOthers(nodeId: string): void {
    const { roster } = this.#parts;
    const left = this.#live().filter((one) => one.nodeId !== nodeId && !roster.leaving.has(one.nodeId));
    if (left.length > 0) return;
    throw new WrongStateError("no other server would be left to keep the data; let another one in first");
  }

  /** A member of a group that is struck off votes no more, also not for its own replacement. */
  async #requireMajorities(nodeId: string): Promise<void> {
    const live = new Set<string>(this.#live().map((member) => member.nodeId));
    // Whoever is dead counts already for nothing.
    if (!live.delete(nodeId)) return;
    const lost = (await this.#parts.partitions()).filter(
      ({ members }) =>
        members.includes(nodeId as NodeId) &&
        members.filter((member) => live.has(member)).length < majorityOf(members.length),
    );
    if (lost.length === 0) return;
    throw new WrongStateError(
      `without it ${lost.length} partitions would have no majority of their copies: drain it first, or bring the servers back that are away`,
    );
  }
}

/** Undefined: it has a majority, and will lead again by itself. */
function lossOf(partition: number, holdings: readonly Holding[]): FoundLoss | undefined {
  const plan = planRecovery(holdings);
  if (plan.kind === "notNeeded") return undefined;
  const holding = holdings.filter(({ claim }) => claim.accepted.round > 0);
  const best = plan.kind === "recover" ? holding.find((one) => one.replicaId === plan.best) : undefined;
  const states = holding.map(({ replicaId, claim }) => [replicaId, claim.accepted, claim.seq]).sort();
  return {
    partition,
    members: [...(best?.members ?? [])],
    survivors: holding.map(reportOf),
    lost: plan.kind === "recover" ? [...plan.lost] : [],
    best: best === undefined ? null : nodeOfHolding(best),
    seen: hash("sha256", JSON.stringify(states), "hex").slice(0, 16),
    decided: plan.kind === "recover" ? { claim: plan.claim, round: plan.round } : undefined,
  };
}

function reportOf(holding: Holding): SurvivorReport {
  const { accepted, seq } = holding.claim;
  return {
    nodeId: nodeOfHolding(holding),
    replica: holding.replicaId,
    accepted: `${accepted.round}.${accepted.replicaId}`,
    seq,
    entries: holding.entries,
    ageMs: holding.ageMs,
  };
}

function nodeOfHolding({ replicaId }: Holding): NodeId {
  const nodeId = replicaId.slice(0, replicaId.lastIndexOf("/"));
  if (!isNodeId(nodeId)) throw new UnavailableError(`a member named a replica "${replicaId}"`);
  return nodeId;
}
