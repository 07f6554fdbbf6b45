/** `extract --try`, from the words of the rules to what they find in a page. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "tap";
import { orbweaver } from "./command.ts";

test("rules are tried on a page, and each tells what it found", async (t) => {
  const site = createServer((request, response) => {
    if (request.url === "/robots.txt") return void response.writeHead(404).end();
    if (request.url === "/list") {
      return void response.setHeader("content-type", "application/json").end('{"items":[{"n":1},{"n":2}]}');
    }
    response.setHeader("content-type", "text/html");
    response.end('<main><h1>Lamp</h1><p class="price">1.234,50 €</p><pre lang="sh">ls</pre></main>');
  });
  await new Promise<void>((resolve) => site.listen(0, "127.0.0.1", resolve));
  t.teardown(() => site.close());
  const origin = `http://127.0.0.1:${(site.address() as AddressInfo).port}`;
  const cwd = t.testdir({
    "rules.json":
      '{"name": "//h1", "price": {"css": ".price", "type": "number", "locale": "de"}, "no": {"css": "h2", "required": true}}',
  });
  const run = (...args: string[]) => orbweaver([...args, "--allow-addresses", "127.0.0.0/8"], { cwd });

  const html = await run("extract", "--try", origin, "rules.json");
  const json = await run(
    "extract",
    "--try",
    `${origin}/list`,
    '{"n": {"jsonPath": "$..n", "all": true}}',
    "--json",
  );
  const scraped = await run("scrape", origin, "--format", "markdown,content,tables,structured", "--json");

  t.equal(html.code, 3, html.stderr);
  t.match(html.stdout, /name: 1 match, first <h1>Lamp<\/h1>\n {2}= "Lamp"\n/);
  t.match(html.stdout, /price: 1 match, first <p class="price">1\.234,50 €<\/p>\n {2}= 1234\.5\n/);
  t.match(html.stdout, /no: 0 matches\n {2}= null\n {2}! is required, but nothing matches "h2"\n/);
  t.equal(json.code, 0, json.stderr);
  t.match(JSON.parse(json.stdout), {
    found: [{ field: "n", count: 2, first: "1" }],
    data: { n: [1, 2] },
    errors: [],
  });
  t.match(JSON.parse(scraped.stdout), {
    markdown: "# Lamp\n\n1.234,50 €\n\n```sh\nls\n```",
    content: "Lamp\n1.234,50 €\nls",
    tables: [],
    structured: { jsonLd: [], microdata: [], rdfa: [], openGraph: {} },
  });
});

test("a wrong rule is told by its path before anything is fetched", async (t) => {
  const cwd = t.testdir({});
  const table: [rules: string, message: RegExp][] = [
    ['{"a": "//h1["}', /extract\.a: "\/\/h1\[" is no XPath/],
    ['{"a": {"css": "b", "typ": "number"}}', /extract\.a\.typ: there is no such field/],
    ['{"a": {"css": "b", "transform": ["trim", {"replace": "/(/"}]}}', /extract\.a\.transform\.1: /],
    ['{"a"', /is no JSON/],
    ["missing.json", /can't be read/],
  ];

  for (const [rules, message] of table) {
    const { code, stderr } = await orbweaver(["extract", "--try", "http://127.0.0.1:1/", rules], { cwd });
    t.equal(code, 2, rules);
    t.match(stderr, message);
  }
});
