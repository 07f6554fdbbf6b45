/** What the histories of chaos are worth: right ones pass, what a client must never see does not. */
import { readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "tap";
import { type Act, type Ending, History } from "./history.ts";

const ok: Ending = { type: "ok" };
const saw = (value: string | null): Ending => ({ type: "ok", value });
const unknown: Ending = { type: "info", error: "UNAVAILABLE" };
const conflict: Ending = { type: "fail", isFound: true, error: "PRECONDITION_FAILED" };
const read: Act = { f: "read", key: "k" };
const write = (value: string): Act => ({ f: "write", key: "k", value });
const cas = (expected: string | null, next: string): Act => ({ f: "cas", key: "k", value: [expected, next] });
const remove: Act = { f: "delete", key: "k" };

/** One act after the other. */
const stories: readonly [string, readonly (readonly [Act, Ending])[], "linearizable" | "not linearizable"][] =
  [
    [
      "a write is read",
      [
        [write("a"), ok],
        [read, saw("a")],
      ],
      "linearizable",
    ],
    [
      "an old value",
      [
        [write("a"), ok],
        [write("b"), ok],
        [read, saw("a")],
      ],
      "not linearizable",
    ],
    [
      "a write that is lost",
      [
        [write("a"), ok],
        [read, saw(null)],
      ],
      "not linearizable",
    ],
    [
      "an unknown write may show",
      [
        [write("a"), unknown],
        [read, saw("a")],
      ],
      "linearizable",
    ],
    [
      "or not",
      [
        [write("a"), unknown],
        [read, saw(null)],
      ],
      "linearizable",
    ],
    [
      "or late",
      [
        [write("a"), unknown],
        [read, saw(null)],
        [read, saw("a")],
      ],
      "linearizable",
    ],
    [
      "but not go again by itself",
      [
        [write("a"), unknown],
        [read, saw("a")],
        [read, saw(null)],
      ],
      "not linearizable",
    ],
    [
      "a failed one must not show",
      [
        [write("a"), { type: "fail", error: "BUSY" }],
        [read, saw("a")],
      ],
      "not linearizable",
    ],
    [
      "two that both win",
      [
        [cas(null, "a"), ok],
        [cas(null, "b"), ok],
      ],
      "not linearizable",
    ],
    [
      "a conflict without a rival",
      [
        [write("a"), ok],
        [cas("a", "b"), conflict],
      ],
      "not linearizable",
    ],
    [
      "a conflict with one",
      [
        [write("a"), ok],
        [write("b"), ok],
        [cas("a", "c"), conflict],
      ],
      "linearizable",
    ],
    [
      "deleted and seen again",
      [
        [write("a"), ok],
        [remove, ok],
        [read, saw("a")],
      ],
      "not linearizable",
    ],
    [
      "nothing to delete, and yet there was",
      [
        [write("a"), ok],
        [remove, { type: "fail", isFound: false, error: "NOT_FOUND" }],
      ],
      "not linearizable",
    ],
  ];

for (const [title, story, verdict] of stories) {
  test(`judged: ${title}`, (t) => {
    const history = new History(1, undefined);

    for (const [act, ending] of story) history.begin(0, act)(ending);

    t.same(history.judge(1_000), [{ key: "k", verdict, calls: history.judge(1_000)[0]?.calls }]);
    t.end();
  });
}

test("acts that overlap may come in either order", (t) => {
  const history = new History(2, undefined);

  const endWrite = history.begin(0, write("a"));
  history.begin(1, read)(saw(null));
  history.begin(1, read)(saw("a"));
  endWrite(ok);

  t.match(history.judge(1_000), [{ verdict: "linearizable", calls: 3 }]);
  t.end();
});

test("the file has one act a line, and a process whose outcome is unknown goes on under another number", async (t) => {
  const file = join(tmpdir(), `orbweaver-history-${process.pid}.jsonl`);
  t.teardown(() => rm(file, { force: true }));
  const history = new History(3, file);

  history.begin(1, write("a"))(unknown);
  history.begin(1, cas("a", "b"))(ok);
  history.begin(1, read)(saw("b"));
  await history.close();

  const lines = (await readFile(file, "utf8")).trimEnd().split("\n");
  const told = lines.map((line) => JSON.parse(line) as { time: number });
  t.match(told, [
    { process: 1, type: "invoke", f: "write", key: "k", value: "a" },
    { process: 1, type: "info", f: "write", key: "k", value: "a", error: "UNAVAILABLE" },
    { process: 4, type: "invoke", f: "cas", key: "k", value: ["a", "b"] },
    { process: 4, type: "ok", f: "cas", key: "k", value: ["a", "b"] },
    { process: 4, type: "invoke", f: "read", key: "k", value: null },
    { process: 4, type: "ok", f: "read", key: "k", value: "b" },
  ]);
  t.ok(told.every(({ time }, i) => i === 0 || time > told[i - 1]!.time));
});
