import { SocketWorld } from "./parties.ts";
import { transportConformance } from "./transport-conformance.ts";

const world = await SocketWorld.create();

transportConformance("TrpcTransport", async () => world);
