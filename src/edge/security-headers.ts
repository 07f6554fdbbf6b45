/** What Helmet has every answer say to browsers. It is the same for all of them, so it is asked once, not each time. */
import { IncomingMessage, ServerResponse } from "node:http";
import { Socket } from "node:net";
import helmet from "helmet";

/** Name and value in turn, as `ServerResponse.writeHead` takes them. */
export const SECURITY_HEADERS: readonly string[] = gathered();

const POLICY = "content-security-policy";
/** The same for an answer that has a policy of its own. */
export const SECURITY_HEADERS_BUT_POLICY: readonly string[] = SECURITY_HEADERS.filter(
  (_, i) => SECURITY_HEADERS[i - (i % 2)] !== POLICY,
);

/** Those that the response does not say otherwise itself. */
export function secure(response: ServerResponse): void {
  for (let i = 0; i < SECURITY_HEADERS.length; i += 2) {
    const name = SECURITY_HEADERS[i]!;
    if (!response.hasHeader(name)) response.setHeader(name, SECURITY_HEADERS[i + 1]!);
  }
}

function gathered(): string[] {
  const request = new IncomingMessage(new Socket());
  const response = new ServerResponse(request);
  helmet()(request, response, (error) => {
    if (error !== undefined) throw error;
  });
  return response.getHeaderNames().flatMap((name) => [name, String(response.getHeader(name))]);
}
