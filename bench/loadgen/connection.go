package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// window is the flow control window for responses, in bytes.
const window = 1 << 30

type call struct {
	due        time.Time
	status     string
	hasDetails bool
}

// connection sends requests on one HTTP/2 connection and receives their responses.
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
	next       uint32
	credit     int  // bytes that the server accepts on this connection now
	share      int  // calls in flight on this connection, at most
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

func (c *connection) open() error {
	transport, err := net.Dial("tcp", c.options.address)
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
	if _, err = io.WriteString(c.writer, http2.ClientPreface); err != nil {
		return err
	}
	err = c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}, http2.Setting{ID: http2.SettingEnablePush})
	return errors.Join(err, c.framer.WriteWindowUpdate(0, window), c.writer.Flush())
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
		if c.leaving && len(c.calls) == 0 {
			c.transport.Close()
			if err := c.open(); err != nil {
				return err
			}
			if err := c.startCalls(); err != nil {
				return err
			}
		}
	}
	return nil
}

// startCalls starts a closed loop with this connection's share of calls.
func (c *connection) startCalls() error {
	c.Lock()
	defer c.Unlock()
	for i := 0; c.options.rate == 0 && c.mixer == nil && i < c.share; i++ {
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
	return c.send(body, time.Now())
}

// offer sends a request of an open loop; it returns false if too many calls are in flight here.
func (c *connection) offer(body []byte, due time.Time) (bool, error) {
	c.Lock()
	defer c.Unlock()
	if len(c.calls) >= c.share || c.leaving {
		return false, nil
	}
	return true, c.send(body, due)
}

func (c *connection) flush() error {
	c.Lock()
	defer c.Unlock()
	return c.writer.Flush()
}

// finish marks the end of the requests; the ping's reply wakes the reader, which then sees the mark.
func (c *connection) finish() {
	c.Lock()
	defer c.Unlock()
	c.ending = true
	_ = c.framer.WritePing(false, [8]byte{1})
	_ = c.writer.Flush()
}

func (c *connection) done() bool {
	c.Lock()
	defer c.Unlock()
	return c.ending && len(c.calls) == 0
}

func (c *connection) send(body []byte, due time.Time) error {
	stream := c.next
	c.next += 2
	c.calls[stream] = &call{due: due}
	c.block.Reset()
	c.writeHeader(":method", "POST")
	c.writeHeader(":scheme", "http")
	c.writeHeader(":path", c.options.method)
	c.writeHeader(":authority", c.options.address)
	c.writeHeader("te", "trailers")
	c.writeHeader("content-type", "application/grpc")
	c.writeHeader("user-agent", "diptych-loadgen")
	if c.options.deadline > 0 {
		c.writeHeader("grpc-timeout", fmt.Sprintf("%dm", c.options.deadline.Milliseconds()))
	}
	if name, value, ok := splitMetadata(c.options.metadata); ok {
		c.writeHeader(name, value)
	}
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.block.Bytes(), EndHeaders: true})
	return errors.Join(err, c.sendBody(stream, body))
}

func (c *connection) writeHeader(name, value string) {
	_ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // a write to memory cannot fail
}

// sendBody sends the bytes of a request; it fails if the server's flow control window is too small.
func (c *connection) sendBody(stream uint32, body []byte) error {
	if c.credit < len(body) {
		if err := c.writer.Flush(); err != nil {
			return err
		}
		return fmt.Errorf("%s: flow control window of %d bytes is too small", c.options.address, c.credit)
	}
	c.credit -= len(body)
	return c.framer.WriteData(stream, true, body)
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
		}
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.framer.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		c.leaving = true
	case *http2.RSTStreamFrame:
		if reset := c.calls[f.StreamID]; reset != nil {
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

// end records the response of a call and, in a closed loop, starts the next call.
func (c *connection) end(stream uint32, ended *call) error {
	delete(c.calls, stream)
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
