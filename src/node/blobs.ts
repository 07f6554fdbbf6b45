/**
 * Blobs: immutable, named by (job, SHA-256 of the content), three copies on the
 * first live members of the blob's partition. Any copy whose hash matches is
 * right, so there is nothing to agree on.
 *
 * A copy carries its job and hash, so that a server that lists its files can tell
 * where each belongs: `repair` gives a copy to holders that lack one, drops its own
 * when it is not a holder any more and three holders (all, in smaller rings) have
 * confirmed theirs, or when its job is gone, and sets aside what is not as it was written: the others, asked
 * for a repair of theirs, bring that back.
 */
import { hash } from "node:crypto";
import { DamagedError, NotFoundError, TooLargeError, UnavailableError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { PeerRef } from "../peer/transport.ts";
import { type NodeId, partitionOf, positionOf } from "../ring/identifier.ts";
import type { Member } from "../ring/member.ts";
import { BLOB_BYTES_MAX, BlobAssembly, type BlobPiece, PIECE_BYTES } from "./blob-assembly.ts";

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
    /** Out of the way, kept for people. */
    setAside(name: string): Promise<void>;
    list(): AsyncIterable<string>;
  };
  readonly ring: {
    member(nodeId: NodeId): Member | undefined;
    isSuspected(nodeId: NodeId): boolean;
    placement(
      point: ReturnType<typeof positionOf>,
      count: number,
      except: ReadonlySet<string>,
    ): Promise<{ members: Member[] }>;
    members(): Member[];
  };
  members(partition: number): NodeId[] | undefined;
  /** Nothing is to be kept there any more, by an operator's word. */
  leaving(): ReadonlySet<string>;
  /** How many servers are to keep something, also those that are away; undefined: not known yet. */
  staying(): number | undefined;
  /** Linearizable; a job that is being deleted exists until all of it is gone. @throws {UnavailableError} */
  jobExists(jobId: string): Promise<boolean>;
  /** A copy here was lost: whoever holds another one may look after it now. */
  repairWanted(): void;
  callPut(to: PeerRef, piece: BlobName & BlobPiece): Promise<void>;
  callGet(to: PeerRef, from: BlobName & { offset: number }): Promise<BlobPiece | undefined>;
  callHas(to: PeerRef, name: BlobName): Promise<boolean>;
  callDrop(to: PeerRef, jobId: string): Promise<void>;
}

/** Whether these exist was asked; asked anew past that. */
const JOBS_KNOWN_MAX = 10_000;
const HEAD_BYTES = 32 + 64;
/** A blob is read from disk once for all its pieces. */
const READ_KEPT_MS = 5_000;

export interface RepairCounts {
  /** Copies that others have from here now. */
  given: number;
  dropped: number;
  /** Not as they were written. */
  damaged: number;
  /** Not looked after: others did not answer, or the disk refused. */
  failed: number;
}

export class ReplicatedBlobs implements Blobs {
  readonly #ports: BlobPorts;
  readonly #assembly = new BlobAssembly();
  /** Read last for a peer that asks in pieces. */
  #read: { readonly file: string; readonly bytes: Uint8Array; readonly timer: NodeJS.Timeout } | undefined;
  #count: number | null = null;
  #counting: Promise<void> | undefined;

  constructor(ports: BlobPorts) {
    this.#ports = ports;
  }

