// Player sends prepared gRPC requests and reports how they were answered.
//
// It costs a tenth of what ghz does, which matters where it shares the machine with the server it measures: a request
// is bytes from a file, its headers are indices into HPACK's table, and calls of one connection leave in one write.
// Closed loop by default: as many calls as -in-flight are always under way. With -rate it sends at that rate however
// slow the answers are, and counts latencies from when a call was due (an open loop).
package main

import (
	"encoding/binary"
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
	seconds, deadline                   time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.address, "address", "", "host:port of the server")
	flag.StringVar(&o.method, "method", "", "/<package>.<Service>/<Method>")
	flag.StringVar(&o.requests, "requests", "", "file of serialised requests, each behind its length (a varint); played in turn, again from the start if need be")
	flag.StringVar(&o.metadata, "metadata", "", "name: value")
	flag.IntVar(&o.connections, "connections", 4, "how many connections")
	flag.IntVar(&o.inFlight, "in-flight", 64, "calls under way on all connections together; in an open loop, the most")
	flag.IntVar(&o.count, "count", 0, "calls to send; 0 for as many as -seconds allow")
	flag.DurationVar(&o.seconds, "seconds", 0, "how long to send, for instance 2s")
	flag.Float64Var(&o.rate, "rate", 0, "calls a second, in an open loop")
	flag.DurationVar(&o.deadline, "deadline", 0, "of each call; 0 for none")
	flag.Parse()
	result, err := run(o)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "player:", err)
		os.Exit(1)
	}
}

func run(o options) (*report, error) {
	bodies, err := read(o.requests)
	if err != nil {
		return nil, err
	}
	if o.count == 0 && o.seconds == 0 {
		return nil, errors.New("say -count or -seconds")
	}
	s := &source{bodies: bodies, left: o.count, counted: o.count > 0}
	if o.seconds > 0 {
		s.end = time.Now().Add(o.seconds)
	}
	start := time.Now()
	connections := make([]*connection, o.connections)
	for i := range connections {
		if connections[i], err = dial(o, s, start); err != nil {
			return nil, err
		}
	}
	var group sync.WaitGroup
	failures := make(chan error, o.connections+1)
	for _, c := range connections {
		group.Add(1)
		go func() {
			defer group.Done()
			if err := c.play(); err != nil {
				failures <- err
			}
		}()
	}
	if o.rate > 0 {
		group.Add(1)
		go func() {
			defer group.Done()
			if err := pace(o, s, connections); err != nil {
				failures <- err
			}
		}()
	}
	group.Wait()
	select {
	case err = <-failures:
		return nil, err
	default:
		return summarise(connections, s.unsent), nil
	}
}

// pace sends what is due, spread over the connections, until the source ends.
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
			body, more := s.next()
			if !more {
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

// source gives out requests until so many were sent or the time is over.
type source struct {
	sync.Mutex
	bodies  [][]byte
	at      int
	left    int
	counted bool
	end     time.Time
	unsent  int
}

func (s *source) next() ([]byte, bool) {
	s.Lock()
	defer s.Unlock()
	if s.counted && s.left == 0 || !s.end.IsZero() && time.Now().After(s.end) {
		return nil, false
	}
	s.left--
	body := s.bodies[s.at%len(s.bodies)]
	s.at++
	return body, true
}

func read(path string) ([][]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var bodies [][]byte
	for len(content) > 0 {
		size, width := binary.Uvarint(content)
		if width <= 0 || uint64(len(content)-width) < size {
			return nil, fmt.Errorf("%s: not requests behind their lengths", path)
		}
		end := width + int(size)
		// gRPC's frame: not compressed, and the length.
		body := binary.BigEndian.AppendUint32([]byte{0}, uint32(size))
		bodies = append(bodies, append(body, content[width:end]...))
		content = content[end:]
	}
	if len(bodies) == 0 {
		return nil, fmt.Errorf("%s: no requests", path)
	}
	return bodies, nil
}

func field(metadata string) (string, string, bool) {
	name, value, found := strings.Cut(metadata, ":")
	return strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value), found
}
