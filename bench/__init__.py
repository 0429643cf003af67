"""What a query and a command cost, as ratios to a bare gRPC echo measured in the same run."""
