// Places an order, reads it back, and shows a rejection.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { create, type DescService, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Client, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { CommandService, PlaceOrderRequestSchema } from "diptych-stubs/diptych/ordering/v1/command_service_pb.js";
import { QueryService } from "diptych-stubs/diptych/ordering/v1/query_service_pb.js";
import { Order_State } from "diptych-stubs/diptych/ordering/v1/types_pb.js";
import { ErrorInfoSchema } from "diptych-stubs/google/rpc/error_details_pb.js";

const WORTH_REPEATING = [Code.Unavailable, Code.DeadlineExceeded, Code.Canceled, Code.ResourceExhausted];

const commands = connect(CommandService, process.env.COMMAND_TARGET ?? "127.0.0.1:50051");
const queries = connect(QueryService, process.env.QUERY_TARGET ?? "127.0.0.1:50052");

// The request id belongs to the intention: every attempt at this order has the same one.
const order: MessageInitShape<typeof PlaceOrderRequestSchema> = {
  requestId: createRequestId(),
  customerId: "ada",
  accountId: "a-1",
  warehouseId: "w-1",
  lines: [{ sku: "lamp", title: "A lamp", quantity: 2, unitPrice: { currencyCode: "EUR", units: 20n } }],
  shippingAddress: { recipient: "Ada", addressLines: ["Main Street 1"], locality: "Berlin", regionCode: "DE" },
};
const { receipt } = await repeat(() => commands.placeOrder(order));
const found = await repeat(() =>
  queries.getOrder({ orderId: receipt!.aggregateId, atLeastAsFresh: receipt!.consistencyToken }),
);
console.log(`STATE_${Order_State[found.order!.state]}`);

try {
  const again = create(PlaceOrderRequestSchema, { ...order, requestId: createRequestId(), orderId: receipt!.aggregateId });
  await repeat(() => commands.placeOrder(again));
  throw new Error("the same order was placed twice");
} catch (error) {
  if (!(error instanceof ConnectError)) throw error;
  console.log(reason(error));
}
process.exit(); // the idle connections would keep the process alive

/** Returns a UUID of version 7, which carries its time, so that a server can tell a late repetition. */
function createRequestId(): string {
  const time = Date.now().toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`;
}

/** Returns a client of a service; each attempt has five seconds. */
function connect<T extends DescService>(service: T, target: string): Client<T> {
  const authorize: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${process.env.TOKEN}`);
    return next(request);
  };
  return createClient(
    service,
    createGrpcTransport({
      baseUrl: `http://${target}`,
      interceptors: [authorize],
      defaultTimeoutMs: 5000,
      pingIntervalMs: 20_000,
      pingIdleConnection: true,
    }),
  );
}

/** Repeats a call for half a minute while it has no answer; a command's request id makes that harmless. */
async function repeat<T>(call: () => Promise<T>): Promise<T> {
  const end = Date.now() + 30_000;
  for (let pause = 50; ; pause = Math.min(2 * pause, 2000)) {
    try {
      return await call();
    } catch (error) {
      if (!WORTH_REPEATING.includes(ConnectError.from(error).code) || Date.now() > end) throw error;
    }
    await sleep(pause * (1 - Math.random() / 2));
  }
}

/** Returns what to switch on: the reason of an error's ErrorInfo. */
function reason(error: ConnectError): string {
  const [info] = error.findDetails(ErrorInfoSchema);
  return info?.reason ?? Code[error.code];
}
