package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// submittedCall is a call that is due. Beyond the server's limit of streams or its flow control window it waits in
// the client, as with gRPC's own clients. Its latency and its deadline count from the time at which it was due.
type submittedCall struct {
	body     []byte
	due      time.Time
	refusals int
}

// maxRefusals is how often a call is sent again that the server has refused before it began. grpc.aio counts a
// stream for a moment after its end, so it refuses calls of a client that keeps to its limit.
const maxRefusals = 100

// deadlineExceeded is the status of a call whose deadline passes while it waits.
const deadlineExceeded = "4"

// startCalls sends waiting calls and, in a closed loop, fills this connection's share of calls.
func (c *connection) startCalls() error {
	c.Lock()
	defer c.Unlock()
	if err := c.sendWaiting(); err != nil {
		return err
	}
	for c.options.rate == 0 && c.mixer == nil && !c.ending && !c.leaving && len(c.calls)+len(c.waiting) < c.share {
		if err := c.startNext(); err != nil {
			return err
		}
	}
	return c.writer.Flush()
}

// startNext sends the next request of the source, if there is one.
func (c *connection) startNext() error {
	if c.leaving {
		return nil
	}
	body, ok := c.source.next()
	if !ok {
		c.ending = true
		return nil
	}
	return c.submit(body, time.Now())
}

// offer submits a request of an open loop; it returns false if too many calls are in flight or wait here.
func (c *connection) offer(body []byte, due time.Time) (bool, error) {
	c.Lock()
	defer c.Unlock()
	if len(c.calls)+len(c.waiting) >= c.share {
		return false, nil
	}
	return true, c.submit(body, due)
}

// submit sends a request, or lets it wait until the server accepts it.
func (c *connection) submit(body []byte, due time.Time) error {
	next := submittedCall{body: body, due: due}
	if len(c.waiting) == 0 && c.accepts(body) {
		return c.send(next)
	}
	c.waiting = append(c.waiting, next)
	return nil
}

// accepts returns whether the server accepts a request on this connection now.
func (c *connection) accepts(body []byte) bool {
	return !c.leaving && len(c.calls) < c.maxStreams && len(body) <= c.credit
}

// sendWaiting sends the calls that waited, and ends those whose deadline has passed.
func (c *connection) sendWaiting() error {
	for len(c.waiting) > 0 {
		first := c.waiting[0]
		var err error
		switch {
		case c.options.deadline > 0 && time.Since(first.due) >= c.options.deadline:
			c.waiting = c.waiting[1:]
			err = c.record(&call{submittedCall: first, status: deadlineExceeded})
		case c.accepts(first.body):
			c.waiting = c.waiting[1:]
			err = c.send(first)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sendAgain submits a call that the server has refused before all others.
func (c *connection) sendAgain(stream uint32, refused *call) error {
	delete(c.calls, stream)
	refused.refusals++
	c.waiting = slices.Insert(c.waiting, 0, refused.submittedCall)
	return c.sendWaiting()
}

func (c *connection) flush() error {
	c.Lock()
	defer c.Unlock()
	return errors.Join(c.sendWaiting(), c.writer.Flush())
}

// finish marks the end of the requests; the ping's reply wakes the reader, which then sees the mark.
func (c *connection) finish() {
	c.Lock()
	defer c.Unlock()
	c.ending = true
	_ = c.framer.WritePing(false, [8]byte{1})
	_ = c.writer.Flush()
}

func (c *connection) send(next submittedCall) error {
	stream := c.next
	c.next += 2
	c.calls[stream] = &call{submittedCall: next}
	c.block.Reset()
	c.writeHeader(":method", "POST")
	c.writeHeader(":scheme", "http")
	c.writeHeader(":path", c.options.method)
	c.writeHeader(":authority", c.options.address)
	c.writeHeader("te", "trailers")
	c.writeHeader("content-type", "application/grpc")
	c.writeHeader("user-agent", "diptych-loadgen")
	c.writeTimeout(next.due)
	if name, value, ok := splitMetadata(c.options.metadata); ok {
		c.writeHeader(name, value)
	}
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.block.Bytes(), EndHeaders: true})
	c.credit -= len(next.body)
	return errors.Join(err, c.framer.WriteData(stream, true, next.body))
}

// writeTimeout writes what is left of the call's time until its deadline, if it has one.
func (c *connection) writeTimeout(due time.Time) {
	if c.options.deadline == 0 {
		return
	}
	left := c.options.deadline - time.Since(due).Truncate(timeoutStep)
	value := fmt.Sprintf("%dm", max(1, left.Milliseconds()))
	_ = c.encoder.WriteField(hpack.HeaderField{Name: "grpc-timeout", Value: value})
}

// timeoutStep keeps the number of different time-outs small, so that HPACK's table is not filled with them.
const timeoutStep = 100 * time.Millisecond

func (c *connection) writeHeader(name, value string) {
	_ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // a write to memory cannot fail
}
