/**
 * The servers' own ring with one rule broken: its source is changed while it is
 * loaded, so that no break ever lies on a disk or in what servers run.
 */
import assert from "node:assert/strict";
import { registerHooks } from "node:module";
import type { Ring } from "../../src/ring/ring.ts";

export interface Break {
  /** What no longer holds. */
  readonly rule: string;
  /** Under src/ring. */
  readonly file: string;
  /** Each text stands there exactly once, and is replaced. */
  readonly changes: readonly (readonly [text: string, replacement: string])[];
}

const RING = new URL("../../src/ring/", import.meta.url).href;
let breaks = 0;

export async function brokenRing({ rule, file, changes }: Break): Promise<typeof Ring> {
  const mark = `?broken=${breaks++}`;
  let isBroken = false;
  const hooks = registerHooks({
    resolve(specifier, context, next) {
      const resolved = next(specifier, context);
      // All files of this copy see one another, and nobody else sees them.
      const isOfCopy = context.parentURL?.endsWith(mark) === true && resolved.url.startsWith(RING);
      return isOfCopy ? { ...resolved, url: resolved.url + mark } : resolved;
    },
    load(url, context, next) {
      const loaded = next(url, context);
      if (url !== `${RING}${file}${mark}`) return loaded;
      let source = String(loaded.source);
      for (const [text, replacement] of changes) {
        assert.equal(source.split(text).length, 2, `${rule}: ${file} should hold once: ${text}`);
        source = source.replace(text, () => replacement);
      }
      isBroken = true;
      return { ...loaded, source };
    },
  });
  try {
    const loaded: { Ring: typeof Ring } = await import(`${RING}ring.ts${mark}`);
    assert.ok(isBroken, `${rule}: ${file} is not part of the ring`);
    return loaded.Ring;
  } finally {
    hooks.deregister();
  }
}
