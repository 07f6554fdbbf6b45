/**
 * What the participants of a job have counted, wherever they are led: one question
 * for each server that is believed to lead some of them; who has moved is found
 * one by one. A job over all partitions costs as many questions as there are
 * servers.
 */
import type { Counts } from "../job/counts.ts";
import type { NodeId } from "../ring/identifier.ts";

export interface ParticipantCountsPorts {
  /** Who is believed to lead the partition; undefined: nobody knows. */
  leaderOf(partition: number): NodeId | undefined;
  /** In the order asked, "no" where it does not lead; undefined: no answer. */
  askNode(nodeId: NodeId, partitions: number[]): Promise<readonly (Counts | null | "no")[] | undefined>;
  /** Of one partition, from its leader, wherever that is; undefined: no counts in the answer. */
  askLeader(partition: number): Promise<Counts | null | undefined>;
}

/** Null where there is nothing of the job yet. Rejects when a partition has no leader that answers. */
export async function participantCounts(
  partitions: readonly number[],
  ports: ParticipantCountsPorts,
): Promise<Map<number, Counts | null>> {
  const byNode = new Map<NodeId | undefined, number[]>();
  for (const partition of partitions) {
    const hint = ports.leaderOf(partition);
    const list = byNode.get(hint);
    if (list === undefined) byNode.set(hint, [partition]);
    else list.push(partition);
  }
  const counts = new Map<number, Counts | null>();
  const moved: number[] = [];
  await Promise.all(
    [...byNode].map(async ([nodeId, asked]) => {
      const answers = nodeId === undefined ? undefined : await ports.askNode(nodeId, asked);
      for (const [n, partition] of asked.entries()) {
        const answer = answers?.[n];
        if (answer === undefined || answer === "no") moved.push(partition);
        else counts.set(partition, answer);
      }
    }),
  );
  await Promise.all(
    moved.map(async (partition) => {
      const answer = await ports.askLeader(partition);
      if (answer !== undefined) counts.set(partition, answer);
    }),
  );
  return counts;
}
