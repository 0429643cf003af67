package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// window is the flow control window for responses, in bytes.
const window = 1 << 30

type call struct {
	submittedCall
	status     string
	hasDetails bool
}

// connection sends requests on one HTTP/2 connection (sending.go) and receives their responses.
type connection struct {
	sync.Mutex // guards all fields that sending uses
	options    options
	source     *source
	start      time.Time
	transport  net.Conn
	reader     *bufio.Reader
	writer     *bufio.Writer
	framer     *http2.Framer
	encoder    *hpack.Encoder
	block      bytes.Buffer
	decoder    *hpack.Decoder
	calls      map[uint32]*call
	waiting    []submittedCall // in the order in which they were due
	next       uint32
	maxStreams int  // calls that the server accepts at a time
	credit     int  // bytes that the server accepts on this connection now
	share      int  // calls in flight or waiting on this connection, at most
	ending     bool // no more requests follow
	leaving    bool // the server has sent GOAWAY
	unread     int  // bytes received since the last window update
	responses  []response
	current    *call
	mixer      *mixer // of a mix of two methods; nil otherwise
	free       int    // places that responses have freed since the mixer was asked last
}

func dial(o options, s *source, start time.Time) (*connection, error) {
	c := &connection{options: o, source: s, start: start, share: max(1, o.inFlight/o.connections)}
	return c, c.open()
}

// connect opens the transport, by TLS if the server's authority is given.
func connect(o options) (net.Conn, error) {
	if o.ca == "" {
		return net.Dial("tcp", o.address)
	}
	pem, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return tls.Dial("tcp", o.address, &tls.Config{RootCAs: roots, NextProtos: []string{"h2"}})
}

func (c *connection) open() error {
	transport, err := connect(c.options)
	if err != nil {
		return err
	}
	c.transport, c.reader, c.writer = transport, bufio.NewReaderSize(transport, 1<<16), bufio.NewWriterSize(transport, 1<<16)
	c.framer = http2.NewFramer(c.writer, c.reader)
	c.framer.SetReuseFrames()
	c.block.Reset()
	c.encoder = hpack.NewEncoder(&c.block)
	c.decoder = hpack.NewDecoder(4096, c.readHeader)
	c.calls, c.next, c.credit, c.leaving, c.unread = map[uint32]*call{}, 1, 65535, false, 0
	c.maxStreams = math.MaxInt
	if _, err = io.WriteString(c.writer, http2.ClientPreface); err != nil {
		return err
	}
	err = c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}, http2.Setting{ID: http2.SettingEnablePush})
	if err = errors.Join(err, c.framer.WriteWindowUpdate(0, window), c.writer.Flush()); err != nil {
		return err
	}
	// The settings come first. A call sent before them could exceed the server's limit of streams.
	frame, err := c.framer.ReadFrame()
	if err != nil {
		return fmt.Errorf("%s: no settings received: %w", c.options.address, err)
	}
	return c.handle(frame)
}

// run receives responses until all calls have ended; in a closed loop it also sends the requests.
func (c *connection) run() error {
	defer func() { c.transport.Close() }()
	if err := c.startCalls(); err != nil {
		return err
	}
	for !c.done() {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return fmt.Errorf("%s: connection lost: %w", c.options.address, err)
		}
		c.Lock()
		err = c.handle(frame)
		// Flush only when the input is drained, so that the next calls leave in one write.
		drained := c.reader.Buffered() == 0
		if err == nil && drained {
			err = c.writer.Flush()
		}
		free := c.free
		if drained {
			c.free = 0
		}
		c.Unlock()
		if err != nil {
			return err
		}
		if drained && free > 0 {
			if err := c.mixer.refill(free); err != nil {
				return err
			}
		}
		if err := c.followServer(); err != nil {
			return err
		}
	}
	return nil
}

// followServer opens another connection if the server has asked to leave this one and its calls have ended.
func (c *connection) followServer() error {
	c.Lock()
	moves := c.leaving && len(c.calls) == 0
	if !moves {
		c.Unlock()
		return nil
	}
	c.transport.Close()
	err := c.open()
	c.Unlock()
	if err != nil {
		return err
	}
	return c.startCalls()
}

func (c *connection) done() bool {
	c.Lock()
	defer c.Unlock()
	return c.ending && len(c.calls) == 0 && len(c.waiting) == 0
}

// handle processes a frame from the server.
func (c *connection) handle(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.HeadersFrame:
		return c.handleHeaders(f.StreamID, f.HeaderBlockFragment(), f.StreamEnded())
	case *http2.ContinuationFrame:
		return errors.New("headers of more than one frame")
	case *http2.DataFrame:
		c.unread += int(f.Header().Length)
		if c.unread > window/2 {
			c.unread = 0
			return c.framer.WriteWindowUpdate(0, window/2)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.credit += int(f.Increment)
			return c.sendWaiting()
		}
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil
		}
		if limit, ok := f.Value(http2.SettingMaxConcurrentStreams); ok {
			c.maxStreams = int(limit)
		}
		return errors.Join(c.framer.WriteSettingsAck(), c.sendWaiting())
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.framer.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		c.leaving = true
	case *http2.RSTStreamFrame:
		if reset := c.calls[f.StreamID]; reset != nil {
			if f.ErrCode == http2.ErrCodeRefusedStream && reset.refusals < maxRefusals {
				return c.sendAgain(f.StreamID, reset)
			}
			reset.status = "reset"
			return c.end(f.StreamID, reset)
		}
	}
	return nil
}

func (c *connection) handleHeaders(stream uint32, block []byte, ended bool) error {
	c.current = c.calls[stream]
	if c.current == nil {
		c.current = &call{}
	}
	if _, err := c.decoder.Write(block); err != nil {
		return err
	}
	if ended {
		return c.end(stream, c.current)
	}
	return nil
}

// readHeader stores a decoded header in the current call.
func (c *connection) readHeader(h hpack.HeaderField) {
	switch h.Name {
	case "grpc-status":
		c.current.status = h.Value
	case "grpc-status-details-bin":
		c.current.hasDetails = true
	}
}

// end records the response of a call; then the calls that waited for it follow.
func (c *connection) end(stream uint32, ended *call) error {
	delete(c.calls, stream)
	return errors.Join(c.record(ended), c.sendWaiting())
}

// record keeps the outcome of a call and, in a closed loop, starts the next call.
func (c *connection) record(ended *call) error {
	now := time.Now()
	c.responses = append(c.responses, response{
		at:         now.Sub(c.start),
		latency:    now.Sub(ended.due),
		status:     ended.status,
		hasDetails: ended.hasDetails,
	})
	if c.mixer != nil {
		c.free++
		return nil
	}
	if c.options.rate == 0 {
		return c.startNext()
	}
	return nil
}