  async put(jobId: string, bytes: Uint8Array): Promise<string> {
    if (bytes.length > BLOB_BYTES_MAX) {
      throw new TooLargeError(`the content has ${bytes.length} bytes; at most ${BLOB_BYTES_MAX} can be kept`);
    }
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
            : await this.#getFrom(member, name);
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

  /**
   * For a peer that places a copy here, piece by piece. Refuses content that its name does not fit.
   *
   * @param from the peer.
   */
  async takePiece(from: string, name: BlobName, piece: BlobPiece): Promise<void> {
    const key = `${from}/${name.jobId}/${name.sha256}`;
    const whole = this.#assembly.add(key, piece, performance.now());
    if (whole !== undefined) await this.putLocally(name, whole);
  }

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

  /** A part of the copy here, for a peer. */
  async givePiece(name: BlobName, offset: number): Promise<BlobPiece | undefined> {
    const file = this.#ports.fileName(name);
    const bytes = this.#read?.file === file ? this.#read.bytes : await this.getLocally(name);
    if (bytes === undefined) return undefined;
    if (bytes.length > PIECE_BYTES && this.#read?.file !== file) {
      clearTimeout(this.#read?.timer);
      const timer = setTimeout(() => {
        this.#read = undefined;
      }, READ_KEPT_MS).unref();
      this.#read = { file, bytes, timer };
    }
    return { size: bytes.length, offset, bytes: bytes.subarray(offset, offset + PIECE_BYTES) };
  }

  /** @throws {DamagedError} it is not as it was written; it was set aside. */
  async getLocally(name: BlobName): Promise<Uint8Array | undefined> {
    const file = this.#ports.fileName(name);
    return (await this.#open(file))?.bytes;
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
   * Goes through all local copies once, one at a time.
   *
   * @param paced called with the size of each: waits as long as the caller likes.
   */
  async repair(
    signal: AbortSignal,
    paced: (bytes: number) => Promise<unknown> = async () => {},
  ): Promise<RepairCounts> {
    const { files, log } = this.#ports;
    const count = { given: 0, dropped: 0, damaged: 0, failed: 0 };
    const jobs = new Map<string, boolean>();
    for await (const file of files.list()) {
      if (signal.aborted) break;
      try {
        const copy = await this.#open(file);
        if (copy === undefined) continue;
        await paced(copy.bytes.length);
        await this.#look(file, copy, jobs, count);
      } catch (error) {
        if (error instanceof DamagedError) {
          count.damaged++;
          continue;
        }
        count.failed++;
        log.debug("blob not repaired", { error });
      }
    }
    return count;
  }

  /** Where the copy belongs, and whether those have it. */
  async #look(
    file: string,
    { name, bytes }: { readonly name: BlobName; readonly bytes: Uint8Array },
    jobs: Map<string, boolean>,
    count: RepairCounts,
  ): Promise<void> {
    const { files, self } = this.#ports;
    let exists = jobs.get(name.jobId);
    if (exists === undefined) {
      exists = await this.#ports.jobExists(name.jobId);
      if (jobs.size >= JOBS_KNOWN_MAX) jobs.clear();
      jobs.set(name.jobId, exists);
    }
    if (!exists) {
      await files.delete(file);
      count.dropped++;
      return;
    }
    const holders = (await this.#members(name)).slice(0, BLOB_COPIES);
    for (const holder of holders) {
      const to = { nodeId: holder.nodeId, address: holder.address };
      if (holder.nodeId === self.nodeId || (await this.#ports.callHas(to, name))) continue;
      await this.#putTo(holder, name, bytes);
      count.given++;
    }
    const isHolder = holders.some((holder) => holder.nodeId === self.nodeId);
    // A copy here stands in for those of servers that are away.
    const wanted = Math.min(BLOB_COPIES, this.#ports.staying() ?? BLOB_COPIES);
    if (!isHolder && holders.length > 0 && holders.length >= wanted) {
      await files.delete(file);
      count.dropped++;
    }
  }

  /** A copy as it was written. @throws {DamagedError} it was set aside. */
  async #open(file: string): Promise<{ readonly name: BlobName; readonly bytes: Uint8Array } | undefined> {
    const { files, log } = this.#ports;
    try {
      const stored = await files.get(file);
      if (stored === undefined) return undefined;
      const head = Buffer.from(stored.subarray(0, HEAD_BYTES)).toString("latin1");
      const name = { jobId: head.slice(0, 32), sha256: head.slice(32) };
      const bytes = stored.subarray(HEAD_BYTES);
      if (hash("sha256", bytes, "hex") !== name.sha256) {
        throw new DamagedError(`blob ${file} does not match its hash`);
      }
      return { name, bytes };
    } catch (error) {
      if (!(error instanceof DamagedError)) throw error;
      log.error("blob set aside", { error });
      await files.setAside(file);
      this.#ports.repairWanted();
      throw error;
    }
  }

  async #putTo(member: Member, name: BlobName, bytes: Uint8Array): Promise<void> {
    if (member.nodeId === this.#ports.self.nodeId) return this.putLocally(name, bytes);
    const to = { nodeId: member.nodeId, address: member.address };
    for (const piece of BlobAssembly.piecesOf(bytes)) await this.#ports.callPut(to, { ...name, ...piece });
  }

  async #getFrom(member: Member, name: BlobName): Promise<Uint8Array | undefined> {
    const to = { nodeId: member.nodeId, address: member.address };
    const pieces: Uint8Array[] = [];
    for (let offset = 0; ; ) {
      const piece = await this.#ports.callGet(to, { ...name, offset });
      if (piece === undefined) return undefined;
      if (piece.size > BLOB_BYTES_MAX) throw new TooLargeError("a member offers a blob that is too large");
      pieces.push(piece.bytes);
      offset += piece.bytes.length;
      if (offset >= piece.size || piece.bytes.length === 0) {
        return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
      }
    }
  }

  /** Live members of the blob's group, in the order in which they hold. */
  async #members(name: BlobName): Promise<Member[]> {
    const { partitionCount, ring, self, replicationFactor } = this.#ports;
    const partition = partitionOf(`blob/${name.jobId}/${name.sha256}`, partitionCount);
    const position = positionOf(partition, partitionCount);
    const { members: wished } = await ring.placement(position, replicationFactor, this.#ports.leaving());
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
