/** `node row.ts N`: one scenario in a process of its own, told as TAP. */
import { t as tap, test } from "tap";
import { scenarios } from "./scenario-list.ts";

const wanted = scenarios.find(({ row }) => String(row) === process.argv[2]);
if (wanted === undefined) throw new Error(`there is no scenario ${process.argv[2]}`);
const { name, secondsMax, run } = wanted;
tap.setTimeout(secondsMax * 1000);
test(name, run);
