// Package stubs holds what the generated packages beside it have in common.
package stubs

import _ "embed"

// ServiceConfig is the service config for Diptych's services, for grpc.WithDefaultServiceConfig: calls are spread over
// the replicas, have a timeout, and are retried where that is safe.
//
//go:embed service_config.json
var ServiceConfig string
