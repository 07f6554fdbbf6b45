#!/usr/bin/env node
/**
 * The entry, in plain JavaScript, so that a Node that is too old for the rest can
 * still say so instead of failing on the first type.
 */
import module from "node:module";
import { fileURLToPath } from "node:url";

const NEEDED = 24;
const found = process.versions.node;

if (Number(found.split(".")[0]) < NEEDED) {
  process.stderr.write(
    `orbweaver: needs Node ${NEEDED} or later, and this is Node ${found}: run it with the Node that the project brings along: npm run orbweaver -- …\n`,
  );
  process.exitCode = 1;
} else {
  // Halves the start. Beside the packages, since whoever can write there can change the program anyway.
  module.enableCompileCache(fileURLToPath(new URL("../../node_modules/.cache/orbweaver", import.meta.url)));
  await import("./main.ts");
}
