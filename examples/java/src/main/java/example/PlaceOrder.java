package example;

import com.google.gson.Gson;
import com.google.rpc.ErrorInfo;
import com.google.type.Money;
import diptych.ordering.v1.CommandServiceGrpc;
import diptych.ordering.v1.GetOrderRequest;
import diptych.ordering.v1.OrderLine;
import diptych.ordering.v1.PlaceOrderRequest;
import diptych.ordering.v1.QueryServiceGrpc;
import diptych.ordering.v1.ShippingAddress;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.io.InputStreamReader;
import java.io.Reader;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/** Places an order, reads it back, and shows a rejection. */
public final class PlaceOrder {
  private static final Set<Status.Code> WORTH_REPEATING =
      Set.of(Status.Code.UNAVAILABLE, Status.Code.DEADLINE_EXCEEDED, Status.Code.CANCELLED,
          Status.Code.RESOURCE_EXHAUSTED);

  public static void main(String[] arguments) throws Exception {
    var write = connect("COMMAND_TARGET", "127.0.0.1:50051");
    var read = connect("QUERY_TARGET", "127.0.0.1:50052");
    var commands = CommandServiceGrpc.newBlockingStub(write);
    var queries = QueryServiceGrpc.newBlockingStub(read);

    // The request id belongs to the intention: every attempt at this order has the same one.
    var request = PlaceOrderRequest.newBuilder()
        .setRequestId(requestId())
        .setCustomerId("ada").setAccountId("a-1").setWarehouseId("w-1")
        .addLines(OrderLine.newBuilder().setSku("lamp").setTitle("A lamp").setQuantity(2)
            .setUnitPrice(Money.newBuilder().setCurrencyCode("EUR").setUnits(20)))
        .setShippingAddress(ShippingAddress.newBuilder().setRecipient("Ada")
            .addAddressLines("Main Street 1").setLocality("Berlin").setRegionCode("DE"))
        .build();
    var receipt = send(() -> commands.placeOrder(request)).getReceipt();
    var found = queries.getOrder(GetOrderRequest.newBuilder()
        .setOrderId(receipt.getAggregateId())
        .setAtLeastAsFresh(receipt.getConsistencyToken())
        .build());
    System.out.println(found.getOrder().getState());

    var again = request.toBuilder()
        .setRequestId(requestId()).setOrderId(receipt.getAggregateId()).build();
    try {
      send(() -> commands.placeOrder(again));
      throw new IllegalStateException("the same order was placed twice");
    } catch (StatusRuntimeException rejection) {
      System.out.println(reason(rejection));
    }
    for (var channel : new ManagedChannel[] {write, read}) {
      channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  /** Returns a UUID of version 7, which carries its time, so that a server can tell a late repetition. */
  private static String requestId() {
    var random = UUID.randomUUID();
    var version = 0x7000L | random.getMostSignificantBits() & 0xfff;
    return new UUID(System.currentTimeMillis() << 16 | version, random.getLeastSignificantBits()).toString();
  }

  /** Returns a channel to the replicas at an address from the environment. The service config retries calls. */
  private static ManagedChannel connect(String variable, String otherwise) throws Exception {
    var token = new Metadata();
    token.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + System.getenv("TOKEN"));
    try (Reader config = new InputStreamReader(
        PlaceOrder.class.getResourceAsStream("/diptych/service_config.json"))) {
      @SuppressWarnings("unchecked")
      Map<String, ?> serviceConfig = new Gson().fromJson(config, Map.class);
      return NettyChannelBuilder.forTarget(System.getenv().getOrDefault(variable, otherwise))
          .usePlaintext()
          .defaultServiceConfig(serviceConfig)
          .intercept(MetadataUtils.newAttachHeadersInterceptor(token))
          .keepAliveTime(20, TimeUnit.SECONDS)
          .keepAliveWithoutCalls(true)
          .build();
    }
  }

  /** Repeats a command for half a minute while it has no answer, which its request id makes harmless. */
  private static <T> T send(Supplier<T> call) throws InterruptedException {
    long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
    for (long pause = 50; ; pause = Math.min(2 * pause, 2000)) {
      try {
        return call.get();
      } catch (StatusRuntimeException error) {
        if (!WORTH_REPEATING.contains(error.getStatus().getCode()) || System.nanoTime() > end) {
          throw error;
        }
      }
      Thread.sleep(pause - ThreadLocalRandom.current().nextLong(pause / 2));
    }
  }

  /** Returns what to switch on: the reason of an error's ErrorInfo. */
  private static String reason(StatusRuntimeException error) throws Exception {
    for (var detail : StatusProto.fromThrowable(error).getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        return detail.unpack(ErrorInfo.class).getReason();
      }
    }
    return error.getStatus().getCode().name();
  }
}
