/**
 * Names to addresses, as far as the guard allows, remembered for a short while so that
 * the pages of one host share a question.
 */
import { lookup as systemLookup } from "node:dns";
import { isIP, type LookupFunction } from "node:net";
import type { AddressGuard } from "./address-guard.ts";

export class BlockedAddressError extends Error {
  readonly code = "BLOCKED_ADDRESS";
}

interface ResolvedAddress {
  readonly address: string;
  readonly family: number;
}

const REMEMBERED_MS = 10_000;
const REMEMBERED_MAX = 1_000;

export class GuardedResolver {
  readonly #guard: AddressGuard;
  /** Oldest first. */
  readonly #remembered = new Map<string, { addresses: Promise<ResolvedAddress[]>; untilMs: number }>();

  constructor(guard: AddressGuard) {
    this.#guard = guard;
  }

  /**
   * Allowed addresses of `host`, a name or a literal, at least one.
   *
   * @throws {BlockedAddressError} none of its addresses may be connected to.
   * @throws {Error} with the resolver's `code`, e.g. ENOTFOUND.
   */
  resolve(host: string): Promise<ResolvedAddress[]> {
    const nowMs = performance.now();
    const known = this.#remembered.get(host);
    if (known !== undefined && known.untilMs > nowMs) return known.addresses;

    const addresses = this.#ask(host);
    this.#remembered.delete(host);
    this.#remembered.set(host, { addresses, untilMs: nowMs + REMEMBERED_MS });
    if (this.#remembered.size > REMEMBERED_MAX) {
      for (const oldest of this.#remembered.keys()) {
        this.#remembered.delete(oldest);
        break;
      }
    }
    // A failure is told to those who wait for it, not remembered.
    addresses.catch(() => {
      if (this.#remembered.get(host)?.addresses === addresses) this.#remembered.delete(host);
    });
    return addresses;
  }

  /** In the form that sockets ask in. */
  readonly lookup: LookupFunction = (host, options, callback) => {
    this.resolve(host).then(
      (addresses) => {
        const family = options.family === 4 || options.family === 6 ? options.family : 0;
        const fitting = family === 0 ? addresses : addresses.filter((entry) => entry.family === family);
        const [first] = fitting;
        if (first === undefined) callback(Object.assign(new Error(host), { code: "ENOTFOUND" }), "", 0);
        else if (options.all === true) callback(null, fitting);
        else callback(null, first.address, first.family);
      },
      (error: NodeJS.ErrnoException) => callback(error, "", 0),
    );
  };

  async #ask(host: string): Promise<ResolvedAddress[]> {
    const family = isIP(host);
    const found = family !== 0 ? [{ address: host, family }] : await lookupAll(host);
    const allowed = found.filter(({ address }) => this.#guard.isAllowed(address));
    if (allowed.length === 0) throw new BlockedAddressError(`${host} is at no public address`);
    return allowed;
  }
}

function lookupAll(host: string): Promise<ResolvedAddress[]> {
  return new Promise((resolve, reject) => {
    systemLookup(host, { all: true }, (error, addresses) => {
      if (error === null) resolve(addresses);
      else reject(error);
    });
  });
}
