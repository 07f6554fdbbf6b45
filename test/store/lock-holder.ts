/** Opens the directory named by its argument and keeps it until it is killed. */
import { DataDirectory } from "../../src/store/data-directory.ts";

await DataDirectory.open(process.argv[2]!, { create: true });
process.send?.("open");
