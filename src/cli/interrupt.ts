/** Ctrl-C and SIGTERM: the first asks for an orderly end, the second does not wait for it. */

const INTERRUPTED = 130;
/** One key press may come twice: from the terminal, and again from npm, which hands on what it gets. */
const SAME_PRESS_MS = 1000;

/** Aborted at the first signal. Listens from the call on. */
export function interruption(): AbortSignal {
  const asked = new AbortController();
  let firstMs: number | undefined;
  const onSignal = () => {
    const nowMs = performance.now();
    if (firstMs !== undefined && nowMs - firstMs > SAME_PRESS_MS) process.exit(INTERRUPTED);
    firstMs ??= nowMs;
    asked.abort();
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  return asked.signal;
}

export function whenAborted(signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (signal.aborted) resolve();
  else signal.addEventListener("abort", () => resolve(), { once: true });
  return promise;
}
