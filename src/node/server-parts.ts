/** The parts of one server, set up from the bottom to the top and connected. */
import { setTimeout as pause } from "node:timers/promises";
import type { ServerSettings } from "../config.ts";
import type { Log } from "../log.ts";
import { Pool } from "../pool/pool.ts";
import { openServerStore } from "../store/server-store.ts";
import { Naming } from "../vault/naming.ts";
import { Administration } from "./administration.ts";
import { Admission } from "./admission.ts";
import { AuditLog } from "./audit-log.ts";
import { keepBlobs } from "./blob-keeping.ts";
import type { BlobRepair } from "./blob-repair.ts";
import { BriefChannel } from "./brief-channel.ts";
import { type Clock, systemClock } from "./clock.ts";
import { ClockWatch } from "./clock-watch.ts";
import { ClusterEntries } from "./cluster-entries.ts";
import { ClusterView, type Readiness } from "./cluster-view.ts";
import { ContactBook } from "./contact-book.ts";
import { CrawlDriver } from "./crawl-driver.ts";
import { Enrolment } from "./enrolment.ts";
import { ExpirySweep } from "./expiry-sweep.ts";
import { ClusterJobs } from "./jobs.ts";
import { KeyLayout } from "./key-layout.ts";
import { KeyValues } from "./key-values.ts";
import { LeaderQuestions } from "./leader-questions.ts";
import { LockKeeper } from "./lock-keeper.ts";
import { Locks } from "./locks.ts";
import type { Credentials } from "./membership.ts";
import { ownStatus } from "./own-status.ts";
import type { NodeStatus } from "./peer-contract.ts";
import { openPeerPort, peerCredentials } from "./peer-port.ts";
import { PeerReception } from "./peer-reception.ts";
import { RoutedRegisters } from "./registers.ts";
import { ReplicaDriver } from "./replica-driver.ts";
import { RingDriver } from "./ring-driver.ts";
import { Roster } from "./roster.ts";
import { Scrub } from "./scrub.ts";
import type { ServerState } from "./server-state.ts";
import { StoreCare } from "./store-care.ts";
import { SystemEntries } from "./system-entries.ts";
import { Tidings } from "./tidings.ts";
import { ValueWatch } from "./value-watch.ts";

/** Goodbyes that are under way get this long. */
const GOODBYE_MS = 100;
export interface ServerParts {
  readonly ring: RingDriver;
  readonly replicas: ReplicaDriver;
  readonly crawl: CrawlDriver;
  readonly registers: RoutedRegisters;
  readonly layout: KeyLayout;
  readonly values: KeyValues;
  readonly valueWatch: ValueWatch;
  readonly locks: Locks;
  readonly jobs: ClusterJobs;
  readonly view: ClusterView;
  readonly administration: Administration;
  readonly audit: AuditLog;
  readonly roster: Roster;
  readonly entries: ClusterEntries;
  readonly accounts: SystemEntries;
  readonly enrolment: Enrolment;
  readonly book: ContactBook;
  readonly care: StoreCare;
  readonly clockWatch: ClockWatch;
  readonly scrub: Scrub;
  /** Rejects when the scraping process does not come up. */
  readonly poolStarted: Promise<void>;
}

/** What the parts tell the server, and ask it. */
export interface ServerHooks {
  state(): NodeStatus["state"];
  readiness(): Readiness;
  /** Use these from now on. */
  renewed(credentials: Credentials): void;
  /** Member `by` has seen a later start of this node than its directory knows of, or knows that it was removed. */
  stale(by: string, reason: string): void;
}

/**
 * @param closing gets how to close each part as soon as it is open.
 * @throws {UsageError} the peer port can't be bound, or the store can't be opened.
 */
