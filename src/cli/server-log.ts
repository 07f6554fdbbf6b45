/**
 * What a server of a local ring says goes to a file of its own, as it is; people
 * see what they should act on, as one readable line. The file is bounded: at its
 * limit it becomes the old one, in the place of the one before.
 */
import { closeSync, fstatSync, openSync, renameSync, writeSync } from "node:fs";
import { readableLine } from "../log.ts";

const BYTES_MAX = 16 * 1024 * 1024;
const LINES_KEPT = 20;

export class ServerLog {
  readonly path: string;
  readonly #print: (line: string) => void;
  /** The last ones, and whether they are events of the log. */
  readonly #last: { readonly text: string; readonly isEvent: boolean }[] = [];
  #file: number | undefined;
  #bytes = 0;

  /** @param print takes what is for people. The file is made with the first line. */
  constructor(path: string, print: (line: string) => void) {
    this.path = path;
    this.#print = print;
  }

  /** @param isShown whether a line that is no event of the log is shown: the last words of a process. */
  take(line: string, isShown: boolean): void {
    const event = readableLine(line);
    this.#last.push({ text: event?.text ?? line, isEvent: event !== undefined });
    if (this.#last.length > LINES_KEPT) this.#last.shift();
    this.#append(`${line}\n`);
    if (event === undefined ? isShown : event.level === "error") this.#print(event?.text ?? line);
  }

  /** What the process said outside of its log, which is what it died of; else the end of the log. */
  lastWords(): string {
    const words = this.#last.filter(({ isEvent }) => !isEvent);
    return (words.length > 0 ? words : this.#last).map(({ text }) => text).join("\n");
  }

  /** Of a new process: the one before is forgotten. */
  begin(): void {
    this.#last.length = 0;
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #append(text: string): void {
    try {
      if (this.#file !== undefined && this.#bytes > BYTES_MAX) {
        this.close();
        renameSync(this.path, `${this.path}.old`);
      }
      if (this.#file === undefined) {
        this.#file = openSync(this.path, "a", 0o600);
        this.#bytes = fstatSync(this.#file).size;
      }
      this.#bytes += writeSync(this.#file, text);
    } catch {
      // A full disk must not end the ring: what matters is shown as well.
    }
  }
}
