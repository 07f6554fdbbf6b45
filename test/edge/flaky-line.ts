/** A line to a server that can be cut, as networks do. */
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

export class FlakyLine {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(target: number) {
    this.#server = createServer((near) => {
      const far = connect(target, "127.0.0.1");
      for (const socket of [near, far]) {
        this.#sockets.add(socket);
        socket.on("error", () => {});
        socket.once("close", () => {
          this.#sockets.delete(socket);
          near.destroy();
          far.destroy();
        });
      }
      near.pipe(far);
      far.pipe(near);
    });
  }

  /** @param url of the server: `https://127.0.0.1:port`. */
  static async to(url: string): Promise<FlakyLine> {
    const line = new FlakyLine(Number(new URL(url).port));
    line.#server.listen(0, "127.0.0.1");
    await once(line.#server, "listening");
    return line;
  }

  get url(): string {
    const bound = this.#server.address();
    if (bound === null || typeof bound === "string") throw new Error("the line is closed");
    return `https://127.0.0.1:${bound.port}`;
  }

  /** All connections break, and no new one is made. */
  cut(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }
}
