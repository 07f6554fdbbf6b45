/**
 * RFC 9309, rule by rule: what a file lets which crawler fetch. Each line of a
 * table is one case; `+` is allowed, `-` is not. Expected values were worked out by
 * hand from the text of the RFC.
 */
import { test } from "tap";
import { RobotsAccess } from "../../src/frontier/robots-access.ts";
import { RobotsFile } from "../../src/robots/robots-file.ts";

interface Sheet {
  readonly about: string;
  readonly file: string;
  /** `agent path` with `+` or `-` in front; the agent may be left out: `examplebot`. */
  readonly cases: readonly string[];
}

/** Section 2.2.1: the groups whose product token is the crawler's, else those of `*`. */
const GROUPS: readonly Sheet[] = [
  {
    about: "three groups, and one that names two crawlers",
    file: `
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
`,
    cases: [
      "- other /a.gif",
      "+ other /a.gif?b",
      "- other /example/",
      "- other /example/page.html",
      "+ other /example",
      "+ other /publications/",
      "+ other /publications/a.gif",
      "+ foobot /example/page.html",
      "+ foobot /example/allowed.gif",
      "- foobot /example/other.html",
      "- foobot /",
      "- foobot /publications/",
      "- barbot /example/page.html",
      "- bazbot /example/page.html",
      "+ barbot /example/other.html",
      "+ bazbot /a.gif",
      "+ quxbot /example/page.html",
      "+ quxbot /a.gif",
      "- qux /example/page.html",
      "- FooBot/2.1 /publications/",
      "- BARBOT /example/page.html",
    ],
  },
  {
    about: "groups of one crawler are one group, wherever they stand",
    file: `
User-agent: examplebot
Disallow: /first

User-agent: *
Disallow: /

User-agent: ExampleBot
Disallow: /second
Allow: /first/but

User-agent: other
Disallow: /third
`,
    cases: [
      "- /first",
      "+ /first/but",
      "- /second/page",
      "+ /third",
      "- other /third",
      "+ other /first",
      "- nobody /",
    ],
  },
  {
    about: "names share the rules that follow them, up to the next name behind a rule",
    file: `
User-agent: a
User-agent: examplebot

User-agent: b
Disallow: /x
User-agent: c
Disallow: /y
`,
    cases: ["- a /x", "- /x", "- b /x", "+ a /y", "+ c /x", "- c /y", "+ d /x"],
  },
  {
    about: "groups of `*` are one group too, and are not for those that are named",
    file: `
User-agent: *
Disallow: /one
User-agent: examplebot
Disallow: /own
User-agent: *
Disallow: /two
`,
    cases: ["- any /one", "- any /two", "+ any /own", "+ /one", "+ /two", "- /own"],
  },
  {
    about: "rules in front of the first name belong to nobody",
    file: `
Disallow: /
Allow: /x
User-agent: examplebot
Disallow: /y
`,
    cases: ["+ /", "- /y", "+ other /"],
  },
  {
    about: "records that are no rules stand between names without parting them",
    file: `
User-agent: examplebot
Crawl-delay: 3
Sitemap: https://example.org/s.xml
Host: example.org
Clean-param: a /b
User-agent: second
Disallow: /x
`,
    cases: ["- /x", "- second /x", "+ third /x"],
  },
  {
    about: "only names, no rules",
    file: "User-agent: examplebot\n\nUser-agent: *\nUser-agent: other",
    cases: ["+ /", "+ other /x", "+ third /x"],
  },
  {
    about: "a product token is letters, hyphens and underscores; what follows is no part of it",
    file: `
User-agent: example-bot_x/1.2 (like others)
Disallow: /x
User-agent: 9
Disallow: /y
User-agent:
Disallow: /z
`,
    cases: ["- example-bot_x /x", "+ example-bot /x", "+ example-bot_xy /x", "+ 9 /y", "+ examplebot /z"],
  },
];

