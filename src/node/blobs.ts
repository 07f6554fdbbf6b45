/**
 * Blobs: immutable, named by (job, SHA-256 of the content), three copies on the
 * first live members of the blob's partition. Any copy whose hash matches is
 * right, so there is nothing to agree on.
 *
 * A copy carries its job and hash, so that a server that lists its files can tell
 * where each belongs: `repair` gives a copy to holders that lack one and drops
 * its own when it is not a holder any more and three holders have confirmed theirs.
 */
import { hash } from "node:crypto";
import { DamagedError, NotFoundError, UnavailableError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { PeerRef } from "../peer/transport.ts";
import { type NodeId, partitionOf, positionOf } from "../ring/identifier.ts";
import type { Member } from "../ring/member.ts";

export const BLOB_COPIES = 3;

export interface BlobName {
  /** 32 hex digits. */
  readonly jobId: string;
  /** 64 hex digits. */
  readonly sha256: string;
}

export interface Blobs {
  /** Returns the SHA-256 once three servers (all, in smaller rings) have it on disk. */
  put(jobId: string, bytes: Uint8Array): Promise<string>;
  /** @throws {NotFoundError} no member has it. @throws {UnavailableError} some could not be asked. */
  get(jobId: string, sha256: string): Promise<Uint8Array>;
  /** Deletes all copies of the job's blobs on the members that answer. */
  drop(jobId: string): Promise<void>;
}

export interface BlobPorts {
  readonly self: Member;
  readonly partitionCount: number;
  readonly replicationFactor: number;
  readonly log: Log;
  /** The file's name for a blob: keyed hashes, so that it tells nothing; it ends with the job's. */
  fileName(name: BlobName): string;
  /** What the file names of all blobs of the job end with. */
  fileNameEnd(jobId: string): string;
  readonly files: {
    put(name: string, bytes: Uint8Array): Promise<void>;
    get(name: string): Promise<Uint8Array | undefined>;
    has(name: string): Promise<boolean>;
    delete(name: string): Promise<void>;
    list(): AsyncIterable<string>;
  };
  readonly ring: {
    member(nodeId: NodeId): Member | undefined;
    isSuspected(nodeId: NodeId): boolean;
    successorsOf(point: ReturnType<typeof positionOf>, count: number): Promise<{ members: Member[] }>;
    members(): Member[];
  };
  members(partition: number): NodeId[] | undefined;
  callPut(to: PeerRef, blob: BlobName & { bytes: Uint8Array }): Promise<void>;
  callGet(to: PeerRef, name: BlobName): Promise<Uint8Array | undefined>;
  callHas(to: PeerRef, name: BlobName): Promise<boolean>;
  callDrop(to: PeerRef, jobId: string): Promise<void>;
}

const HEAD_BYTES = 32 + 64;

export class ReplicatedBlobs implements Blobs {
  readonly #ports: BlobPorts;
  #count: number | null = null;
  #counting: Promise<void> | undefined;

  constructor(ports: BlobPorts) {
    this.#ports = ports;
  }

  async put(jobId: string, bytes: Uint8Array): Promise<string> {
    const name = { jobId, sha256: hash("sha256", bytes, "hex") };
    const members = await this.#members(name);
    const wanted = Math.min(BLOB_COPIES, members.length);
    // The first three at once; whoever fails is stood in for by the next in line.
    const waiting = members.slice(wanted);
    let held = 0;
    const place = async (member: Member): Promise<void> => {
      for (let next: Member | undefined = member; next !== undefined; next = waiting.shift()) {
        try {
          await this.#putTo(next, name, bytes);
          held++;
          return;
        } catch (error) {
          this.#ports.log.debug("blob copy failed", { to: next.nodeId, error });
        }
      }
    };
    await Promise.all(members.slice(0, wanted).map(place));
    if (held < wanted) {
      throw new UnavailableError(`only ${held} of ${wanted} servers took the blob; try again`);
    }
    return name.sha256;
  }

  async get(jobId: string, sha256: string): Promise<Uint8Array> {
    const name = { jobId, sha256 };
    let silent = 0;
    for (const member of await this.#members(name)) {
      try {
        const bytes =
          member.nodeId === this.#ports.self.nodeId
            ? await this.getLocally(name)
            : await this.#ports.callGet({ nodeId: member.nodeId, address: member.address }, name);
        if (bytes !== undefined && hash("sha256", bytes, "hex") === sha256) return bytes;
      } catch (error) {
        // Another copy may be well: damage and silence of one holder are not the blob's loss.
        silent++;
        this.#ports.log.debug("blob not read", { from: member.nodeId, error });
      }
    }
    if (silent > 0)
      throw new UnavailableError(`${silent} servers that may hold the blob did not answer; try again`);
    throw new NotFoundError("there is no such blob");
  }

  async drop(jobId: string): Promise<void> {
    const { ring, self, log } = this.#ports;
    await this.dropLocally(jobId);
    for (const member of ring.members()) {
      if (member.nodeId === self.nodeId || ring.isSuspected(member.nodeId)) continue;
      try {
        await this.#ports.callDrop({ nodeId: member.nodeId, address: member.address }, jobId);
      } catch (error) {
        log.warn("a deleted job's blobs may remain", { job: jobId, at: member.nodeId, error });
      }
    }
  }

  async dropLocally(jobId: string): Promise<void> {
    const { files } = this.#ports;
    const end = this.#ports.fileNameEnd(jobId);
    for await (const file of files.list()) if (file.endsWith(end)) await files.delete(file);
  }

  /** For a peer that places a copy here. Refuses content that its name does not fit. */
  async putLocally(name: BlobName, bytes: Uint8Array): Promise<void> {
    if (hash("sha256", bytes, "hex") !== name.sha256) {
      throw new DamagedError("the blob does not match its hash; send it again");
    }
    const file = this.#ports.fileName(name);
    if (await this.#ports.files.has(file)) return;
    await this.#ports.files.put(
      file,
      Buffer.concat([Buffer.from(name.jobId + name.sha256, "latin1"), bytes]),
    );
  }

  async getLocally(name: BlobName): Promise<Uint8Array | undefined> {
    const stored = await this.#ports.files.get(this.#ports.fileName(name));
    return stored?.subarray(HEAD_BYTES);
  }

  hasLocally(name: BlobName): Promise<boolean> {
    return this.#ports.files.has(this.#ports.fileName(name));
  }

  /** How many copies lie here, as counted last: a count begins with each call, one at a time. */
  countSoon(): number | null {
    this.#counting ??= this.#countNow().finally(() => {
      this.#counting = undefined;
    });
    return this.#count;
  }

  async #countNow(): Promise<void> {
    let count = 0;
    try {
      for await (const _ of this.#ports.files.list()) count++;
      this.#count = count;
    } catch (error) {
      this.#ports.log.warn("blobs not counted", { error });
    }
  }

  /**
   * Goes through all local copies once, one at a time. Called when the ring has
   * changed and come to rest. Returns how many copies were given and dropped.
   */
  async repair(signal: AbortSignal): Promise<{ given: number; dropped: number; damaged: number }> {
    const { files, log, self } = this.#ports;
    const count = { given: 0, dropped: 0, damaged: 0 };
    for await (const file of files.list()) {
      if (signal.aborted) break;
      try {
        const stored = await files.get(file);
        if (stored === undefined) continue;
        const head = Buffer.from(stored.subarray(0, HEAD_BYTES)).toString("latin1");
        const name = { jobId: head.slice(0, 32), sha256: head.slice(32) };
        const bytes = stored.subarray(HEAD_BYTES);
        const holders = (await this.#members(name)).slice(0, BLOB_COPIES);
        let present = 0;
        for (const holder of holders) {
          if (holder.nodeId === self.nodeId) {
            present++;
          } else if (await this.#ports.callHas({ nodeId: holder.nodeId, address: holder.address }, name)) {
            present++;
          } else {
            await this.#putTo(holder, name, bytes);
            present++;
            count.given++;
          }
        }
        const isHolder = holders.some((holder) => holder.nodeId === self.nodeId);
        // All of them, where there are fewer.
        if (!isHolder && holders.length > 0 && present >= holders.length) {
          await files.delete(file);
          count.dropped++;
        }
      } catch (error) {
        if (error instanceof DamagedError) count.damaged++;
        log.warn("blob not repaired", { error });
      }
    }
    return count;
  }

  #putTo(member: Member, name: BlobName, bytes: Uint8Array): Promise<void> {
    if (member.nodeId === this.#ports.self.nodeId) return this.putLocally(name, bytes);
    return this.#ports.callPut({ nodeId: member.nodeId, address: member.address }, { ...name, bytes });
  }

  /** Live members of the blob's group, in the order in which they hold. */
  async #members(name: BlobName): Promise<Member[]> {
    const { partitionCount, ring, self, replicationFactor } = this.#ports;
    const partition = partitionOf(`blob/${name.jobId}/${name.sha256}`, partitionCount);
    const wished = (await ring.successorsOf(positionOf(partition, partitionCount), replicationFactor))
      .members;
    const config = this.#ports.members(partition);
    const order =
      config === undefined
        ? wished
        : wished
            .filter((member) => config.includes(member.nodeId))
            .concat(
              config
                .filter((nodeId) => !wished.some((member) => member.nodeId === nodeId))
                .flatMap((nodeId) => (nodeId === self.nodeId ? [self] : (ring.member(nodeId) ?? []))),
            );
    return order.filter((member) => member.nodeId === self.nodeId || !ring.isSuspected(member.nodeId));
  }
}
