/** How the clients of a benchmark ask our servers: REST, signed in once. */
import { z } from "zod";
import { partitionOf } from "../../src/ring/identifier.ts";
import type { Ground } from "./kv-ground.ts";
import { HttpCaller, type HttpRequest } from "./kv-load.ts";

const SIGN_IN_MS_MAX = 10_000;
const signInSchema = z.object({ accessToken: z.string() });

export class Edges {
  readonly edges: readonly string[];
  readonly ca: string;
  readonly #user: string;
  readonly #token: string;

  private constructor(ground: Ground, token: string) {
    this.edges = ground.servers.map(({ edge }) => edge);
    this.ca = ground.cluster.ca;
    this.#user = ground.cluster.admin.username;
    this.#token = token;
  }

  static async signedIn(ground: Ground): Promise<Edges> {
    const caller = new HttpCaller(ground.servers[0]!.edge, ground.cluster.ca);
    const { username, password } = ground.cluster.admin;
    const { status, body } = await caller.call(
      {
        method: "POST",
        path: "/v1/auth/token",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ username, password }),
      },
      SIGN_IN_MS_MAX,
    );
    await caller.close();
    if (status !== 200) throw new Error(`signing in was answered with ${status}: ${body.toString()}`);
    return new Edges(ground, signInSchema.parse(JSON.parse(body.toString())).accessToken);
  }

  write(namespace: string, key: string, value: Buffer): HttpRequest {
    return {
      method: "PUT",
      path: pathOf(namespace, key),
      headers: { authorization: `Bearer ${this.#token}`, "content-type": "application/octet-stream" },
      body: value,
    };
  }

  /** Linearizable. */
  read(namespace: string, key: string): HttpRequest {
    return {
      method: "GET",
      path: pathOf(namespace, key),
      headers: { authorization: `Bearer ${this.#token}` },
    };
  }

  partitionOf(namespace: string, key: string, partitionCount: number): number {
    return partitionOf(`kv/${this.#user}/${namespace}/${key}`, partitionCount);
  }
}

function pathOf(namespace: string, key: string): string {
  return `/v1/kv/${namespace}/${key}`;
}