/** Section 2.2.2: the most specific match by octets decides, allow at a tie. */
const RULES: readonly Sheet[] = [
  {
    about: "the longest match, whatever the order",
    file: `
User-agent: *
Allow: /folder/page
Disallow: /folder
Allow: /folder/page/open
Disallow: /folder/page/open/not
`,
    cases: [
      "+ /",
      "- /folder",
      "- /folder/",
      "- /folders",
      "+ /folder/page",
      "+ /folder/pages",
      "+ /folder/page/open",
      "- /folder/page/open/not",
      "- /folder/page/open/nothing",
      "+ /Folder",
    ],
  },
  {
    about: "allow and disallow of the same length",
    file: "User-agent: *\nDisallow: /a/b\nAllow: /a/b\nAllow: /c\nDisallow: /c\nDisallow: /d*\nAllow: /d*",
    cases: ["+ /a/b", "+ /a/b/c", "+ /c", "+ /d"],
  },
  {
    about: "wildcards count with their octets",
    file: `
User-agent: *
Allow: /p
Disallow: /
Allow: /page
Disallow: /*.htm
Allow: /$
`,
    cases: ["+ /p", "+ /page", "- /page.htm", "+ /page.xml", "- /x", "+ /", "- /x.htm"],
  },
  {
    about: "allow alone allows what is allowed anyway",
    file: "User-agent: *\nAllow: /a",
    cases: ["+ /a", "+ /b"],
  },
  {
    about: "empty patterns say nothing",
    file: "User-agent: *\nDisallow:\nAllow:\nDisallow: /x",
    cases: ["+ /", "- /x"],
  },
  {
    about: "everything",
    file: "User-agent: *\nDisallow: /",
    cases: ["- /", "- /a", "- /?q", "+ /robots.txt", "- /a/robots.txt", "- /robots.txt.old"],
  },
  {
    about: "robots.txt is always allowed, even when a rule names it",
    file: "User-agent: *\nDisallow: /robots.txt",
    cases: ["+ /robots.txt", "+ /robots.txt?x", "- /robots.txts", "+ /"],
  },
  {
    about: "a match begins at the beginning of the path",
    file: "User-agent: *\nDisallow: /b\nDisallow: c",
    cases: ["+ /a/b", "- /b/a", "+ /c", "+ /ac"],
  },
  {
    about: "the query belongs to it, the fragment does not",
    file: "User-agent: *\nDisallow: /find?q=\nDisallow: /*?print\nDisallow: /*&session=",
    cases: [
      "- /find?q=x",
      "+ /find",
      "+ /find?p=x",
      "- /page?print",
      "- /page?print=1#top",
      "+ /page#?print",
      "- /page?a=1&session=2",
      "+ /page?session=2",
    ],
  },
  {
    about: "the longest one decides among several with wildcards",
    file: "User-agent: *\nDisallow: /*/private*\nAllow: /*/private/but/this\nDisallow: /a*b*c*d",
    cases: [
      "- /x/private",
      "+ /x/private/but/this/one",
      "+ /private",
      "- /a1b2c3d4",
      "+ /a1c2b3d4",
      "- /abcd",
    ],
  },
];

/** Section 2.2.3: `*` is any octets, `$` the end. */
const CHARACTERS: readonly Sheet[] = [
  {
    about: "star",
    file: "User-agent: *\nDisallow: /path*file\nDisallow: /*/deep/*/x\nDisallow: */end",
    cases: [
      "- /pathfile",
      "- /path/to/file.txt",
      "+ /path/to/fil",
      "- /a/deep/b/x",
      "+ /a/deep/x",
      "- /a/deep//x",
      "- /end",
      "- /far/away/end/",
      "+ /far/away/en",
    ],
  },
  {
    about: "dollar",
    file: "User-agent: *\nDisallow: /*.php$\nDisallow: /exact$\nDisallow: /a*$",
    cases: [
      "- /x.php",
      "- /x/y.php",
      "+ /x.php?z",
      "+ /x.php5",
      "+ /x.PHP",
      "- /exact",
      "+ /exact/",
      "+ /exact?q",
      "- /abc?d",
    ],
  },
  {
    about: "the end is looked for at the end, and pieces don't overlap",
    file: "User-agent: *\nDisallow: /x*aba$\nDisallow: /yaa*aa$",
    cases: ["- /xaba", "- /xababa", "+ /xabab", "+ /yaaa", "- /yaaaa", "- /yaabaa"],
  },
  {
    about: "a dollar that is not last is a dollar, an escaped one always",
    file: "User-agent: *\nDisallow: /a$b\nDisallow: /c%24",
    cases: ["- /a$b", "- /a$bc", "+ /a", "- /c$", "- /c$d", "+ /c"],
  },
  {
    about: "an escaped star is a star",
    file: "User-agent: *\nDisallow: /a%2A\nDisallow: /b%2Ac$",
    cases: ["- /a*", "+ /ab", "- /b*c", "+ /bxc"],
  },
  {
    about: "comments end at the line",
    file: "# first\nUser-agent: * # all\nDisallow: /a#b\n#Disallow: /c\nDisallow: /d # Allow: /d",
    cases: ["- /a", "- /ab", "+ /c", "- /d"],
  },
];

/** Section 2.2.2: escapes of what needs none mean the same, octets outside ASCII are escaped. */
const ESCAPES: readonly Sheet[] = [
  {
    about: "UTF-8 in file and URL, escaped or not",
    file: "User-agent: *\nDisallow: /ü\nDisallow: /%C3%A9\nDisallow: /%e4%b8%ad\nDisallow: /😀",
    cases: [
      "- /ü",
      "- /%C3%BC",
      "- /%c3%bc",
      "- /é",
      "- /%c3%a9t",
      "- /中",
      "+ /国",
      "- /%F0%9F%98%80",
      "- /😀/x",
      "+ /u",
    ],
  },
  {
    about: "escapes of unreserved characters",
    file: "User-agent: *\nDisallow: /%61%2D%7E\nDisallow: /b-~.html\nDisallow: /c_d",
    cases: ["- /a-~", "- /%61-%7e", "- /b%2D%7E%2Ehtml", "- /c%5Fd", "+ /A-~"],
  },
  {
    about: "reserved characters escaped are other characters",
    file: "User-agent: *\nDisallow: /a%2Fb\nDisallow: /c/d\nDisallow: /e%3Ff\nDisallow: /g?h",
    cases: ["- /a%2fb", "+ /a/b", "- /c/d", "+ /c%2Fd", "- /e%3Ff", "+ /e?f", "- /g?h", "+ /g%3Fh"],
  },
];

