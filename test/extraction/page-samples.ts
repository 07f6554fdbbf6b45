/**
 * Pages whose content is known: what was written into them, inside shells as sites have them,
 * full of menus, side columns, banners and links.
 */

export interface ContentSample {
  readonly name: string;
  readonly language: string;
  readonly html: string;
  /** All words of the content, in order. */
  readonly text: string;
  readonly headings: readonly string[];
  /** Of all tables. */
  readonly cells?: readonly string[];
  readonly code?: readonly string[];
  /** As it stands at the fence. */
  readonly codeLanguage?: string;
}

export const CONTENTS: readonly ContentSample[] = [
  {
    name: "article",
    language: "en",
    html: `<h1>The river in winter</h1><p>When the <em>first frost</em> comes, the river slows down and its edges turn to glass. People who live here know the sound of it.</p><h2>Ice</h2><p>Ice forms first where the water is shallow, under the <a href="/willows">old willows</a> near the mill.</p><h3>Thickness</h3><p>At ten centimetres it carries a person; at thirty, a horse.</p><blockquote><p>Never trust the river before Candlemas.</p></blockquote><p>That is what my grandmother said, and she crossed it every day of her life.</p>`,
    text: "The river in winter When the first frost comes, the river slows down and its edges turn to glass. People who live here know the sound of it. Ice Ice forms first where the water is shallow, under the old willows near the mill. Thickness At ten centimetres it carries a person; at thirty, a horse. Never trust the river before Candlemas. That is what my grandmother said, and she crossed it every day of her life.",
    headings: ["# The river in winter", "## Ice", "### Thickness"],
  },
  {
    name: "code",
    language: "en",
    html: `<h1>Reading a file</h1><p>Open the file first, then read it line by line. Nothing is kept in memory.</p><pre><code class="language-python">with open("data.txt") as file:
    for line in file:
        if line.startswith("#"):
            continue
        print(line, end="")
</code></pre><p>Use <code>rstrip()</code> to drop the line feed at the end of each of them.</p>`,
    text: 'Reading a file Open the file first, then read it line by line. Nothing is kept in memory. with open("data.txt") as file: for line in file: if line.startswith("#"): continue print(line, end="") Use rstrip() to drop the line feed at the end of each of them.',
    headings: ["# Reading a file"],
    code: [
      'with open("data.txt") as file:',
      "    for line in file:",
      '        if line.startswith("#"):',
      "            continue",
      '        print(line, end="")',
    ],
    codeLanguage: "python",
  },
  {
    name: "highlighted code",
    language: "en",
    html: `<h1>Counting words</h1><p>The map grows with the number of different words, not with the length of the text that is read.</p><div class="highlight highlight-source-js"><pre><span class="k">const</span> counts = <span class="k">new</span> Map();
<span class="k">for</span> (<span class="k">const</span> word <span class="k">of</span> words) {
  counts.set(word, (counts.get(word) ?? 0) + 1);
}</pre></div><p>Sort the entries by their second member, in descending order, to have the most frequent first.</p>`,
    text: "Counting words The map grows with the number of different words, not with the length of the text that is read. const counts = new Map(); for (const word of words) { counts.set(word, (counts.get(word) ?? 0) + 1); } Sort the entries by their second member, in descending order, to have the most frequent first.",
    headings: ["# Counting words"],
    code: [
      "const counts = new Map();",
      "for (const word of words) {",
      "  counts.set(word, (counts.get(word) ?? 0) + 1);",
      "}",
    ],
    codeLanguage: "js",
  },
  {
    name: "numbered code",
    language: "en",
    html: `<h1>A small server</h1><p>It answers every request with the same few words, which is enough to test a client against it.</p><table class="highlighttable"><tr><td class="linenos"><pre>1
2
3</pre></td><td class="code"><pre class="brush: ruby">server = TCPServer.new 8080
client = server.accept
client.puts "hello | world"</pre></td></tr></table><p>Stop it with the interrupt key when the test has come to its end.</p>`,
    text: 'A small server It answers every request with the same few words, which is enough to test a client against it. server = TCPServer.new 8080 client = server.accept client.puts "hello | world" Stop it with the interrupt key when the test has come to its end.',
    headings: ["# A small server"],
    code: ["server = TCPServer.new 8080", "client = server.accept", 'client.puts "hello | world"'],
    codeLanguage: "ruby",
  },
  {
    name: "table",
    language: "en",
    html: `<h1>Rainfall by month</h1><p>All figures are in millimetres and were taken at the station beside the lake.</p><table><caption>North shore</caption><thead><tr><th>Month</th><th align="right">Mean</th><th>Wettest | driest</th></tr></thead><tbody><tr><td>January</td><td>81</td><td>140 | 22</td></tr><tr><td>February</td><td>64</td><td><p>120</p><p>9</p></td></tr><tr><td>March</td><td colspan="2">not measured</td></tr></tbody><tfoot><tr><td>Sum</td><td>145</td><td></td></tr></tfoot></table><p>The station was moved by forty metres in the spring of the second year.</p>`,
    text: "Rainfall by month All figures are in millimetres and were taken at the station beside the lake. North shore Month Mean Wettest | driest January 81 140 | 22 February 64 120 9 March not measured Sum 145 The station was moved by forty metres in the spring of the second year.",
    headings: ["# Rainfall by month"],
    cells: [
      "Month",
      "Mean",
      "Wettest | driest",
      "January",
      "81",
      "140 | 22",
      "February",
      "64",
      "120 9",
      "March",
      "not measured",
      "Sum",
      "145",
    ],
  },
  {
    name: "table without a head",
    language: "en",
    html: `<h1>Lamp No. 7</h1><p>A lamp for reading, made of brass and linen, with a cord of two metres and a switch.</p><table class="specs"><tr><td>Height</td><td>45 cm</td></tr><tr><td rowspan="2">Bulb</td><td>E27</td></tr><tr><td>at most 60 W</td></tr><tr><th>Weight</th><td><b>1.2 kg</b></td></tr></table><p>It comes in a box of cardboard that can be used again.</p>`,
    text: "Lamp No. 7 A lamp for reading, made of brass and linen, with a cord of two metres and a switch. Height 45 cm Bulb E27 at most 60 W Weight 1.2 kg It comes in a box of cardboard that can be used again.",
    headings: ["# Lamp No. 7"],
    cells: ["Height", "45 cm", "Bulb", "E27", "at most 60 W", "Weight", "1.2 kg"],
  },
  {
    name: "nested lists",
    language: "en",
    html: `<h1>Packing for the hut</h1><p>Everything has to fit into one rucksack, and everybody carries their own.</p><ul><li>Clothes<ul><li>two shirts</li><li>a warm pullover<ol><li>wool is best</li><li>fleece will do</li></ol></li></ul></li><li><p>Food for three days</p><p>There is no shop.</p></li><li>A torch</li></ul><ol start="4"><li>Lock the door.</li><li>Leave the key with the neighbour.</li></ol><dl><dt>Hut</dt><dd>A house without a road.</dd></dl>`,
    text: "Packing for the hut Everything has to fit into one rucksack, and everybody carries their own. Clothes two shirts a warm pullover wool is best fleece will do Food for three days There is no shop. A torch Lock the door. Leave the key with the neighbour. Hut A house without a road.",
    headings: ["# Packing for the hut"],
  },
  {
    name: "Arabic",
    language: "ar",
    html: `<h1>النهر في الشتاء</h1><p>عندما يأتي <strong>الصقيع الأول</strong> يبطئ النهر وتتحول حوافه إلى زجاج. الناس الذين يعيشون هنا يعرفون صوته.</p><h2>الجليد</h2><p>يتكون الجليد أولا حيث يكون الماء ضحلا، تحت أشجار الصفصاف القديمة قرب الطاحونة.</p><table><tr><th>الشهر</th><th>المعدل</th></tr><tr><td>يناير</td><td>٨١</td></tr></table>`,
    text: "النهر في الشتاء عندما يأتي الصقيع الأول يبطئ النهر وتتحول حوافه إلى زجاج. الناس الذين يعيشون هنا يعرفون صوته. الجليد يتكون الجليد أولا حيث يكون الماء ضحلا، تحت أشجار الصفصاف القديمة قرب الطاحونة. الشهر المعدل يناير ٨١",
    headings: ["# النهر في الشتاء", "## الجليد"],
    cells: ["الشهر", "المعدل", "يناير", "٨١"],
  },
  {
    name: "Hebrew",
    language: "he",
    html: `<h1>הנהר בחורף</h1><p>כאשר מגיע הכפור הראשון, הנהר מאט ושוליו הופכים לזכוכית. האנשים שגרים כאן מכירים את הצליל.</p><ul><li>קרח דק</li><li>קרח עבה<ul><li>נושא אדם</li><li>נושא סוס</li></ul></li></ul><p>כך אמרה סבתא שלי, והיא חצתה אותו בכל יום.</p>`,
    text: "הנהר בחורף כאשר מגיע הכפור הראשון, הנהר מאט ושוליו הופכים לזכוכית. האנשים שגרים כאן מכירים את הצליל. קרח דק קרח עבה נושא אדם נושא סוס כך אמרה סבתא שלי, והיא חצתה אותו בכל יום.",
    headings: ["# הנהר בחורף"],
  },
  {
    name: "Chinese",
    language: "zh",
    html: `<h1>冬天的河流</h1><p>第一次霜冻来临时，河水变慢，岸边结成玻璃一样的冰。住在这里的人都熟悉它的声音。</p><h2>冰层</h2><p>冰首先在水浅的地方形成，就在磨坊旁边的老柳树下。十厘米厚可以走人，三十厘米厚可以走马。</p><table><tr><th>月份</th><th>平均</th></tr><tr><td>一月</td><td>81</td></tr></table><pre><code class="lang-go">fmt.Println("冰")</code></pre>`,
    text: '冬天的河流 第一次霜冻来临时，河水变慢，岸边结成玻璃一样的冰。住在这里的人都熟悉它的声音。 冰层 冰首先在水浅的地方形成，就在磨坊旁边的老柳树下。十厘米厚可以走人，三十厘米厚可以走马。 月份 平均 一月 81 fmt.Println("冰")',
    headings: ["# 冬天的河流", "## 冰层"],
    cells: ["月份", "平均", "一月", "81"],
    code: ['fmt.Println("冰")'],
    codeLanguage: "go",
  },
  {
    name: "Japanese",
    language: "ja",
    html: `<h1>冬の川</h1><p>初霜が降りると、川の流れはゆっくりになり、岸辺はガラスのようになります。ここに住む人はその<ruby>音<rp>(</rp><rt>おと</rt><rp>)</rp></ruby>を知っています。</p><ol><li>浅いところから凍ります。</li><li>深いところは最後に凍ります。</li></ol><p>祖母は毎日この川を渡りました。</p>`,
    text: "冬の川 初霜が降りると、川の流れはゆっくりになり、岸辺はガラスのようになります。ここに住む人はその音(おと)を知っています。 浅いところから凍ります。 深いところは最後に凍ります。 祖母は毎日この川を渡りました。",
    headings: ["# 冬の川"],
  },
  {
    name: "pictures",
    language: "de",
    html: `<h1>Die Mühle am Fluss</h1><figure><img src="/bilder/muehle.jpg" alt="Die Mühle im Schnee"><figcaption>Die Mühle im Januar</figcaption></figure><p>Sie steht seit vierhundert Jahren an dieser Stelle, und ihr Rad dreht sich noch immer.</p><p><img data-src="rad.png" src="data:image/gif;base64,R0lGOD" alt="Das Rad"> Es ist aus Eiche und wird alle zwanzig Jahre erneuert.</p><hr><p>Führungen gibt es am Sonntag um 14 Uhr; der Eintritt kostet 3 Euro.</p>`,
    text: "Die Mühle am Fluss Die Mühle im Schnee Die Mühle im Januar Sie steht seit vierhundert Jahren an dieser Stelle, und ihr Rad dreht sich noch immer. Das Rad Es ist aus Eiche und wird alle zwanzig Jahre erneuert. Führungen gibt es am Sonntag um 14 Uhr; der Eintritt kostet 3 Euro.",
    headings: ["# Die Mühle am Fluss"],
  },
];

