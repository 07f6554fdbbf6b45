/** The blobs of one server, connected to its disk, its ring and the other members. */
import type { Log } from "../log.ts";
import type { TrpcTransport } from "../peer/trpc-transport.ts";
import type { Member } from "../ring/member.ts";
import { BlobFiles } from "../store/blob-files.ts";
import type { DataDirectory } from "../store/data-directory.ts";
import type { StoreCipher } from "../store/encryption.ts";
import type { Naming } from "../vault/naming.ts";
import { BlobRepair } from "./blob-repair.ts";
import { ReplicatedBlobs } from "./blobs.ts";
import type { KeyLayout } from "./key-layout.ts";
import type { Membership } from "./membership.ts";
import type { Messages, Procedures } from "./peer-contract.ts";
import type { Registers } from "./registers.ts";
import type { ReplicaDriver } from "./replica-driver.ts";
import type { RingDriver } from "./ring-driver.ts";
import type { Roster } from "./roster.ts";

/** Of one piece. */
const CALL_MS = 10_000;
/** Blobs are files, not entries: none of the namespaces of keys. */
const NAMESPACE = 0x40;

export interface BlobKeeping {
  readonly blobs: ReplicatedBlobs;
  readonly repair: BlobRepair;
}

export function keepBlobs(parts: {
  readonly self: Member;
  readonly membership: Pick<Membership, "partitions" | "replicationFactor">;
  readonly directory: DataDirectory;
  readonly cipher: StoreCipher;
  readonly naming: Naming;
  readonly layout: KeyLayout;
  readonly registers: Pick<Registers, "operate">;
  readonly transport: TrpcTransport<Messages, Procedures>;
  readonly ring: RingDriver;
  readonly replicas: ReplicaDriver;
  readonly roster: Pick<Roster, "leaving" | "staying">;
  readonly log: Log;
}): BlobKeeping {
  const { self, membership, directory, naming, layout, transport, ring, roster, log } = parts;
  const paths = {
    blobs: directory.blobsPath,
    temporary: directory.temporaryPath,
    quarantine: directory.quarantinePath,
  };
  const timeoutMs = CALL_MS;
  const nameOf = (text: string) => Buffer.from(naming.name(NAMESPACE, text), "latin1").toString("hex");
  const blobs = new ReplicatedBlobs({
    self,
    partitionCount: membership.partitions,
    replicationFactor: membership.replicationFactor,
    log,
    fileName: ({ jobId, sha256 }) => nameOf(`${jobId}/${sha256}`) + nameOf(jobId),
    fileNameEnd: nameOf,
    files: new BlobFiles(paths, parts.cipher),
    ring,
    members: (partition) => parts.replicas.members(partition),
    leaving: () => roster.leaving,
    staying: () => roster.staying,
    jobExists: async (jobId) => {
      const keys = [layout.job(jobId)];
      const outcome = await parts.registers.operate(layout.jobPartition(jobId), { kind: "get", keys });
      return outcome.kind !== "entries" || outcome.entries[0] !== undefined;
    },
    repairWanted: () => {
      for (const member of ring.members()) {
        if (member.nodeId === self.nodeId || ring.isSuspected(member.nodeId)) continue;
        // Who does not hear it looks after its copies with the next change, or scrub.
        transport.call(member, "repairBlobs", null, { timeoutMs }).catch(() => {});
      }
    },
    callPut: async (to, piece) => {
      await transport.call(to, "putBlob", piece, { timeoutMs });
    },
    callGet: async (to, from) => (await transport.call(to, "getBlob", from, { timeoutMs })) ?? undefined,
    callHas: (to, name) => transport.call(to, "hasBlob", name, { timeoutMs }),
    callDrop: async (to, jobId) => {
      await transport.call(to, "dropBlobs", { jobId }, { timeoutMs });
    },
  });
  return { blobs, repair: new BlobRepair({ repair: (signal) => blobs.repair(signal), log }) };
}
