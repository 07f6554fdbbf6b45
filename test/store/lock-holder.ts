/** Opens the directory named by its argument and keeps it until it is killed. */
import { DataDirectory } from "../../src/store/data-directory.ts";

await DataDirectory.open(process.argv[2]!, { create: true });
// By itself the channel to the parent keeps nobody alive.
process.channel?.ref();
process.send?.("open");
