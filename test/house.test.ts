/** The house as it stands keeps its rules, and each rule notices when it is broken. */
import { readdirSync, readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "tap";
import { blank, violations } from "./house-rules.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const NOT_OURS = [".git", "node_modules", ".tap", "data", "dist", ".profile"];

function readTree(): Map<string, string> {
  const tree = new Map<string, string>();
  const walk = (folder: string) => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      const name = relative(root, path).split(sep).join("/");
      if (NOT_OURS.includes(name) || name.endsWith(".log")) continue;
      if (entry.isDirectory()) walk(path);
      else if (name !== "package-lock.json") tree.set(name, readFileSync(path, "utf8"));
    }
  };
  walk(root);
  return tree;
}

test("the house keeps its rules", (t) => {
  const tree = readTree();
  // These state the rules, with what breaks them as examples.
  tree.set("test/house.test.ts", "");
  tree.set("test/house-rules.ts", "");

  t.ok(tree.size > 50);
  t.same(violations(tree), []);
  t.end();
});

test("the fixed files of the top are there", (t) => {
  const names = readdirSync(root);

  for (const name of [
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    ".editorconfig",
    ".ci",
    "package-lock.json",
  ])
    t.ok(names.includes(name), name);
  t.end();
});

const manifest = JSON.stringify({
  dependencies: { zod: "1", undici: "1", keyv: "1", koa: "1", "@koa/router": "1" },
});

/** Files, and what the rules say of the first of them. */
const broken: readonly [title: string, files: Record<string, string>, complaints: string[]][] = [
  [
    "a protocol imports the world",
    { "src/ring/ring.ts": 'import type { Store } from "../store/store.ts";\n' },
    ["ring may not import src/store/store.ts"],
  ],
  [
    "replication imports more of the ring than identifiers",
    {
      "src/replication/replica.ts":
        'import { Ring } from "../ring/ring.ts";\nimport { pointOf } from "../ring/identifier.ts";\n',
    },
    ["replication may not import src/ring/ring.ts"],
  ],
  [
    "a protocol writes the log",
    {
      "src/frontier/frontier.ts":
        'import { JobSpec } from "../job/job-spec.ts";\nimport type { Log } from "../log.ts";\n',
    },
    ["frontier may not import src/log.ts"],
  ],
  [
    "an adapter imports an adapter",
    { "src/vault/vault.ts": 'import {\n  type Store,\n} from "../store/store.ts";\n' },
    ["vault may not import src/store/store.ts"],
  ],
  [
    "an adapter imports a protocol, lazily",
    { "src/peer/router.ts": 'export const load = () => import("../ring/message.ts");\n' },
    ["peer may not import src/ring/message.ts"],
  ],
  [
    "an adapter reads settings",
    { "src/fetcher/fetcher.ts": 'import { x } from "../config.ts";\n' },
    ["fetcher may not import src/config.ts"],
  ],
  [
    "a worker imports the node",
    { "workers/scrape.ts": 'import { Node } from "../src/node/node.ts";\n' },
    ["workers may not import src/node/node.ts"],
  ],
  [
    "a worker imports more of the frontier",
    { "workers/scrape.ts": 'import { verdictOf } from "../src/frontier/verdict.ts";\n' },
    ["workers may not import src/frontier/verdict.ts"],
  ],
  [
    "the SDK reaches past the edge",
    { "src/sdk/client.ts": 'import { Node } from "../node/node.ts";\n' },
    ["sdk may not import src/node/node.ts"],
  ],
  [
    "the node knows its faces",
    { "src/node/node.ts": 'import { app } from "../edge/app.ts";\n' },
    ["node may not import src/edge/app.ts"],
  ],
  [
    "the product imports a test",
    { "src/node/node.ts": 'import { x } from "../../test/fixture/site.ts";\n' },
    ["imports test/fixture/site.ts: tests stay outside"],
  ],
  [
    "a protocol imports Node",
    { "src/job/budget.ts": 'import { readFileSync } from "node:fs";\n' },
    ["a protocol may not import node:fs"],
  ],
  [
    "a protocol draws from node:crypto",
    { "src/ring/arc.ts": 'import { createHash, randomInt } from "node:crypto";\n' },
    ["of node:crypto, a protocol may only hash: randomInt"],
  ],
  [
    "a package leaves its room",
    { "src/node/node.ts": 'import Keyv from "keyv";\n' },
    ["keyv belongs to store"],
  ],
  [
    "a family of packages leaves its room",
    { "src/peer/router.ts": 'import Router from "@koa/router";\n' },
    ["@koa/router belongs to edge"],
  ],
  [
    "a package that is not declared",
    { "src/node/node.ts": 'import leftPad from "left-pad";\n' },
    ["imports left-pad, which is no dependency"],
  ],
  [
    "a protocol reads the clock",
    { "src/ring/ring.ts": "export const now = () => Date.now();\n" },
    ["a protocol uses a clock (Date.now): hand it in"],
  ],
  [
    "a protocol reads the other clock",
    { "src/ring/ring.ts": "export const now = () => performance.now();\n" },
    ["a protocol uses a clock (performance): hand it in"],
  ],
  [
    "a protocol reads the date",
    { "src/job/stats.ts": "export const now = () => new Date().getTime();\n" },
    ["a protocol uses a clock (new Date()): hand it in"],
  ],
  [
    "a protocol throws dice",
    { "src/ring/ring.ts": "export const draw = () => Math.random();\n" },
    ["a protocol uses randomness (Math.random): hand it in"],
  ],
  [
    "a protocol sets a timer",
    { "src/ring/ring.ts": "export const later = (f: () => void) => setTimeout(f, 1);\n" },
    ["a protocol uses a timer (setTimeout): hand it in"],
  ],
  [
    "a protocol defers",
    { "src/ring/ring.ts": "export const later = (f: () => void) => queueMicrotask(f);\n" },
    ["a protocol uses a timer (queueMicrotask): hand it in"],
  ],
  [
    "a protocol knows its process",
    { "src/ring/ring.ts": "export const id = () => process.pid;\n" },
    ["a protocol uses the process (process.): hand it in"],
  ],
  [
    "a protocol waits",
    { "src/ring/ring.ts": "export const f = async () => {};\n" },
    ["a protocol uses waiting (async): hand it in"],
  ],
  [
    "a protocol promises",
    { "src/ring/ring.ts": "export type F = Promise<void>;\n" },
    ["a protocol uses a promise (Promise): hand it in"],
  ],
  [
    "a protocol prints",
    { "src/ring/ring.ts": "export const f = () => console.log(1);\n" },
    ["a protocol uses the outside (console.): hand it in"],
  ],
  [
    "a file of helpers",
    { "src/ring/ring-utils.ts": "" },
    ['"utils" says nothing: name it by the noun of the field'],
  ],
  [
    "a folder of services",
    { "src/node/services/x.ts": "" },
    ['"services" says nothing: name it by the noun of the field'],
  ],
  ["an index", { "src/ring/index.ts": "" }, ["no index files: import from the file that defines"]],
  ["a new room", { "src/stuff/x.ts": "" }, ["there is no such room in src"]],
  ["a new file at the top", { "notes.txt": "" }, ["there is no such place at the top of the house"]],
  [
    "a second reader of the environment",
    { "src/node/node.ts": "export const f = () => process.env.HOME;\n" },
    ["reads the environment: only src/config.ts does"],
  ],
  [
    "a re-export",
    { "src/ring/ring.ts": 'export { Arc } from "./arc.ts";\n' },
    ["exports what another file defines"],
  ],
  [
    "state in a module",
    { "src/node/node.ts": "let count = 0;\nexport const next = () => count++;\n" },
    ["keeps state in the module: let count"],
  ],
  ["an effect at import", { "src/node/node.ts": "start();\n" }, ["does something when imported: start();"]],
  ["a lonely test", { "test/ring/ring.test.ts": 'test.only("x", () => {});\n' }, ["runs one test only"]],
  [
    "a skipped test",
    { "test/ring/ring.test.ts": 'test("x", { skip: true }, () => {});\n' },
    ["leaves a test out"],
  ],
  [
    "something left for later",
    { "src/node/node.ts": "// TODO: more\n" },
    ["leaves something for later: TODO"],
  ],
  [
    "a document that is elsewhere",
    { "src/node/node.ts": "// see plans.md, section 3\n" },
    ["names a document that is not here: plans.md"],
  ],
  [
    "a place on one machine",
    { "README.md": "look at /home/me\n" },
    ["names a place on one machine: /home/me"],
  ],
  [
    "how it was made",
    { "src/node/node.ts": "/** For issue 12. */\n" },
    ["speaks of how it was made: issue 12"],
  ],
];

