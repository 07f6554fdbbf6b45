/**
 * A small web server on loopback for tests of the pool: each path is a function.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { LinkPolicy, RobotsTask, ScrapeTask } from "../../src/pool/task.ts";

export type Answers = Record<string, (request: IncomingMessage, response: ServerResponse) => void>;

export interface PageSite {
  readonly origin: string;
  /** Paths that were asked for, in order. */
  readonly asked: string[];
  page(path: string, changes?: Partial<ScrapeTask>): ScrapeTask;
  robots(changes?: Partial<RobotsTask>): RobotsTask;
  /** Resolves when `path` has been asked for `times` times in all. */
  askedFor(path: string, times?: number): Promise<void>;
  close(): Promise<void>;
}

export const onSite: LinkPolicy = {
  hosts: ["127.0.0.1"],
  include: [],
  exclude: [],
  follow: true,
  followNofollow: false,
  sortQuery: false,
  dropTracking: false,
  mergeSlashes: false,
  canonicalLinks: false,
};

export async function openSite(answers: Answers): Promise<PageSite> {
  const asked: string[] = [];
  const watchers = new Set<() => void>();
  const server = createServer((request, response) => {
    const path = request.url ?? "";
    asked.push(path);
    response.setHeader("content-type", "text/html");
    answers[path.split("?")[0]!]?.(request, response);
    for (const watch of watchers) watch();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    origin,
    asked,
    page: (path, changes) => ({
      kind: "page",
      url: origin + path,
      key: path,
      userAgent: "orbweaver-test/1.0",
      headers: {},
      timeoutMs: 20_000,
      maxBytes: 10_000_000,
      accept: ["text/html"],
      extract: { title: "h1" },
      formats: [],
      sitemapPart: null,
      links: null,
      allowAddresses: ["127.0.0.0/8"],
      keepBody: false,
      ...changes,
    }),
    robots: (changes) => ({
      kind: "robots",
      delayMs: 0,
      origin,
      userAgent: "orbweaver-test/1.0",
      timeoutMs: 5_000,
      allowAddresses: ["127.0.0.0/8"],
      ...changes,
    }),
    askedFor: (path, times = 1) =>
      new Promise((resolve) => {
        const watch = () => {
          if (asked.filter((other) => other === path).length < times) return;
          watchers.delete(watch);
          resolve();
        };
        watchers.add(watch);
        watch();
      }),
    close: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}
