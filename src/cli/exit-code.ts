/** What a script can tell from the end of a command. */
export const DONE = 0;
export const FAILED = 1;
export const WRONG_USAGE = 2;
/**
 * The question was answered, but not all is well: some URLs gave no result, the crawl was interrupted (what was
 * stored is good), or the cluster does not serve all partitions.
 */
export const PARTLY_FAILED = 3;

/** A command's work; resolves with its exit code. */
export type Work = () => Promise<number>;
export type Runner = (work: Work) => Promise<void>;
