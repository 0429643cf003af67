"""Infrastructure without business terms: processes, gRPC, JetStream, PostgreSQL, telemetry."""

import os

# gRPC core writes a line to stderr for every malformed call of anybody. It reads this when it is imported,
# which every process does after this package.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
