/**
 * A member that speaks as it pleases: it has the certificate and the name of a real
 * one, whose process is down, and sends whatever bytes a test wants to a peer port.
 */
import { readFile } from "node:fs/promises";
import { Agent, request } from "node:https";
import { join } from "node:path";
import { z } from "zod";
import { readCredentials } from "../../src/node/membership.ts";
import { type PeerSelf, packHead } from "../../src/peer/frame.ts";
import { readMasterKey } from "../../src/vault/master-key.ts";
import { Vault } from "../../src/vault/vault.ts";

const ANSWER_MS_MAX = 10_000;

export interface Credentials {
  /** PEM, the issuing authority's behind its own. */
  readonly certificate: string;
  readonly key: string;
}

/** What lies in the directory of a server that is down; nothing is changed there. */
export async function readMember(path: string): Promise<{
  readonly self: PeerSelf;
  readonly node: Credentials;
  readonly edge: Credentials;
}> {
  const directory = {
    path,
    read: async (name: string) => readFile(join(path, name)).catch(() => undefined),
    write: async () => {},
  };
  const masterKey = await readMasterKey({}, directory, { create: false });
  const credentials = readCredentials(await Vault.open(directory, masterKey));
  const identity = z
    .object({
      clusterId: z.string(),
      nodeId: z.string(),
      incarnation: z.int(),
      instances: z.array(z.string()),
    })
    .parse(JSON.parse(await readFile(join(path, "identity.json"), "utf8")));
  const { clusterId, nodeId, incarnation } = identity;
  const [instance = "", ...earlierInstances] = identity.instances.toReversed();
  return {
    self: { clusterId, nodeId, incarnation, instance, earlierInstances },
    node: { certificate: credentials.nodeCertificate, key: credentials.nodeKey },
    edge: { certificate: credentials.edgeCertificate, key: credentials.edgeKey },
  };
}

/** Nobody listens there. */
const NOWHERE = { host: "127.0.0.1", port: 1 };

export function headOf(self: PeerSelf): Buffer {
  return packHead(self, NOWHERE);
}

export interface PostOptions {
  readonly path?: string;
  readonly method?: string;
  /** In pieces of this size, without telling the length before. */
  readonly pieceBytes?: number;
  /** Told, instead of the true one. */
  readonly contentLength?: number;
}

export class StrayMember {
  readonly #port: number;
  readonly #ca: string;
  readonly #credentials: Credentials | undefined;
  readonly #agent: Agent;

  /** @param peer `host:port` of whom it speaks to. @param credentials none: it shows no certificate. */
  constructor(peer: string, ca: string, credentials: Credentials | undefined) {
    this.#port = Number(peer.slice(peer.lastIndexOf(":") + 1));
    this.#ca = ca;
    this.#credentials = credentials;
    this.#agent = new Agent({ keepAlive: true, maxSockets: 4 });
  }

  /**
   * @returns status 0: the connection was ended without an answer; `reason` tells how.
   * @throws {Error} neither answer nor end within ANSWER_MS_MAX.
   */
  post(body: Buffer, options: PostOptions = {}): Promise<{ status: number; body: Buffer; reason: string }> {
    const { path = "/rpc", method = "POST", pieceBytes, contentLength } = options;
    return new Promise((resolve, reject) => {
      let status = 0;
      const pieces: Buffer[] = [];
      const timer = setTimeout(() => {
        asked.destroy();
        reject(new Error(`neither an answer nor an end within ${ANSWER_MS_MAX} ms`));
      }, ANSWER_MS_MAX);
      const settle = (reason: string) => {
        clearTimeout(timer);
        resolve({ status, body: Buffer.concat(pieces), reason });
      };
      const asked = request(
        {
          host: "127.0.0.1",
          port: this.#port,
          path,
          method,
          agent: this.#agent,
          ca: this.#ca,
          ...(this.#credentials === undefined
            ? {}
            : { cert: this.#credentials.certificate, key: this.#credentials.key }),
          ...(pieceBytes === undefined
            ? { headers: { "content-length": contentLength ?? body.length } }
            : { headers: { "transfer-encoding": "chunked" } }),
        },
        (response) => {
          status = response.statusCode ?? 0;
          response.on("data", (piece: Buffer) => pieces.push(piece));
          response.on("end", () => settle(""));
          response.on("error", (error) => settle(error.message));
        },
      );
      asked.on("error", (error) => settle(error.message));
      if (pieceBytes === undefined) asked.end(body);
      else {
        for (let at = 0; at < body.length; at += pieceBytes) asked.write(body.subarray(at, at + pieceBytes));
        asked.end();
      }
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}
