/**
 * Text for a terminal. What comes from the web or from other servers may hold
 * control characters, which a terminal would obey: they are shown, not sent.
 */

// C0, DEL, C1, and the marks that turn the direction of text around them.
const OBEYED = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;

/** On one line, with every character as it is. */
export function printable(text: string): string {
  return text.replace(/[\r\n\t]+/g, " ").replace(OBEYED, "\ufffd");
}

/** As `printable`, line breaks and tabs kept. */
export function printableLines(text: string): string {
  return text.replaceAll("\r\n", "\n").replace(OBEYED, "\ufffd");
}

export function shortened(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, Math.max(0, length - 1))}…`;
}

export function shortNode(nodeId: string): string {
  return nodeId.slice(0, 8);
}

/** Columns side by side, each as wide as its widest cell. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows];
  const widths = head.map((_, n) => Math.max(...all.map((row) => row[n]?.length ?? 0)));
  return all
    .map((row) => `  ${row.map((cell, n) => cell.padEnd(widths[n]!)).join("  ")}`.trimEnd())
    .join("\n");
}

export function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** For what is not a result: notes, progress. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

export function sayJson(value: unknown): void {
  say(JSON.stringify(value));
}
