/** What people get wrong: one message that says what to do, the right exit code, and nothing left behind. */

import { once } from "node:events";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "tap";
import { orbweaver } from "./command.ts";

/** Several at once: each is a process that mostly waits for its start. */
const AT_ONCE = 4;

test("wrong usage is one clear message, exit code 2, and leaves nothing", async (t) => {
  const cwd = t.testdir({
    "wrong.json": JSON.stringify({ seeds: ["https://a.example/"], scope: { maxPages: "many" } }),
    "unknown.json": JSON.stringify({ seeds: ["https://a.example/"], colour: "red" }),
    "selector.json": JSON.stringify({ seeds: ["https://a.example/"], extract: { price: "div[" } }),
    "list.json": "[]",
    "broken.json": '{"seeds": [',
    "rules.json": '{"title": {"css": 5}}',
    "profile.json": '{"servers": "all"}',
    "settings.json": '{"edgePort": "high"}',
    "text.txt": "no token",
    full: { "something.txt": "" },
  });
  const rows: [args: string, says: RegExp][] = [
    ["", /Usage: orbweaver/],
    ["crawl", /missing required argument 'url-or-spec'/],
    ["crawls https://a.example/", /unknown command 'crawls'[\s\S]*Did you mean crawl\?/],
    ["crawl https://a.example/ --max-page 5", /unknown option '--max-page'[\s\S]*Did you mean --max-pages\?/],
    ["crawl https://a.example/ --max-pages five", /--max-pages[\s\S]*whole number from 1/],
    ["crawl https://a.example/ --max-pages 0", /--max-pages[\s\S]*whole number from 1/],
    ["crawl https://a.example/ extra", /too many arguments/],
    ["crawl ftp://a.example/", /only http and https/],
    ["crawl http://", /seeds\.0: must be an absolute http or https URL/],
    ["crawl nowhere.json", /neither an http\(s\) URL nor a file/],
    ["crawl broken.json", /broken\.json: is no JSON/],
    ["crawl list.json", /a job spec is a JSON object/],
    ["crawl wrong.json", /scope\.maxPages: /],
    ["crawl unknown.json", /colour: there is no such field/],
    ["crawl selector.json", /extract\.price: "div\[" is no CSS selector/],
    ["crawl https://a.example/ --extract rules.json", /extract\.title/],
    ["crawl https://a.example/ --extract none.json", /none\.json: can't be read/],
    ["crawl https://a.example/ -o out.xml", /must end in \.ndjson, \.json or \.csv/],
    ["crawl https://a.example/ -o nowhere/out.json", /can't be written there/],
    ["crawl https://a.example/ --allow-addresses nonsense", /--allow-addresses: must be address ranges/],
    ["crawl https://a.example/ --data d --servers https://127.0.0.1:1", /server of this command's own/],
    ["scrape", /missing required argument 'url'/],
    ["scrape nonsense", /nonsense: is neither/],
    ["jobs list", /no cluster is known here[\s\S]*npm start/],
    ["jobs list --status done", /Allowed choices are queued, running/],
    ["jobs list --servers http://127.0.0.1:8443 --token x", /write https:\/\/HOST:PORT/],
    [
      "jobs list --servers https://127.0.0.1:8443",
      /--servers does not say who signs in: add --api-key KEY or --token/,
    ],
    ["jobs list --token x", /name the servers too/],
    ["jobs list --profile none.json", /none\.json: can't be read/],
    ["jobs list --profile profile.json", /profile\.json: is no profile/],
    ["results", /missing required argument 'job'/],
    ["cluster look", /unknown command 'look'[\s\S]*Did you mean lookup\?/],
    ["up --nodes 0", /whole number from 1/],
    ["up --data text.txt", /text\.txt: can't be used/],
    ["server --data new", /holds no server yet[\s\S]*--bootstrap/],
    ["server --data full --bootstrap", /is not empty/],
    ["server --data text.txt --bootstrap", /text\.txt/],
    ["server --bootstrap --join a:1 --join-token-file text.txt", /not both/],
    ["server --join a:1", /--join-token-file: is needed to join/],
    ["server --data new --join 127.0.0.1:1 --join-token-file text.txt", /not a join token/],
    ["server --data new --join 127.0.0.1:1 --join-token-file none.txt", /none\.txt/],
    ["server --data new --edge-port 99999 --bootstrap", /--edge-port: /],
    ["server --data new --master-key secret --bootstrap", /unknown option '--master-key'/],
    ["server --config settings.json --bootstrap", /settings\.json: edgePort: /],
    ["server --config none.json --bootstrap", /none\.json: can't be read/],
    ["server --data new --log-level loud --bootstrap", /--log-level: /],
  ];
  const before = filesIn(cwd);

  const waiting = [...rows];
  const work = async () => {
    for (let row = waiting.shift(); row !== undefined; row = waiting.shift()) {
      const [args, says] = row;
      const { code, stdout, stderr } = await orbweaver(
        args.split(" ").filter((arg) => arg !== ""),
        { cwd },
      );
      t.equal(code, 2, args);
      t.match(stderr, says, args);
      t.notMatch(stderr, /^\s+at .*:\d+:\d+/m, `${args}: no stack`);
      t.equal(stdout, "", args);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));

  t.same(filesIn(cwd), before);
});

test("an unknown variable is an error, not a silent default", async (t) => {
  const cwd = t.testdir({});

  const { code, stderr } = await orbweaver(["server", "--data", "new", "--bootstrap"], {
    cwd,
    env: { ORBWEAVER_EDGEPORT: "8443" },
  });

  t.equal(code, 2);
  t.match(stderr, /ORBWEAVER_EDGEPORT: there is no such setting/);
});

test("a port in use is said with the flag that chooses another, and nothing is made", async (t) => {
  const cwd = t.testdir({});
  const other = createServer().listen(0, "127.0.0.1");
  await once(other, "listening");
  t.teardown(() => other.close());
  const bound = other.address();
  const port = String(bound !== null && typeof bound === "object" ? bound.port : 0);

  for (const side of ["edge", "peer"]) {
    const flags =
      side === "edge" ? ["--edge-port", port, "--peer-port", "0"] : ["--edge-port", "0", "--peer-port", port];
    const { code, stderr } = await orbweaver(["server", "--data", "new", "--bootstrap", ...flags], { cwd });
    t.equal(code, 2);
    t.match(stderr, new RegExp(`port ${port} is in use[\\s\\S]*--${side}-port`));
  }
  const up = await orbweaver(
    ["up", "--nodes", "1", "--data", "ring", "--edge-port", port, "--peer-port", "0"],
    { cwd },
  );
  t.equal(up.code, 2);
  t.match(up.stderr, new RegExp(`server-1 did not start[\\s\\S]*port ${port} is in use`));
});

test("a server of a ring that can't read its own folder says which file and what to do", async (t) => {
  const cwd = t.testdir({ ring: { "server-1": { "identity.json": '{"stale' } } });

  const { code, stderr } = await orbweaver(
    ["up", "--nodes", "1", "--data", "ring", "--edge-port", "0", "--peer-port", "0"],
    { cwd },
  );

  t.equal(code, 2);
  t.match(stderr, /server-1 did not start: .*identity\.json can't be decoded; restore it from a copy/);
});

test("no server at the given address is exit code 1, and says where it was looked for", async (t) => {
  const cwd = t.testdir({});

  const { code, stderr } = await orbweaver(
    ["jobs", "list", "--servers", "https://127.0.0.1:1", "--token", "x"],
    { cwd },
  );

  t.equal(code, 1);
  t.match(stderr, /^orbweaver: no server answers at https:\/\/127\.0\.0\.1:1: are they running\?\n$/);
});

test("an older Node is told which one is needed and how to get it", async (t) => {
  const cwd = t.testdir({});
  const pretend = 'Object.defineProperty(process,"versions",{value:{...process.versions,node:"20.11.1"}})';

  const { code, stderr } = await orbweaver(["--version"], {
    cwd,
    nodeFlags: ["--import", `data:text/javascript,${encodeURIComponent(pretend)}`],
  });

  t.equal(code, 1);
  t.equal(
    stderr,
    "orbweaver: needs Node 24 or later, and this is Node 20.11.1: run it with the Node that the project brings along: npm run orbweaver -- …\n",
  );
});

test("help and version are no errors", async (t) => {
  const cwd = t.testdir({});
  mkdirSync(join(cwd, "data"));
  writeFileSync(join(cwd, "data", "client.json"), "nonsense that help does not need");

  for (const args of [["--help"], ["crawl", "--help"], ["server", "--help"], ["--version"]]) {
    const { code, stdout, stderr } = await orbweaver(args, { cwd });
    t.equal(code, 0, args.join(" "));
    t.equal(stderr, "");
    t.match(stdout, /\S/);
  }
});

/** A folder that was made for nothing may stay, as long as it is empty. */
function filesIn(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name))
    .sort();
}
