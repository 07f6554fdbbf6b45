/**
 * Our own code with one rule broken, for a simulation to find. The sources know nothing
 * of it: a break replaces text while modules are loaded, into a graph of modules of its own.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { fileURLToPath } from "node:url";

/** Path from the root of the repository, text that stands there once, and what stands there instead. */
export type Edit = readonly [file: string, text: string, instead: string];

const root = new URL("../../", import.meta.url).href;
/** Each load has a mark of its own: no module of another one is taken for it. */
let loads = 0;

/**
 * @param entry path from the root of the repository: this module and all of ours that it imports are loaded anew.
 * @throws {AssertionError} a text to be replaced does not stand in its file exactly once.
 */
export async function loadBrokenModule(
  name: string,
  edits: readonly Edit[],
  entry: string,
): Promise<unknown> {
  for (const [file, text] of edits) {
    const source = readFileSync(new URL(file, root), "utf8");
    assert.equal(source.split(text).length, 2, `${name}: ${file} must hold this once: ${text}`);
  }
  const mark = `?broken=${loads++}`;
  const changed = new Set<string>();
  const hooks = registerHooks({
    resolve(specifier, context, nextResolve) {
      const resolved = nextResolve(specifier, context);
      const isOurs = resolved.url.startsWith(root) && !resolved.url.includes("/node_modules/");
      return isOurs && context.parentURL?.endsWith(mark) === true
        ? { ...resolved, url: resolved.url + mark }
        : resolved;
    },
    load(url, context, nextLoad) {
      if (!url.endsWith(mark)) return nextLoad(url, context);
      const plain = url.slice(0, -mark.length);
      let source = readFileSync(fileURLToPath(plain), "utf8");
      for (const [file, text, instead] of edits) {
        if (plain !== root + file) continue;
        source = source.replace(text, () => instead);
        changed.add(file);
      }
      return { format: "module-typescript", source, shortCircuit: true };
    },
  });
  try {
    const module: unknown = await import(`${root}${entry}${mark}`);
    for (const [file] of edits) assert.ok(changed.has(file), `${name}: ${entry} does without ${file}`);
    return module;
  } finally {
    hooks.deregister();
  }
}
