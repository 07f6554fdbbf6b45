/**
 * Keeps this server's place in the cluster right: its certificates, renewed by
 * itself when two thirds of their time are over, and its member entry, which says
 * where it is. Looked at after each start and once a day.
 */
import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { NODE_CERTIFICATE_MS, readCertificate } from "../identity/certificate-authority.ts";
import type { Log } from "../log.ts";
import type { DataDirectory } from "../store/data-directory.ts";
import type { Vault } from "../vault/vault.ts";
import type { ClusterEntries, MemberRecord } from "./cluster-entries.ts";
import {
  type Credentials,
  issueCredentials,
  type Membership,
  readCredentials,
  replaceCredentials,
} from "./membership.ts";
import { type ListeningPlace, type ServerAddresses, writeHostPort } from "./server-addresses.ts";

const DAY_MS = 86_400_000;
const RETRY_MS = 5_000;
const ATTEMPTS_MAX = 3;
/** 10 of 30 days. */
const RENEW_BEFORE_MS = NODE_CERTIFICATE_MS / 3;

export interface EnrolmentParts {
  readonly directory: DataDirectory;
  readonly vault: Vault;
  readonly membership: Membership;
  readonly addresses: ServerAddresses;
  readonly zone: string;
  readonly entries: ClusterEntries;
  readonly log: Log;
  /** Use these from now on. */
  renewed(credentials: Credentials): void;
}

export class Enrolment {
  readonly #parts: EnrolmentParts;
  #timer: NodeJS.Timeout | undefined;
  #checking: Promise<void> = Promise.resolve();
  #isStopped = false;

  constructor(parts: EnrolmentParts) {
    this.#parts = parts;
  }

  /** Looks at once, and from then on by itself. */
  start(): void {
    if (this.#isStopped) return;
    this.#checking = this.#check();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    await this.#checking;
  }

  async #check(): Promise<void> {
    let nextMs = DAY_MS;
    try {
      await this.#renewWhenDue(Date.now());
      await this.#announce();
    } catch (error) {
      this.#parts.log.debug("enrolment not checked", { error });
      nextMs = RETRY_MS;
    }
    if (this.#isStopped) return;
    this.#timer = setTimeout(() => this.start(), nextMs);
    this.#timer.unref();
  }

  async #renewWhenDue(nowMs: number): Promise<void> {
    const { directory, vault, membership, addresses, entries, log } = this.#parts;
    const present = readCredentials(vault);
    const isDue =
      !isGood(present.nodeCertificate, addresses.peer, nowMs) ||
      !isGood(present.edgeCertificate, addresses.edge, nowMs);
    if (!isDue) return;
    const authority = await entries.read("authority");
    if (authority === undefined) return;
    const credentials = await issueCredentials(
      authority.record,
      {
        nodeId: membership.nodeId,
        nodeKey: present.nodeKey,
        edgeKey: present.edgeKey,
        peerHosts: addresses.peer.hosts,
        edgeHosts: addresses.edge.hosts,
      },
      nowMs,
    );
    await replaceCredentials(vault, directory, credentials);
    this.#parts.renewed(credentials);
    log.info("certificates renewed", { serial: readCertificate(credentials.nodeCertificate).serial });
  }

  async #announce(): Promise<void> {
    const { vault, membership, addresses, zone, entries, log } = this.#parts;
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
      const found = await entries.read("member", membership.nodeId);
      if (found === undefined) {
        log.warn("this server has no member entry", {});
        return;
      }
      const { record, version } = found;
      const wanted: MemberRecord = {
        nodeId: membership.nodeId,
        addresses: {
          peer: writeHostPort(addresses.peer.advertise),
          edge: writeHostPort(addresses.edge.advertise),
        },
        zone,
        serial: readCertificate(readCredentials(vault).nodeCertificate).serial,
        state: record.state === "joining" ? "active" : record.state,
      };
      if (isSame(record, wanted)) return;
      if (await entries.write([{ kind: "member", name: membership.nodeId, record: wanted, is: version }]))
        return;
    }
  }
}

/** Young enough, and valid for all names by which the server may be reached. */
function isGood(certificate: string, { hosts }: ListeningPlace, nowMs: number): boolean {
  const parsed = new X509Certificate(certificate);
  return (
    parsed.validToDate.getTime() - nowMs > RENEW_BEFORE_MS &&
    hosts.every((host) => (isIP(host) === 0 ? parsed.checkHost(host) : parsed.checkIP(host)) !== undefined)
  );
}

function isSame(a: MemberRecord, b: MemberRecord): boolean {
  return (
    a.addresses.peer === b.addresses.peer &&
    a.addresses.edge === b.addresses.edge &&
    a.zone === b.zone &&
    a.serial === b.serial &&
    a.state === b.state
  );
}