/** Section 2.2 and 2.4: lines, as they come. */
const LINES: readonly Sheet[] = [
  { about: "CR LF", file: "User-agent: *\r\nDisallow: /x\r\n\r\nAllow: /x/y\r\n", cases: ["- /x", "+ /x/y"] },
  { about: "CR", file: "User-agent: *\rDisallow: /x\rAllow: /x/y", cases: ["- /x", "+ /x/y"] },
  { about: "no end of the last line", file: "User-agent: *\nDisallow: /x", cases: ["- /x"] },
  { about: "byte order mark", file: "\uFEFFUser-agent: *\nDisallow: /x", cases: ["- /x"] },
  {
    about: "blanks, tabs and any case",
    file: " \tUSER-AGENT :\t*\n   disALLOW:/x   \nALLOW   :   /x/y\t",
    cases: ["- /x", "+ /x/y"],
  },
  {
    about: "what is no record is passed over",
    file: "<html>\nUser-agent: *\n:::\n=\nDisallow: /x\nFoo: bar\nNoindex: /y\n\u0000\u0001",
    cases: ["- /x", "+ /y"],
  },
  { about: "an empty file", file: "", cases: ["+ /", "+ /x"] },
  { about: "nothing but comments", file: "# User-agent: *\n# Disallow: /", cases: ["+ /"] },
];

test("RFC 9309: what a file lets which crawler fetch", async (t) => {
  let cases = 0;
  for (const [section, sheets] of Object.entries({ GROUPS, RULES, CHARACTERS, ESCAPES, LINES })) {
    await t.test(section.toLowerCase(), async (t) => {
      for (const { about, file, cases: lines } of sheets) {
        for (const line of lines) {
          cases++;
          const words = line.split(" ");
          const [mark, agent, path] = words.length === 3 ? words : [words[0], "examplebot", words[1]];
          const allowed = new RobotsFile(file, agent!).isAllowed(`https://example.org${path}`);
          t.equal(allowed, mark === "+", `${about}: ${line}`);
        }
      }
    });
  }
  t.ok(cases >= 150, `${cases} cases`);
});

/** Section 2.3.1: what a crawler may do by how the request for the file ended. 429 is read more strictly than there. */
test("RFC 9309: access by the status of the answer", async (t) => {
  const file = "User-agent: *\nDisallow: /x";
  for (const [status, without, withCopy] of [
    [200, "disallowed", "disallowed"],
    [204, "disallowed", "disallowed"],
    // More than five redirects, or none that can be followed.
    [301, "allowed", "allowed"],
    [302, "allowed", "allowed"],
    [400, "allowed", "allowed"],
    [401, "allowed", "allowed"],
    [403, "allowed", "allowed"],
    [404, "allowed", "allowed"],
    [410, "allowed", "allowed"],
    [418, "allowed", "allowed"],
    [429, "wait", "disallowed"],
    [500, "wait", "disallowed"],
    [502, "wait", "disallowed"],
    [503, "wait", "disallowed"],
    [599, "wait", "disallowed"],
    // Unreachable.
    [0, "wait", "disallowed"],
  ] as const) {
    const fresh = new RobotsAccess("example.org", "https://example.org", 600_000);
    fresh.fetching();
    fresh.fetched(status, file, 0, 0.5);
    t.equal(fresh.ask("https://example.org/x", "examplebot", 1).kind, without, `${status}`);

    const known = new RobotsAccess("example.org", "https://example.org", 600_000);
    known.fetched(200, file, 0, 0.5);
    known.fetching();
    known.fetched(status, file, 86_400_000, 0.5);
    t.equal(known.ask("https://example.org/x", "examplebot", 86_400_001).kind, withCopy, `${status}, a copy`);
  }
});

/** Section 2.5: at least 500 KiB are read. */
test("RFC 9309: files of any size", async (t) => {
  const filler = "# nothing but a remark on this line\n";
  const head = `User-agent: *\n${filler.repeat(Math.floor((500 * 1024 - 100) / filler.length))}`;
  const within = new RobotsFile(`${head}Disallow: /last\n`, "examplebot");
  t.equal(within.isAllowed("https://example.org/last"), false, "a rule near the end of 500 KiB");
  const cutAt = 500 * 1024 - "Disallow: /".length;
  const cut = new RobotsFile(`${head.padEnd(cutAt - 1, "#")}\nDisallow: /only/this\n`, "examplebot");
  t.equal(cut.isAllowed("https://example.org/page"), true, "half a rule is none");
  const beyond = new RobotsFile(`${head.padEnd(500 * 1024, "#")}\nDisallow: /x\n`, "examplebot");
  t.equal(beyond.isAllowed("https://example.org/x"), true, "what is behind is not read");
});
