/** `node row.ts N`: one scenario in a process of its own, told as TAP; taken down in good order when interrupted. */
import { t as tap, test } from "tap";
import { interruption, whenAborted } from "../../src/cli/interrupt.ts";
import { scenarios } from "./scenario-list.ts";

const wanted = scenarios.find(({ row }) => String(row) === process.argv[2]);
if (wanted === undefined) throw new Error(`there is no scenario ${process.argv[2]}`);
const { name, secondsMax, run } = wanted;
tap.setTimeout(secondsMax * 1000);
// As if its time were over: what was set up is taken down, and the row has failed.
void whenAborted(interruption()).then(() => tap.timeout({ expired: "interrupted" }));
test(name, run);