export async function setUpParts(
  state: ServerState,
  settings: ServerSettings,
  log: Log,
  closing: AsyncDisposableStack,
  hooks: ServerHooks,
): Promise<ServerParts> {
  const { directory, vault, membership, addresses } = state;
  const { nodeId, partitions: partitionCount, replicationFactor } = membership;
  const startedMs = performance.now();
  const { random } = Math;
  const { ringSuccessors, suspectAfterMs, leaderTimeoutMs, replaceAfterMs } = settings;

  const book = await ContactBook.open(directory, log);
  closing.defer(() => book.close());
  const reception = new PeerReception(log);
  const { transport, self } = await openPeerPort(state, log, {
    instances: book.instances,
    reception,
    closing,
    stale: hooks.stale,
  });

  const cipher = vault.cipher();
  // Whoever never had a neighbour holds the only copies.
  const mayLose = () => book.contacts.length > 0 || membership.contacts.length > 0;
  const { store, firstSerial, lost } = await openServerStore(directory, cipher, mayLose());
  closing.defer(() => store.close());
  if (lost !== undefined) {
    log.error("the store was set aside and is fetched again", lost);
  }
  const naming = new Naming(vault.namingSecret);
  const layout = new KeyLayout(naming, partitionCount);

  const ring: RingDriver = new RingDriver({
    self,
    send: (to, message) => transport.send(to, "ring", message),
    random,
    log,
    settings: { ringSuccessors, suspectAfterMs },
    contacts: book.contacts,
    onContacts: (contacts) => book.keep(contacts),
    led: {
      outgoing: (peer) => tidings.outgoing(peer),
      incoming: (peer, incarnation, bytes, tookMs) => tidings.incoming(peer, incarnation, bytes, tookMs),
    },
  });
  const brief = new BriefChannel({ log, send: (to, bytes) => transport.send(to, "brief", bytes) });
  const clockWatch: ClockWatch = new ClockWatch({
    nodeId,
    clock: systemClock,
    ring,
    changed: (off) => replicas.passOver(off),
    log,
  });
  clockWatch.start();
  closing.defer(() => clockWatch.stop());
  const clock: Clock = { ...systemClock, wall: clockWatch.wall };
  const replicas = new ReplicaDriver({
    self,
    wall: clock.wall,
    partitionCount,
    store,
    firstSerial,
    digestKey: naming.digestKey,
    random,
    log,
    settings: { replicationFactor, leaderTimeoutMs, replaceAfterMs },
    ring,
    send: (to, message) => {
      if (!brief.send(to, message)) transport.send(to, "replication", message);
    },
  });
  closing.defer(() => replicas.stop());
  const care = new StoreCare({ directory, store, replicas, mayLose, log });
  closing.defer(() => care.stop());

  const questions = new LeaderQuestions({
    clock: systemClock,
    log,
    send: (to, bytes) => brief.sendBytes(to, bytes),
    operate: (partition, operation) => replicas.operate(partition, operation),
    call: (to, question, timeoutMs) =>
      transport.call(to, "operate", question, { timeoutMs, isWait: question.operation.kind === "watch" }),
  });
  const registers: RoutedRegisters = new RoutedRegisters({
    self,
    partitionCount,
    replicationFactor,
    requestTimeoutMs: settings.requestTimeoutMs,
    random,
    replicas,
    ring,
    callOperate: (to, question, timeoutMs) => questions.ask(to, question, timeoutMs),
    callCrawl: (to, request, timeoutMs) => transport.call(to, "crawl", request, { timeoutMs }),
    crawlLocally: (request) => crawl.request("self", request),
  });
  const lockKeeper = new LockKeeper({
    layout,
    operate: (partition, operation) => replicas.operate(partition, operation),
    clock,
  });
  const locks = new Locks({
    layout,
    leaders: registers,
    here: (request) => lockKeeper.request(request),
    there: (to, request, timeoutMs) =>
      transport.call(to, "lock", request, {
        timeoutMs,
        isWait: request.kind === "acquire" && request.waitMs > 0,
      }),
    timeoutMs: settings.requestTimeoutMs,
  });
  const entries = new ClusterEntries(registers, layout);
  const roster = await Roster.open(entries, directory, log);
  closing.defer(() => roster.stop());
  const tidings = new Tidings({ wall: systemClock.wall, clockWatch, roster, replicas });
  const { blobs, repair } = keepBlobs({
    self,
    membership,
    directory,
    cipher,
    naming,
    layout,
    registers,
    transport,
    ring,
    replicas,
    roster,
    log,
  });
  closing.defer(() => repair.stop());

  const scrub = new Scrub({
    store,
    replicas,
    blobs,
    directory,
    intervalMs: settings.scrubIntervalMs,
    log,
  });
  closing.defer(() => scrub.stop());

  const expirySweep = new ExpirySweep({
    layout,
    leads: (partition) => replicas.leads(partition) !== undefined,
    operate: (partition, operation) => replicas.operate(partition, operation),
    clock,
    log,
  });
  closing.defer(() => expirySweep.stop());
  expirySweep.start();

  const pool = new Pool({ threads: settings.scrapeThreads, log });
  closing.defer(() => pool.stop());
  const poolStarted = pool.start();
  poolStarted.catch(() => {}); // Waited for after the slower steps beside it.
  const crawl: CrawlDriver = new CrawlDriver({
    self,
    partitionCount,
    naming,
    registers,
    replicas,
    ring,
    pool,
    clock,
    call: (to, request, timeoutMs) => transport.call(to, "crawl", request, { timeoutMs }),
    send: (to, message) => transport.send(to, "crawl", message),
    blobs,
    allowAddresses: settings.allowAddresses,
    log,
  });
  closing.defer(() => crawl.stop());

  const admission = new Admission({
    entries,
    cluster: membership,
    namingSecret: vault.namingSecret,
    ring,
    log,
  });
  const { zone } = self;
  const enrolment = new Enrolment({
    directory,
    vault,
    membership,
    addresses,
    zone,
    entries,
    log,
    renewed: (credentials) => {
      transport.renew(peerCredentials(credentials));
      hooks.renewed(credentials);
    },
  });
  closing.defer(() => enrolment.stop());

  const status = (options: { readonly partitions: boolean }): NodeStatus => ({
    ...ownStatus({ self, addresses, ring, replicas, crawl, care, scrub, registers }, options),
    state: hooks.state(),
    uptimeMs: Math.round(performance.now() - startedMs),
    epochMs: Date.now(),
    blobs: roster.leaving.has(nodeId) ? blobs.countSoon() : null,
  });
  const view = new ClusterView({
    self,
    cluster: membership,
    ring,
    admission,
    roster,
    readiness: hooks.readiness,
    local: status,
    ask: (to, input, timeoutMs) => transport.call(to, "status", input, { timeoutMs }),
  });

  const audit = new AuditLog(registers, layout);
  const administration = new Administration({
    self,
    entries,
    audit,
    roster,
    ring,
    log,
    partitions: () => view.partitions(),
    holdings: (of, asked, timeoutMs) =>
      of.nodeId === nodeId
        ? replicas.holdings(asked.partitions, asked.counted)
        : transport.call(of, "holdings", asked, { timeoutMs }),
    recoverAt: async (of, decided, timeoutMs) =>
      of.nodeId === nodeId
        ? replicas.recover(decided.partition, decided)
        : transport.call(of, "recover", decided, { timeoutMs }),
    tellRosterChanged: async (to, timeoutMs) => {
      await transport.call(to, "rosterChanged", null, { timeoutMs });
    },
  });

  const heed = () => {
    book.instances.remove(roster.removed);
    replicas.dismiss(roster.leaving);
    repair.ringChanged();
  };
  roster.on("changed", heed);
  heed();
  connect({ ring, replicas, questions, crawl, repair, lockKeeper });
  closing.defer(async () => {
    reception.close();
    registers.stop();
    questions.stop();
    log.info("registers.stopped", registers.counts);
    await ring.leave();
    await pause(GOODBYE_MS);
    ring.stop();
  });
  reception.open({
    ring,
    replicas,
    brief,
    questions,
    crawl,
    blobs,
    repair,
    admission,
    roster,
    lockKeeper,
    status,
  });
  const jobs = new ClusterJobs({ naming, partitionCount, registers, blobs, clock });
  const accounts = new SystemEntries(registers, layout);
  return {
    ring,
    replicas,
    crawl,
    registers,
    layout,
    values: new KeyValues({ registers, layout }),
    valueWatch: new ValueWatch({ registers, layout }),
    locks,
    jobs,
    view,
    administration,
    audit,
    roster,
    entries,
    accounts,
    enrolment,
    book,
    care,
    clockWatch,
    scrub,
    poolStarted,
  };
}