const MENU = `<ul><li><a href="/">Home</a></li><li><a href="/news">News</a></li><li><a href="/shop">Shop</a></li><li><a href="/about">About us</a></li><li><a href="/contact">Contact</a></li></ul>`;
const RELATED = `<h3>You may also like</h3><ul><li><a href="/1">Ten things about winter</a></li><li><a href="/2">How to build a boat</a></li><li><a href="/3">The mill and its miller</a></li></ul>`;

/** Noise that no content may hold. */
export const NOISE: readonly string[] = [
  "About us",
  "How to build a boat",
  "All rights reserved",
  "We use cookies",
  "Subscribe",
];

export type Shell = (content: ContentSample) => string;

const head = ({ language, name }: ContentSample) =>
  `<!DOCTYPE html><html lang="${language}"><head><meta charset="utf-8"><title>${name}</title><style>p{}</style><script>var x = "<p>no</p>";</script></head>`;

export const SHELLS: Readonly<Record<string, Shell>> = {
  semantic: (content) =>
    `${head(content)}<body><header><a href="/">Site</a><nav>${MENU}</nav></header><main><article>${content.html}</article></main><aside>${RELATED}</aside><footer>All rights reserved <a href="/imprint">Imprint</a></footer></body></html>`,
  classes: (content) =>
    `${head(content)}<body><div id="cookie-consent" class="cookie-banner">We use cookies on this site to make it better for you and for everybody else. <button>Accept</button></div><div class="navbar">${MENU}</div><div class="container"><div class="row"><div class="sidebar">${RELATED}</div><div class="post-content">${content.html}</div></div></div><div class="footer">All rights reserved</div><script>track()</script></body></html>`,
  nameless: (content) =>
    `${head(content)}<body><div><div>${MENU}</div></div><div><div><div>${content.html}</div><div>${RELATED}</div></div></div><div><a href="/imprint">Imprint</a> <a href="/terms">Terms</a> <a href="/privacy">Privacy</a> All rights reserved</div></body></html>`,
  tables: (content) =>
    `${head(content)}<body><table width="100%"><tr><td colspan="2">${MENU}</td></tr><tr><td width="200"><div class="menu">${RELATED}</div></td><td>${content.html}</td></tr><tr><td colspan="2"><div id="footer">All rights reserved</div></td></tr></table></body></html>`,
  form: (content) =>
    `${head(content)}<body><form id="aspnetForm" method="post"><div role="navigation">${MENU}</div><div role="main">${content.html}</div><div class="newsletter"><p>Subscribe to our newsletter and never miss a story again.</p><input type="email"></div><div role="contentinfo">All rights reserved</div></form></body></html>`,
};
