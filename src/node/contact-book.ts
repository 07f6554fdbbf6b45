/**
 * Whom this server knew, kept for its next start: nodes to enter the ring by, and
 * which start of each was seen last, so that an old copy of one is recognised.
 */
import { z } from "zod";
import { DamagedError } from "../errors.ts";
import type { Log } from "../log.ts";
import { InstanceBook, type InstanceRecord, instanceRecordSchema } from "../peer/instance-book.ts";
import { type ContactRecord, memberSchema } from "../ring/member.ts";
import type { DataDirectory } from "../store/data-directory.ts";

const keptSchema = z.discriminatedUnion("kind", [
  memberSchema.extend({ kind: z.literal("contact"), seenMs: z.number() }),
  instanceRecordSchema.extend({ kind: z.literal("instance") }),
]);
type Kept = z.output<typeof keptSchema>;

export class ContactBook {
  /** As they were when this server stopped; `seenMs` since the Unix epoch. */
  readonly contacts: readonly ContactRecord[];
  readonly instances: InstanceBook;
  readonly #directory: DataDirectory;
  readonly #log: Log;
  #latest: readonly ContactRecord[];
  #isStale = false;
  #writing: Promise<void> | undefined;

  private constructor(directory: DataDirectory, kept: readonly Kept[], log: Log) {
    const contacts: ContactRecord[] = [];
    const instances: InstanceRecord[] = [];
    for (const { kind, ...record } of kept) {
      if (kind === "contact" && "seenMs" in record) contacts.push(record);
      else if (kind === "instance") instances.push(record);
    }
    this.#directory = directory;
    this.#log = log;
    this.contacts = contacts;
    this.#latest = contacts;
    this.instances = new InstanceBook(instances);
  }

  /** What can't be read is set aside: others that know this server find it all the same. */
  static async open(directory: DataDirectory, log: Log): Promise<ContactBook> {
    try {
      return new ContactBook(directory, await directory.readContacts(keptSchema), log);
    } catch (error) {
      if (!(error instanceof DamagedError)) throw error;
      await directory.setContactsAside();
      log.error("contacts damaged", { error, quarantine: directory.quarantinePath });
      return new ContactBook(directory, [], log);
    }
  }

  /** Written soon; of several while one write is under way only the last. */
  keep(contacts: readonly ContactRecord[]): void {
    this.#latest = contacts;
    this.#isStale = true;
    this.#writing ??= this.#write();
  }

  /** What is known now is on disk when it resolves, or was logged as not written. */
  async close(): Promise<void> {
    this.keep(this.#latest);
    await this.#writing;
  }

  async #write(): Promise<void> {
    try {
      while (this.#isStale) {
        this.#isStale = false;
        const kept: Kept[] = [
          ...this.#latest.map((record) => ({ kind: "contact" as const, ...record })),
          ...this.instances.export().map((record) => ({ kind: "instance" as const, ...record })),
        ];
        await this.#directory.writeContacts(kept);
      }
    } catch (error) {
      this.#log.warn("contacts not kept", { error });
    } finally {
      this.#writing = undefined;
    }
  }
}
