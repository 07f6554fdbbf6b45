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

  t.match(fingerprint(text), /^[0-9a-f]{64}$/);
  t.equal(
    fingerprint(text),
    "065604e6ce078b1c2b506101bab8f0012a0ae9d044a634c08105d8c2c8107001",
    "the same on every server, for ever",
  );
  t.equal(fingerprint(text.toUpperCase().replaceAll(" ", "\n -- ")), fingerprint(text));
  t.equal(fingerprint(...text.match(/.{1,3}/g)!), fingerprint(text));
  t.not(fingerprint(text.replace("fox", "cat")), fingerprint(text));
  t.equal(fingerprint(text.slice(0, 60)), null, "too little to compare");
  t.equal(fingerprint(""), null);
  const poem = "春眠不覚暁処処聞啼鳥夜来風雨声花落知多少";
  t.match(fingerprint(poem), /^[0-9a-f]{64}$/, "a language without blanks has words too");
  t.not(fingerprint(poem.replace("声", "音")), fingerprint(poem));
});

test("what readers don't see does not count, and blocks part words", async (t) => {
  const body = Array.from({ length: 20 }, (_, n) => `<li>entry${n}</li>`).join("");
  const page = ofPage(`<ul>${body}</ul>`);

  t.equal(ofPage(`<title>x</title><script>let a = 1</script><ul class=b>${body}</ul><style>b</style>`), page);
  t.equal(ofPage(`<p>${body.replaceAll(/<li>|<\/li>/g, " ")}</p>`), page);
  t.equal(ofPage(`<ul>${body.replaceAll("entry", "en<b>try</b>")}</ul>`), page);
});

test(`a few words changed are within the bound of near duplicates, a seventh under one menu is not (SEED=${seed})`, async (t) => {
  const random = seededRandom(seed);
  const of = (page: readonly string[]) => fingerprint(page.join(" "));
  let [one, few, seventh, other] = [0, 0, 256, 256];
  for (let n = 0; n < 60; n++) {
    const page = words(random, 1_000);
    const change = (count: number) => {
      const changed = [...page];
      for (let k = 0; k < count; k++) changed[Math.floor(random() * page.length)] = `changed${k}`;
      return changed;
    };
    one += apart(of(page), of(change(1))) <= 16 ? 1 : 0;
    few += apart(of(page), of(change(3))) <= 16 ? 1 : 0;
    seventh = Math.min(seventh, apart(of(page), of([...page.slice(0, 857), ...words(random, 143)])));
    other = Math.min(other, apart(of(page), of(words(random, 1_000))));
  }
  t.ok(one >= 57, `one word of 1,000: ${one} of 60 within 16 bits`);
  t.ok(few >= 42, `three words of 1,000: ${few} of 60 within 16 bits`);
  t.ok(seventh > 16, `a seventh: at least ${seventh} bits`);
  t.ok(other > 80, `another text: at least ${other} bits`);
});

test("no text is too long", async (t) => {
  const reader = new TextFingerprint();
  for (let n = 0; n < 100; n++) reader.text("a b c d ".repeat(2_000));
  t.match(reader.result(), /^[0-9a-f]{64}$/);
});