/** What a part tells, and whom it concerns. */
function connect(parts: {
  readonly ring: RingDriver;
  readonly replicas: ReplicaDriver;
  readonly questions: LeaderQuestions;
  readonly crawl: CrawlDriver;
  readonly repair: BlobRepair;
  readonly lockKeeper: LockKeeper;
}): void {
  const { ring, replicas, questions, crawl, repair, lockKeeper } = parts;
  let watched = "";
  const watch = () => {
    const peers = replicas.peers().sort();
    if (peers.join() === watched) return;
    watched = peers.join();
    ring.watch(peers);
  };
  ring.on("suspected", (nodeId) => {
    replicas.suspected(nodeId);
    questions.lost(nodeId);
    crawl.suspected(nodeId);
  });
  ring.on("alive", (nodeId) => replicas.alive(nodeId));
  ring.on("changed", () => {
    replicas.ringChanged();
    repair.ringChanged();
    watch();
  });
  replicas.on("leading", (partition, ballot) => {
    ring.ledChanged();
    crawl.leading(partition, ballot);
  });
  replicas.on("stopped", (partition) => {
    ring.ledChanged();
    crawl.stopped(partition);
    lockKeeper.stopped(partition);
  });
  // Groups change without a word of the ring, when their leader makes them grow.
  replicas.on("groups", () => {
    watch();
    repair.ringChanged();
  });
}
