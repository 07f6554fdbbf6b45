/**
 * The one call of a server that has no identity yet: `join`, to a member that the
 * join token names or that the operator gave, with the token's certificate and
 * nothing trusted but the token's root.
 */
import { UnavailableError } from "../errors.ts";
import { packHead } from "./frame.ts";
import { HttpsExchange, requireMember } from "./https-exchange.ts";
import { JOIN } from "./router.ts";
import { IntroductionWanted, RpcLink } from "./rpc-link.ts";
import type { PeerCertificate } from "./rpc-server.ts";
import type { PeerAddress } from "./transport.ts";

/**
 * @param options.token of the join token: PEM certificate chain, key and root.
 * @returns the member's answer, to be parsed by the caller.
 * @throws {UnavailableError} no answer in time, or no member of that cluster at the address.
 * @throws {ClusterError} what the member refused with.
 */
export async function callJoin(options: {
  readonly address: PeerAddress;
  readonly token: {
    readonly clusterId: string;
    readonly certificate: string;
    readonly key: string;
    readonly rootCertificate: string;
  };
  readonly identify: (certificate: Uint8Array) => PeerCertificate;
  readonly input: unknown;
  readonly timeoutMs: number;
}): Promise<unknown> {
  const { address, token, identify, input, timeoutMs } = options;
  const exchange = new HttpsExchange({
    address,
    credentials: () => token,
    verify: (certificate) => requireMember(identify(certificate), token.clusterId),
    closed: () => {}, // No frames travel here.
  });
  const nobody = {
    clusterId: token.clusterId,
    nodeId: "",
    incarnation: 0,
    instance: "",
    earlierInstances: [],
  };
  const head = packHead(nobody, { host: "", port: 0 });
  let connectionError: Error | undefined;
  const link = new RpcLink({
    exchange,
    head: () => head,
    instance: "any",
    lost: (error) => (connectionError = error),
    restarted: () => {},
  });
  try {
    return await new Promise((resolve, reject) => {
      link.call(JOIN, input, timeoutMs, (outcome) => {
        if (!(outcome instanceof Error)) resolve(outcome.output);
        else reject(refusal(address, connectionError ?? outcome));
      });
    });
  } finally {
    exchange.close();
  }
}

function refusal({ host, port }: PeerAddress, error: Error): Error {
  if (error instanceof IntroductionWanted || !("remedy" in error)) {
    return new UnavailableError(`${host}:${port} can't be joined: ${error.message}`, { cause: error });
  }
  return error;
}
