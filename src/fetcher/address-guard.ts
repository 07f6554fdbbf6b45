/**
 * Which network addresses may be connected to.
 *
 * A page decides where a crawler goes next; it must not send it to the loopback
 * interface, the cloud's metadata address or the neighbours in a private network
 * (server-side request forgery). What counts is the address that the socket connects
 * to: names are judged by what they resolve to, at the time of connecting, and literals
 * in whatever spelling by the address they mean. Public unicast is open, anything else
 * only as far as the operator opened it.
 */
import ipaddr from "ipaddr.js";

type Address = ipaddr.IPv4 | ipaddr.IPv6;
type Range = [Address, number];

export class AddressGuard {
  readonly #open: readonly Range[];

  /**
   * @param allowAddresses CIDRs or single addresses that are open beside public unicast.
   * @throws {Error} when one is neither.
   */
  constructor(allowAddresses: readonly string[]) {
    this.#open = allowAddresses.map(readRange);
  }

  /** @param text an IPv4 or IPv6 address as the resolver or a socket gives it. */
  isAllowed(text: string): boolean {
    if (!ipaddr.isValid(text)) return false;
    // An IPv4 address in the clothes of IPv6 is that IPv4 address.
    const address = ipaddr.process(text);
    return isPublic(address) || this.#open.some(([base, bits]) => isWithin(address, base, bits));
  }
}

function readRange(text: string): Range {
  try {
    if (!text.includes("/")) {
      const address = ipaddr.process(text);
      return [address, address.kind() === "ipv4" ? 32 : 128];
    }
    return ipaddr.parseCIDR(text);
  } catch (cause) {
    throw new Error(`"${text}" is no address range; write e.g. 127.0.0.0/8 or fd00::/8`, { cause });
  }
}

function isWithin(address: Address, base: Address, bits: number): boolean {
  return address.kind() === base.kind() && address.match(base, bits);
}

const GLOBAL_UNICAST_V6 = ipaddr.IPv6.parse("2000::");

function isPublic(address: Address): boolean {
  if (address instanceof ipaddr.IPv4) return address.range() === "unicast";
  // The translation prefix of NAT64 stands for the IPv4 address in its last 32 bits (RFC 6052).
  if (address.range() === "rfc6052") {
    return new ipaddr.IPv4(address.toByteArray().slice(12)).range() === "unicast";
  }
  return address.range() === "unicast" && address.match(GLOBAL_UNICAST_V6, 3);
}