for (const [title, files, complaints] of broken) {
  test(`noticed: ${title}`, (t) => {
    const path = Object.keys(files)[0]!;

    t.same(
      violations(new Map([...Object.entries(files), ["package.json", manifest]])),
      complaints.map((complaint) => `${path}: ${complaint}`),
    );
    t.end();
  });
}

test("prose and strings break no rule, and words inside other words neither", (t) => {
  const tree = new Map([
    [
      "src/ring/ring.ts",
      `/** Never calls Date.now(), and awaits nothing: see setTimeout. */
import { hash } from "node:crypto";
export class Ring {
  // process.env is read elsewhere
  readonly performanceMs = "await Math.random()";
  processed(row: { async?: boolean; process: number }) {
    return \`console.log \${row.process} setTimeout\` + /Promise"/.source + hash("sha256", 'x');
  }
}
`,
    ],
    ["package.json", manifest],
  ]);

  t.same(violations(tree), []);
  t.end();
});

test("blanking keeps code and lines, and drops comments and strings", (t) => {
  t.equal(blank('a("x//y") // z\n/* b */ c', "strings"), 'a("    ")     \n        c');
  t.equal(blank('a("x//y") // z', "nothing"), 'a("x//y")     ');
  t.equal(blank(`\`q\${ f({a: \`in\`}) }w\`;g`, "strings"), `\` \${ f({a: \`  \`}) } \`;g`);
  t.equal(blank("x = /[\"/]/.test(y) / 2 // '", "strings"), "x =       .test(y) / 2     ");
  t.end();
});
