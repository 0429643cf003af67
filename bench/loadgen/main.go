// Loadgen sends serialised gRPC requests and reports the statuses and latencies of the calls.
//
// It shares the machine with the server that it measures, so it has to be cheap: requests are bytes from a file,
// their headers are indices into HPACK's table, and the calls of one connection leave in one write. It uses less
// than a third of the CPU time of ghz.
//
// By default it runs a closed loop: -in-flight calls are always in flight, and each response starts the next call.
// With -rate it runs an open loop: calls are sent at that rate, independent of responses, and their latency counts
// from the time at which they were due.
//
// With -mixed-address a closed loop calls another method, too: every -mixed-every'th call is one of it (mixed.go).
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

type options struct {
	address, method, requests, metadata string
	connections, inFlight, count        int
	rate                                float64
	freshIDs                            bool
	seconds, deadline                   time.Duration
	mixed                               target
	mixedEvery                          int
	ca                                  string
}

// target is a method, and the requests to send to it.
type target struct {
	address, method, requests string
	freshIDs                  bool
}

func main() {
	var o options
	flag.StringVar(&o.address, "address", "", "host:port of the server")
	flag.StringVar(&o.method, "method", "", "/<package>.<Service>/<Method>")
	flag.StringVar(&o.requests, "requests", "", "file of serialised requests, each after its length (a varint); sent in turn, repeatedly")
	flag.BoolVar(&o.freshIDs, "fresh-ids", false, "give each call a request id of its own; only of commands, whose first field it is")
	flag.StringVar(&o.metadata, "metadata", "", "name: value")
	flag.IntVar(&o.connections, "connections", 4, "number of HTTP/2 connections")
	flag.IntVar(&o.inFlight, "in-flight", 64, "concurrent calls on all connections together; in an open loop, their maximum")
	flag.IntVar(&o.count, "count", 0, "number of calls; 0 for as many as fit into -seconds")
	flag.DurationVar(&o.seconds, "seconds", 0, "duration, for instance 2s; 0 for no limit")
	flag.Float64Var(&o.rate, "rate", 0, "calls per second of an open loop; 0 for a closed loop")
	flag.DurationVar(&o.deadline, "deadline", 0, "deadline of each call; 0 for none")
	flag.StringVar(&o.mixed.address, "mixed-address", "", "host:port of the server of another method to call in turn")
	flag.StringVar(&o.mixed.method, "mixed-method", "", "that method")
	flag.StringVar(&o.mixed.requests, "mixed-requests", "", "its requests")
	flag.BoolVar(&o.mixed.freshIDs, "mixed-fresh-ids", false, "-fresh-ids for these requests")
	flag.IntVar(&o.mixedEvery, "mixed-every", 0, "every call of this number is one of that method")
	flag.StringVar(&o.ca, "ca", "", "file with the authority of a server with TLS; empty for none")
	flag.Parse()
	result, err := run(o)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
}

func run(o options) (*report, error) {
	requests, err := readRequests(o.requests, o.freshIDs)
	if err != nil {
		return nil, err
	}
	if o.count == 0 && o.seconds == 0 {
		return nil, errors.New("-count or -seconds is required")
	}
	s := &source{requests: requests, remaining: o.count, limited: o.count > 0}
	if o.seconds > 0 {
		s.end = time.Now().Add(o.seconds)
	}
	go s.stopOnSignal()
	if o.mixed.address != "" {
		return runMixed(o, s)
	}
	start := time.Now()
	connections := make([]*connection, o.connections)
	for i := range connections {
		if connections[i], err = dial(o, s, start); err != nil {
			return nil, err
		}
	}
	tasks := []func() error{}
	for _, c := range connections {
		tasks = append(tasks, c.run)
	}
	if o.rate > 0 {
		tasks = append(tasks, func() error { return pace(o, s, connections) })
	}
	if err := runAll(tasks); err != nil {
		return nil, err
	}
	return summarise(connections, s.unsent), nil
}

// runAll runs functions concurrently until all have returned; it returns the first error.
func runAll(tasks []func() error) error {
	var group sync.WaitGroup
	failures := make(chan error, len(tasks))
	for _, task := range tasks {
		group.Add(1)
		go func() {
			defer group.Done()
			if err := task(); err != nil {
				failures <- err
			}
		}()
	}
	group.Wait()
	select {
	case err := <-failures:
		return err
	default:
		return nil
	}
}

// pace runs an open loop: each millisecond it sends the calls that are due, in turn on all connections.
func pace(o options, s *source, connections []*connection) error {
	defer func() {
		for _, c := range connections {
			c.finish()
		}
	}()
	start, due := time.Now(), 0
	for {
		time.Sleep(time.Millisecond)
		for now := time.Since(start).Seconds() * o.rate; float64(due) < now; due++ {
			body, ok := s.next()
			if !ok {
				return flush(connections)
			}
			at := start.Add(time.Duration(float64(due) / o.rate * float64(time.Second)))
			if sent, err := connections[due%len(connections)].offer(body, at); err != nil {
				return err
			} else if !sent {
				s.unsent++
			}
		}
		if err := flush(connections); err != nil {
			return err
		}
	}
}

func flush(connections []*connection) error {
	for _, c := range connections {
		if err := c.flush(); err != nil {
			return err
		}
	}
	return nil
}

// splitMetadata returns the name and the value of "name: value".
func splitMetadata(metadata string) (string, string, bool) {
	name, value, found := strings.Cut(metadata, ":")
	return strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value), found
}
