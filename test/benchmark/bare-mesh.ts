/**
 * One of several processes with a bare TLS connection between each two, over which
 * messages of 100 bytes go to and fro: what the pings of a ring cost where nothing but
 * the sockets is left of them. Started with the channel of `fork`:
 *
 *     in     certificate and key; then the ports of those to connect to, and the pace
 *     out    the own port; then "connected"
 */
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer } from "node:tls";

const MESSAGE = Buffer.alloc(100);

export interface MeshCredentials {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

export interface MeshOrders {
  readonly ports: readonly number[];
  readonly intervalMs: number;
}

async function ordered<T>(): Promise<T> {
  const [message] = await once(process, "message");
  return message as T;
}

const { cert, key, ca } = await ordered<MeshCredentials>();
const server = createServer({ cert, key, minVersion: "TLSv1.3" }, (socket) => {
  socket.setNoDelay(true);
  socket.on("data", () => socket.write(MESSAGE));
  socket.on("error", () => socket.destroy());
});
server.listen(0, "127.0.0.1");
await once(server, "listening");
process.send?.((server.address() as AddressInfo).port);

const { ports, intervalMs } = await ordered<MeshOrders>();
const sockets = ports.map((port) => connect({ port, host: "127.0.0.1", ca, minVersion: "TLSv1.3" }));
for (const socket of sockets) {
  socket.setNoDelay(true);
  socket.on("data", () => {});
}
await Promise.all(sockets.map((socket) => once(socket, "secureConnect")));
process.send?.("connected");
// Those with more partners ping more of them at once, as servers do.
if (sockets.length > 0) {
  setInterval(() => {
    for (const socket of sockets) socket.write(MESSAGE);
  }, intervalMs);
}
process.on("disconnect", () => process.exit(0));
