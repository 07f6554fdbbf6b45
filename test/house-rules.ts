/**
 * The rules of the house, checked on texts alone: who may import whom, what the
 * protocols must not touch, how things may be called.
 *
 * Text is enough, since the formatter leaves few ways to write an import. A
 * scanner blanks comments, and strings where they are not wanted, so that prose
 * breaks no rule.
 */

/** Path from the root, with slashes, to text. */
export type SourceTree = ReadonlyMap<string, string>;

interface Room {
  /** Folders of src, or single files, that it may import beside its own and `OPEN_FILES`. */
  readonly imports: readonly string[];
  readonly isProtocol?: true;
}

const protocol = (...imports: string[]): Room => ({ imports, isProtocol: true });
const world = (...imports: string[]): Room => ({ imports });

const PROTOCOLS = ["ring", "replication", "robots", "extraction", "job", "frontier"];
const WORLD = ["store", "vault", "fetcher", "peer", "identity", "pool", "sandbox", "renderer"];

const ROOMS: Readonly<Record<string, Room>> = {
  ring: protocol(),
  replication: protocol("ring/identifier.ts"),
  robots: protocol(),
  extraction: protocol(),
  job: protocol("extraction"),
  frontier: protocol("job", "robots"),
  store: world(),
  vault: world(),
  fetcher: world(),
  peer: world(),
  identity: world(),
  pool: world(),
  sandbox: world(),
  renderer: world(),
  node: { imports: [...PROTOCOLS, ...WORLD, "config.ts", "metrics.ts"] },
  // Faces. The edge serves what node offers, and signs people in with identity.
  edge: { imports: ["node", "identity", "job", "config.ts", "metrics.ts"] },
  sdk: { imports: ["edge", "job"] },
  client: { imports: ["sdk", "job", "config.ts"] },
  // Commands that run servers need node and edge; first starts and restarts need what lies in a data directory.
  // Rules are tried in the terminal, on a page that a server has fetched.
  cli: { imports: ["sdk", "node", "edge", "job", "extraction", "config.ts"] },
  // The scraping process. It finds links, so it needs their canonical form and the scope of a job.
  workers: {
    imports: [
      "fetcher",
      "extraction",
      "robots",
      "sandbox",
      // What it and its server say to each other.
      "pool/task.ts",
      "pool/scraping-message.ts",
      "frontier/canonical-url.ts",
      "job/scope.ts",
    ],
  },
};

/** What everyone may import. */
const OPEN_FILES = ["errors.ts"];
/** What everyone but the protocols may import. */
const WORLD_FILES = ["log.ts"];
const ROOT_FILES = ["config.ts", "errors.ts", "log.ts", "metrics.ts"];

/** Pure packages, and the parts of Node that only compute. */
const PROTOCOL_PACKAGES = [
  "zod",
  "htmlparser2",
  "css-select",
  "domhandler",
  "domutils",
  "dom-serializer",
  "entities",
  "tldts",
  "re2js",
  "json-p3",
  "node:crypto",
  "node:assert/strict",
];
const CRYPTO_NAMES = ["hash", "createHash", "createHmac"];

/** Where types of these packages may be known; everywhere else they stay unseen. */
const PACKAGE_HOMES: Readonly<Record<string, readonly string[]>> = {
  koa: ["edge"],
  "@koa/": ["edge"],
  "koa-": ["edge"],
  "@trpc/server": ["peer", "edge"],
  "@trpc/client": ["peer", "sdk"],
  superjson: ["edge", "sdk"],
  keyv: ["store"],
  "classic-level": ["store"],
  // To the web, and by the fast link between servers.
  undici: ["fetcher", "peer", "sdk"],
  piscina: ["workers"],
  jsonwebtoken: ["identity"],
  "@peculiar/x509": ["identity"],
  commander: ["cli"],
  pino: ["log.ts"],
};

