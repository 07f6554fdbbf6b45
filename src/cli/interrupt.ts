/** Ctrl-C and SIGTERM: the first asks for an orderly end, the second does not wait for it. */

const INTERRUPTED = 130;

/** Aborted at the first signal. Listens from the call on. */
export function interruption(): AbortSignal {
  const asked = new AbortController();
  const onSignal = () => {
    if (asked.signal.aborted) process.exit(INTERRUPTED);
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
