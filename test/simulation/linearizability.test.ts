/** The judge of histories itself: right ones pass, wrong ones don't. */
import { test } from "tap";
import { type Call, type Change, type Condition, judge, type Output } from "./linearizability.ts";

const written: Output = { kind: "written" };

function read(invoked: number, returned: number, values: Record<string, string | null>): Call {
  return {
    input: { kind: "read", keys: Object.keys(values) },
    output: { kind: "values", values: Object.values(values) },
    invoked,
    returned,
  };
}

function write(
  invoked: number,
  returned: number,
  changes: readonly Change[],
  output: Output | undefined = written,
  conditions: readonly Condition[] = [],
): Call {
  return { input: { kind: "write", conditions, changes }, output, invoked, returned };
}

const put = (value: string | null, key = "x"): Change[] => [{ key, value }];
const unknown = (
  invoked: number,
  changes: readonly Change[],
  conditions: readonly Condition[] = [],
): Call => ({
  input: { kind: "write", conditions, changes },
  output: undefined,
  invoked,
  returned: Number.POSITIVE_INFINITY,
});

const right: [string, Call[]][] = [
  ["nothing", []],
  ["absent at first", [read(1, 2, { x: null })]],
  ["a write, then a read", [write(1, 2, put("a")), read(3, 4, { x: "a" })]],
  [
    "a read beside a write sees the old one",
    [write(1, 6, put("a")), read(2, 3, { x: null }), read(4, 5, { x: "a" })],
  ],
  [
    "an unknown write that took effect late",
    [unknown(1, put("a")), read(2, 3, { x: null }), read(4, 5, { x: "a" })],
  ],
  ["an unknown write that never did", [unknown(1, put("a")), write(2, 3, put("b")), read(4, 5, { x: "b" })]],
  [
    "a compare-and-set after its value",
    [
      write(1, 2, put("a")),
      write(3, 4, put("b"), written, [{ key: "x", is: { value: "a" } }]),
      read(5, 6, { x: "b" }),
    ],
  ],
  [
    "a failed compare-and-set saw another value",
    [
      write(1, 2, put("a")),
      write(3, 4, put("c"), { kind: "conflict", key: "x", isFound: true }, [
        { key: "x", is: { value: "b" } },
      ]),
    ],
  ],
  ["a deleted key", [write(1, 2, put("a")), write(3, 4, put(null)), read(5, 6, { x: null })]],
  [
    "an entry that vanished in time",
    [
      write(1, 2, [{ key: "x", value: "a", mayExpire: true }]),
      read(3, 4, { x: "a" }),
      read(5, 6, { x: null }),
    ],
  ],
  ["a batch seen whole", [write(1, 2, [...put("a"), ...put("b", "y")]), read(3, 4, { x: "a", y: "b" })]],
];

const wrong: [string, Call[]][] = [
  ["a lost write", [write(1, 2, put("a")), read(3, 4, { x: null })]],
  ["a stale read", [write(1, 2, put("a")), write(3, 4, put("b")), read(5, 6, { x: "a" })]],
  ["a value out of nowhere", [read(1, 2, { x: "a" })]],
  ["new, then old", [write(1, 8, put("a")), read(2, 3, { x: "a" }), read(4, 5, { x: null })]],
  [
    "an unknown write that took effect twice",
    [
      unknown(1, put("a")),
      read(2, 3, { x: "a" }),
      write(4, 5, put("b")),
      read(6, 7, { x: "b" }),
      read(8, 9, { x: "a" }),
    ],
  ],
  ["an unknown write seen before its call", [read(1, 2, { x: "a" }), unknown(3, put("a"))]],
  [
    "two winners of one compare-and-set",
    [
      write(1, 4, put("a"), written, [{ key: "x", is: "absent" }]),
      write(2, 5, put("b"), written, [{ key: "x", is: "absent" }]),
    ],
  ],
  [
    "a compare-and-set that failed though its value stood there",
    [
      write(1, 2, put("a")),
      write(3, 4, put("b"), { kind: "conflict", key: "x", isFound: true }, [
        { key: "x", is: { value: "a" } },
      ]),
    ],
  ],
  [
    "a failed creation of what was never there",
    [write(1, 2, put("b"), { kind: "conflict", key: "x", isFound: true }, [{ key: "x", is: "absent" }])],
  ],
  ["a deleted key comes back", [write(1, 2, put("a")), write(3, 4, put(null)), read(5, 6, { x: "a" })]],
  [
    "an expired entry comes back",
    [
      write(1, 2, [{ key: "x", value: "a", mayExpire: true }]),
      read(3, 4, { x: null }),
      read(5, 6, { x: "a" }),
    ],
  ],
  ["half a batch", [write(1, 2, [...put("a"), ...put("b", "y")]), read(3, 4, { x: "a", y: null })]],
  [
    "two scans that saw two orders, each key by itself in order",
    [
      write(1, 9, put("a")),
      write(2, 10, put("b", "y")),
      read(3, 4, { x: "a", y: null }),
      read(5, 6, { x: "a", y: "b" }),
      write(11, 12, put("c")),
      write(13, 20, put("d", "y")),
      write(14, 21, put("e")),
      read(15, 16, { x: "c", y: "d" }),
      read(17, 18, { x: "e", y: "b" }),
    ],
  ],
];

test("histories that one copy could have made pass", (t) => {
  for (const [name, calls] of right) t.equal(judge(calls), "linearizable", name);
  t.end();
});

test("histories that no single copy could have made don't", (t) => {
  for (const [name, calls] of wrong) t.equal(judge(calls), "not linearizable", name);
  t.end();
});
