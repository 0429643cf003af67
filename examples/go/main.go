// Places an order, reads it back, and shows a rejection.
package main

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/type/money"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"diptych.internal/stubs"
	"diptych.internal/stubs/ordering/v1"
)

func main() {
	write, read := connect("COMMAND_TARGET", "127.0.0.1:50051"), connect("QUERY_TARGET", "127.0.0.1:50052")
	commands, queries := orderingv1.NewCommandServiceClient(write), orderingv1.NewQueryServiceClient(read)
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+os.Getenv("TOKEN"))

	// The request id belongs to the intention: every attempt at this order has the same one.
	request := &orderingv1.PlaceOrderRequest{
		RequestId: uuid.Must(uuid.NewV7()).String(), CustomerId: "ada", AccountId: "a-1", WarehouseId: "w-1",
		Lines: []*orderingv1.OrderLine{{
			Sku: "lamp", Title: "A lamp", Quantity: 2, UnitPrice: &money.Money{CurrencyCode: "EUR", Units: 20},
		}},
		ShippingAddress: &orderingv1.ShippingAddress{
			Recipient: "Ada", AddressLines: []string{"Main Street 1"}, Locality: "Berlin", RegionCode: "DE",
		},
	}
	placed, err := send(ctx, commands.PlaceOrder, request)
	if err != nil {
		log.Fatal(err)
	}
	receipt := placed.GetReceipt()
	found, err := queries.GetOrder(ctx, &orderingv1.GetOrderRequest{
		OrderId: receipt.GetAggregateId(), AtLeastAsFresh: receipt.GetConsistencyToken(),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(found.GetOrder().GetState())

	request.RequestId, request.OrderId = uuid.Must(uuid.NewV7()).String(), receipt.GetAggregateId()
	if _, err = send(ctx, commands.PlaceOrder, request); err == nil {
		log.Fatal("the same order was placed twice")
	}
	fmt.Println(reason(err))
}

// connect returns a connection to the replicas at an address from the environment. The service config retries calls.
func connect(variable, target string) *grpc.ClientConn {
	if value := os.Getenv(variable); value != "" {
		target = value
	}
	connection, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(stubs.ServiceConfig),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, PermitWithoutStream: true}))
	if err != nil {
		log.Fatal(err)
	}
	return connection
}

// send repeats a command for half a minute while it has no answer, which its request id makes harmless.
func send[Request, Response any](
	ctx context.Context,
	method func(context.Context, Request, ...grpc.CallOption) (Response, error),
	request Request,
) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		response, err := method(ctx, request)
		switch status.Code(err) {
		case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted:
		default:
			return response, err
		}
		select {
		case <-ctx.Done():
			return response, err
		case <-time.After(pause - rand.N(pause/2)):
		}
	}
}

// reason returns what to switch on: the reason of an error's ErrorInfo.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return status.Code(err).String()
}