const IMPURE: readonly [RegExp, string][] = [
  [/\bDate\.now\b|\bnew Date\(\s*\)/, "a clock"],
  [/(?<![.\w$])performance\b/, "a clock"],
  [/\bMath\.random\b|\brandomBytes\b|\brandomUUID\b|\bgetRandomValues\b/, "randomness"],
  [/(?<![.\w$])(?:setTimeout|setInterval|setImmediate|queueMicrotask)\b/, "a timer"],
  [/(?<![.\w$])process\b\s*[.[]/, "the process"],
  [/(?<![.\w$])(?:await|async)\b(?!\s*[?:])/, "waiting"],
  [/(?<![.\w$])Promise\b/, "a promise"],
  [/(?<![.\w$])(?:console|fetch|globalThis)\b\s*[.([]/, "the outside"],
];

/** Where code begins in a template literal. */
const HOLE = "$" + "{";

const FORBIDDEN_WORDS = ["util", "common", "helper", "manager", "service", "handler"];

const TOP_LEVEL = [
  ".ci",
  ".editorconfig",
  ".gitattributes",
  ".gitignore",
  ".npmrc",
  ".taprc",
  "CHANGELOG.md",
  "CONTRIBUTING.md",
  "LICENSE",
  "README.md",
  "biome.json",
  "deploy",
  "package-lock.json",
  "package.json",
  "src",
  "test",
  "tsconfig.json",
  "workers",
];

/** What breaks the rules, each as `path: what and why`, in the order of paths. */
export function violations(tree: SourceTree): string[] {
  const found: string[] = [];
  for (const [path, text] of [...tree].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    for (const problem of problemsOf(path, text, tree)) found.push(`${path}: ${problem}`);
  }
  return found;
}

function* problemsOf(path: string, text: string, tree: SourceTree): Generator<string> {
  yield* problemsOfPlace(path);
  yield* problemsOfProse(text, tree);
  if (!/\.(ts|js)$/.test(path)) return;
  const code = blank(text, "strings");
  if (path.startsWith("test/")) {
    yield* problemsOfTest(code);
    return;
  }
  yield* problemsOfImports(path, text, tree);
  yield* problemsOfEffects(path, code);
  const room = roomOf(path);
  if (ROOMS[room]?.isProtocol) {
    for (const [pattern, what] of IMPURE) {
      const match = pattern.exec(code);
      if (match !== null) yield `a protocol uses ${what} (${match[0].trim()}): hand it in`;
    }
  }
}

function* problemsOfPlace(path: string): Generator<string> {
  const parts = path.split("/");
  if (!TOP_LEVEL.includes(parts[0]!)) yield "there is no such place at the top of the house";
  if (parts[0] === "src") {
    const isRoom = parts.length > 2 && parts[1]! in ROOMS;
    const isRootFile = parts.length === 2 && ROOT_FILES.includes(parts[1]!);
    if (!isRoom && !isRootFile) yield "there is no such room in src";
  }
  for (const part of parts) {
    const words = part
      .replace(/\..*$/, "")
      .toLowerCase()
      .split(/[^a-z]+/);
    const word = words.find((w) => FORBIDDEN_WORDS.includes(w.replace(/s$/, "")));
    if (word !== undefined) yield `"${word}" says nothing: name it by the noun of the field`;
  }
  if (/^index\.[jt]s$/.test(parts.at(-1)!)) yield "no index files: import from the file that defines";
}

function* problemsOfProse(text: string, tree: SourceTree): Generator<string> {
  for (const [name] of text.matchAll(/(?<![\w/*.-])[\w-]+\.md\b/g)) {
    const isKnown = [...tree.keys()].some((path) => path === name || path.endsWith(`/${name}`));
    if (!isKnown) yield `names a document that is not here: ${name}`;
  }
  const place = /(?<![\w.~-])\/(?:work|home|Users|root)\/\w+/.exec(text);
  if (place !== null) yield `names a place on one machine: ${place[0]}`;
  const mark = /\b(?:TODO|FIXME|XXX|HACK)\b/.exec(text);
  if (mark !== null) yield `leaves something for later: ${mark[0]}`;
  const ticket = /\b(?:issue|ticket|milestone|sprint) #?\d+\b/i.exec(text);
  if (ticket !== null) yield `speaks of how it was made: ${ticket[0]}`;
}

function* problemsOfTest(code: string): Generator<string> {
  const only = /\b(?:t|test)\.only\b|\bonly:\s*true\b/.exec(code);
  if (only !== null) yield "runs one test only";
  const skip = /\b(?:t|test)\.(?:skip|todo)\b|\b(?:skip|todo):/.exec(code);
  if (skip !== null) yield "leaves a test out";
}

function* problemsOfEffects(path: string, code: string): Generator<string> {
  if (path !== "src/config.ts" && /\bprocess\s*\.\s*env\b/.test(code)) {
    yield "reads the environment: only src/config.ts does";
  }
  if (
    /^export\s+(?:\*|(?:type\s+)?\{[^}]*\})\s*(?:as\s+\w+\s*)?from\b/m.test(code) &&
    path !== "src/sdk/client.ts"
  ) {
    yield "exports what another file defines";
  }
  const state = /^(?:export )?(?:let|var) \w+/m.exec(code);
  if (state !== null && path.startsWith("src/")) yield `keeps state in the module: ${state[0]}`;
  // Entries of processes and threads are there for their effects.
  if (path.startsWith("src/cli/") || path.startsWith("workers/")) return;
  const effect = /^(?:await |void |new |if |for |try |[a-zA-Z_$][\w.$]*\()/m.exec(code);
  if (effect !== null) yield `does something when imported: ${lineAt(code, effect.index)}`;
}

function* problemsOfImports(path: string, text: string, tree: SourceTree): Generator<string> {
  const room = roomOf(path);
  const rules = ROOMS[room];
  for (const { specifier, names } of importsOf(text)) {
    if (!specifier.startsWith(".")) {
      yield* problemsOfPackage(room, rules, specifier, names, tree);
      continue;
    }
    const target = resolve(path, specifier);
    const targetRoom = roomOf(target);
    if (targetRoom === room) continue;
    if (target.startsWith("test/")) {
      yield `imports ${target}: tests stay outside`;
      continue;
    }
    const inSrc = target.replace(/^src\//, "");
    const open = [...OPEN_FILES, ...(rules?.isProtocol ? [] : WORLD_FILES)];
    const isOpen = open.includes(inSrc) || rules === undefined;
    const isAllowed = rules?.imports.some((i) => i === inSrc || i === targetRoom) ?? false;
    if (!isOpen && !isAllowed) yield `${room} may not import ${target}`;
  }
}

function* problemsOfPackage(
  room: string,
  rules: Room | undefined,
  specifier: string,
  names: readonly string[],
  tree: SourceTree,
): Generator<string> {
  const name = specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");
  const known = tree.get("package.json");
  if (known !== undefined && !name.startsWith("node:")) {
    const { dependencies } = JSON.parse(known) as { dependencies?: Record<string, string> };
    if (!(name in (dependencies ?? {}))) yield `imports ${name}, which is no dependency`;
  }
  if (rules?.isProtocol) {
    if (!PROTOCOL_PACKAGES.includes(specifier)) yield `a protocol may not import ${specifier}`;
    const impure = specifier === "node:crypto" ? names.find((n) => !CRYPTO_NAMES.includes(n)) : undefined;
    if (impure !== undefined) yield `of node:crypto, a protocol may only hash: ${impure}`;
  }
  const homes = Object.entries(PACKAGE_HOMES).find(
    ([prefix]) => name === prefix || (/[/-]$/.test(prefix) && name.startsWith(prefix)),
  )?.[1];
  if (homes !== undefined && !homes.includes(room)) yield `${name} belongs to ${homes.join(", ")}`;
}

interface ImportStatement {
  readonly specifier: string;
  /** What is imported by name, without aliases and `type`. */
  readonly names: readonly string[];
}

function importsOf(text: string): ImportStatement[] {
  const code = blank(text, "nothing");
  const found: ImportStatement[] = [];
  for (const [, clause = "", specifier] of code.matchAll(
    /^(?:import|export)\b([\w\s{},*$]*?\bfrom\b|(?=\s*["']))\s*["']([^"']+)["']/gm,
  )) {
    const names = (/\{([^}]*)\}/.exec(clause)?.[1] ?? "")
      .split(",")
      .map((name) =>
        name
          .trim()
          .replace(/^type\s+/, "")
          .replace(/\s+as\s.*$/, ""),
      )
      .filter((name) => name !== "");
    const isWhole = clause !== "" && !clause.includes("{");
    found.push({ specifier: specifier!, names: isWhole ? ["*"] : names });
  }
  for (const [, specifier] of code.matchAll(/\bimport\(\s*["']([^"']+)["']\s*\)/g)) {
    found.push({ specifier: specifier!, names: ["*"] });
  }
  return found;
}

/** `ring` for src/ring/…, `config.ts` for src/config.ts, `workers` for workers/…. */
function roomOf(path: string): string {
  const parts = path.split("/");
  return parts[0] === "src" ? parts[1]! : parts[0]!;
}

function resolve(from: string, specifier: string): string {
  const parts = from.split("/").slice(0, -1);
  for (const step of specifier.split("/")) {
    if (step === "..") parts.pop();
    else if (step !== ".") parts.push(step);
  }
  return parts.join("/");
}

function lineAt(text: string, index: number): string {
  return text.slice(index).split("\n", 1)[0]!.trim().slice(0, 60);
}

/**
 * The text with comments, and strings too when asked for, made blank; newlines
 * stay. Of template literals, the code in `${}` is kept.
 */
export function blank(text: string, alsoBlank: "strings" | "nothing"): string {
  let out = "";
  let at = 0;
  // Depth of braces of each `${` that is open, innermost last.
  const holes: number[] = [];
  const take = (end: number, keep: boolean) => {
    const piece = text.slice(at, end);
    out += keep ? piece : piece.replace(/[^\n]/g, " ");
    at = end;
  };
  const keepStrings = alsoBlank === "nothing";
  const template = () => {
    let end = at;
    while (end < text.length && text[end] !== "`" && !text.startsWith(HOLE, end))
      end += text[end] === "\\" ? 2 : 1;
    take(end, keepStrings);
    if (text[at] === "`") take(at + 1, true);
    else if (at < text.length) {
      take(at + 2, true);
      holes.push(0);
    }
  };
  while (at < text.length) {
    const character = text[at]!;
    const rest = text.slice(at, at + 2);
    if (rest === "//") take(endOf(text, at, "\n"), false);
    else if (rest === "/*") take(endOf(text, at + 2, "*/") + 2, false);
    else if (character === '"' || character === "'") {
      let end = at + 1;
      while (end < text.length && text[end] !== character) end += text[end] === "\\" ? 2 : 1;
      take(at + 1, true);
      take(end, keepStrings);
      take(end + 1, true);
    } else if (character === "`") {
      take(at + 1, true);
      template();
    } else if (character === "/" && /(?:^|[=(,:;!&|?{}[+\n]|=>|return)\s*$/.test(out.slice(-20))) {
      const end = /^\/(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\[\n])+\/[a-z]*/.exec(text.slice(at))?.[0].length ?? 1;
      take(at + end, keepStrings);
    } else if (character === "{" && holes.length > 0) {
      holes[holes.length - 1]!++;
      take(at + 1, true);
    } else if (character === "}" && holes.length > 0 && holes[holes.length - 1]!-- === 0) {
      holes.pop();
      take(at + 1, true);
      template();
    } else take(at + 1, true);
  }
  return out;
}

function endOf(text: string, from: number, mark: string): number {
  const end = text.indexOf(mark, from);
  return end < 0 ? text.length : end;
}
