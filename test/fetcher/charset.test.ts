import { test } from "tap";
import { decodeText, findCharset } from "../../src/fetcher/charset.ts";
import { parseRetryAfter } from "../../src/fetcher/retry-after.ts";

const ascii = (text: string) => Buffer.from(text, "latin1");

test("the encoding is found as browsers find it", async (t) => {
  const meta = (charset: string) => ascii(`<!DOCTYPE html><meta charset="${charset}"><p>\xe9`);
  const table: [name: string, bytes: Uint8Array, contentType: string | undefined, charset: string][] = [
    ["nothing, ASCII", ascii("abc"), undefined, "utf-8"],
    ["nothing, UTF-8", Buffer.from("é"), undefined, "utf-8"],
    ["nothing, 8-bit", ascii("caf\xe9"), undefined, "windows-1252"],
    ["empty", Buffer.alloc(0), undefined, "utf-8"],
    ["header", ascii("\xe9"), "text/html; charset=iso-8859-2", "iso-8859-2"],
    ["header, quoted", ascii("\xe9"), 'text/html; charset="Shift_JIS"', "shift_jis"],
    ["header, single quotes", ascii("\xe9"), "text/html;charset='koi8-r'", "koi8-r"],
    ["header, blanks", ascii("\xe9"), "text/html ; Charset = KOI8-R ; x=y", "koi8-r"],
    ["header, alias", ascii("\xe9"), "text/html; charset=latin1", "windows-1252"],
    ["header, unknown", ascii("\xe9"), "text/html; charset=klingon", "windows-1252"],
    ["header, empty", Buffer.from("é"), "text/html; charset=", "utf-8"],
    ["header beats meta", meta("koi8-r"), "text/html; charset=utf-8", "utf-8"],
    ["meta", meta("koi8-r"), "text/html", "koi8-r"],
    ["meta, no quotes", ascii("<META CHARSET=gbk><p>"), undefined, "gbk"],
    [
      "meta, http-equiv",
      ascii(`<meta http-equiv="Content-Type" content="text/html; charset=euc-jp">`),
      undefined,
      "euc-jp",
    ],
    ["meta, unknown, then known", ascii("<meta charset=x><meta charset=big5>"), undefined, "big5"],
    ["meta within a comment", ascii("<!-- <meta charset=big5> --><p>abc"), undefined, "utf-8"],
    ["meta says UTF-16", meta("utf-16"), undefined, "utf-8"],
    ["meta says x-user-defined", meta("x-user-defined"), undefined, "windows-1252"],
    ["meta, replacement", meta("iso-2022-kr"), undefined, "windows-1252"],
    ["meta too far away", ascii(`${" ".repeat(5000)}<meta charset=big5>`), undefined, "utf-8"],
    [
      "XML declaration",
      ascii('<?xml version="1.0" encoding="windows-1251"?><html>'),
      undefined,
      "windows-1251",
    ],
    ["BOM UTF-8 beats the header", Buffer.from("\ufeffé"), "text/html; charset=koi8-r", "utf-8"],
    ["BOM UTF-16LE", Buffer.from("\ufeffé", "utf16le"), undefined, "utf-16le"],
    ["BOM UTF-16BE", Buffer.from([0xfe, 0xff, 0, 0xe9]), "text/html; charset=utf-8", "utf-16be"],
  ];

  for (const [name, bytes, contentType, charset] of table)
    t.equal(findCharset(bytes, contentType), charset, name);
});

test("text is decoded, without its byte order mark, whatever the bytes are", async (t) => {
  t.equal(decodeText(ascii("\x80 \x93quoted\x94"), "text/html; charset=iso-8859-1"), "€ “quoted”");
  t.equal(
    decodeText(Buffer.from([0xcf, 0xf0, 0xe8, 0xe2, 0xe5, 0xf2]), "text/html; charset=windows-1251"),
    "Привет",
  );
  t.equal(decodeText(Buffer.from([0x93, 0xfa, 0x96, 0x7b]), "text/html; charset=shift_jis"), "日本");
  t.equal(decodeText(Buffer.from([0xc4, 0xe3, 0xba, 0xc3]), "text/html; charset=gb2312"), "你好");
  t.equal(decodeText(Buffer.from([0xf0, 0xd2, 0xc9]), "text/html; charset=koi8-r"), "При");
  t.equal(decodeText(Buffer.from("\ufeffabc"), undefined), "abc");
  t.equal(decodeText(Buffer.from("\ufeffé", "utf16le"), undefined), "é");
  t.equal(decodeText(ascii("a\xffb"), "text/html; charset=utf-8"), "a\ufffdb");
});

test("long UTF-8 is known by its first part, wherever that is cut", async (t) => {
  for (let shift = 0; shift < 4; shift++) {
    const bytes = Buffer.from("x".repeat(shift) + "😀é".repeat(20_000));
    t.equal(findCharset(bytes, undefined), "utf-8", `shifted by ${shift}`);
  }
});

test("Retry-After is a number of seconds or a date", async (t) => {
  const nowMs = Date.UTC(2026, 10, 20, 12, 0, 0);
  const table: [header: string | undefined, waitMs: number | null][] = [
    [undefined, null],
    ["", null],
    ["0", 0],
    ["120", 120_000],
    [" 5 ", 5_000],
    ["1.5", 1_500],
    ["99999999", 86_400_000],
    ["-1", null],
    ["soon", null],
    ["1 hour", null],
    ["2026-11-20", null],
    ["Fri, 20 Nov 2026 12:00:30 GMT", 30_000],
    ["Friday, 20-Nov-26 12:00:30 GMT", 30_000],
    ["Fri Nov 20 12:00:30 2026", 30_000],
    ["Fri, 20 Nov 2026 11:00:00 GMT", 0],
    ["Fri, 20 Nov 2126 11:00:00 GMT", 86_400_000],
    ["Fri, 99 Nov 2026", null],
  ];

  for (const [header, waitMs] of table) t.equal(parseRetryAfter(header, nowMs), waitMs, String(header));
});
