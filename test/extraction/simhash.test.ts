/** Fingerprints of texts: nearly the same words, nearly the same bits. */
import { test } from "tap";
import { parseDocument } from "../../src/extraction/document.ts";
import { TextFingerprint } from "../../src/extraction/simhash.ts";
import { visitText } from "../../src/extraction/text.ts";
import { seededRandom } from "../simulation/virtual-clock.ts";

function fingerprint(...texts: string[]): string | null {
  const reader = new TextFingerprint();
  for (const text of texts) reader.text(text);
  return reader.result();
}

function ofPage(html: string): string | null {
  const reader = new TextFingerprint();
  visitText(parseDocument(html).root, reader);
  return reader.result();
}

function apart(a: string | null, b: string | null): number {
  if (a === null || b === null) throw new Error("too little text");
  let bits = BigInt(`0x${a}`) ^ BigInt(`0x${b}`);
  let ones = 0;
  for (; bits > 0n; bits &= bits - 1n) ones++;
  return ones;
}

const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);

function words(random: () => number, count: number): string[] {
  return Array.from({ length: count }, () => `w${Math.floor(random() * 5_000).toString(36)}`);
}

test("case, punctuation, white space and the pieces of the text make no difference", async (t) => {
  const text =
    "The quick brown fox jumps over the lazy dog, and then it rests for a while in the shade of the old tree.";

  t.match(fingerprint(text), /^[0-9a-f]{16}$/);
  t.equal(fingerprint(text), "18e06a85126c94c2", "the same on every server, for ever");
  t.equal(fingerprint(text.toUpperCase().replaceAll(" ", "\n -- ")), fingerprint(text));
  t.equal(fingerprint(...text.match(/.{1,3}/g)!), fingerprint(text));
  t.not(fingerprint(text.replace("fox", "cat")), fingerprint(text));
  t.equal(fingerprint(text.slice(0, 60)), null, "too little to compare");
  t.equal(fingerprint(""), null);
  t.ok(
    apart(
      fingerprint("春眠不覚暁処処聞啼鳥夜来風雨声花落知多少"),
      fingerprint("春眠不覚暁処処聞啼鳥夜来風雨音花落知多少"),
    ) < 20,
    "a language without blanks has words too",
  );
});

test("what readers don't see does not count, and blocks part words", async (t) => {
  const body = Array.from({ length: 20 }, (_, n) => `<li>entry${n}</li>`).join("");
  const page = ofPage(`<ul>${body}</ul>`);

  t.equal(ofPage(`<title>x</title><script>let a = 1</script><ul class=b>${body}</ul><style>b</style>`), page);
  t.equal(ofPage(`<p>${body.replaceAll(/<li>|<\/li>/g, " ")}</p>`), page);
  t.equal(ofPage(`<ul>${body.replaceAll("entry", "en<b>try</b>")}</ul>`), page);
});

test(`a word changed in a long page changes a few bits, another page some twenty (SEED=${seed})`, async (t) => {
  const random = seededRandom(seed);
  let [near, far] = [0, 64];
  for (let n = 0; n < 50; n++) {
    const page = words(random, 1_500);
    const changed = [...page];
    changed[Math.floor(random() * page.length)] = "changed";
    near = Math.max(near, apart(fingerprint(page.join(" ")), fingerprint(changed.join(" "))));
    far = Math.min(far, apart(fingerprint(page.join(" ")), fingerprint(words(random, 1_500).join(" "))));
  }
  t.ok(near <= 5, `${near} bits`);
  t.ok(far >= 14, `${far} bits`);
});

test("no text is too long", async (t) => {
  const reader = new TextFingerprint();
  for (let n = 0; n < 100; n++) reader.text("a b c d ".repeat(2_000));
  t.match(reader.result(), /^[0-9a-f]{16}$/);
});
