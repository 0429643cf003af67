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

const window = 1 << 30

type call struct {
	due     time.Time
	status  string
	hinted  bool
	opening bool // whether the answer's first headers have come
}

// connection sends requests on one HTTP/2 connection and takes their answers.
type connection struct {
	sync.Mutex // guards all that sending touches
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
	credit     int // bytes that the server takes on this connection
	waiting    [][]byte
	share      int
	ending     bool
	leaving    bool // the server wants no more calls here
	unread     int
	answers    []answer
	current    *call
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
	c.decoder = hpack.NewDecoder(4096, c.header)
	c.calls, c.next, c.credit, c.leaving, c.unread = map[uint32]*call{}, 1, 65535, false, 0
	if _, err = io.WriteString(c.writer, http2.ClientPreface); err != nil {
		return err
	}
	err = c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}, http2.Setting{ID: http2.SettingEnablePush})
	return errors.Join(err, c.framer.WriteWindowUpdate(0, window), c.writer.Flush())
}

// play keeps this connection's share of calls under way, or in an open loop takes answers, until all are there.
func (c *connection) play() error {
	defer func() { c.transport.Close() }()
	if err := c.fill(); err != nil {
		return err
	}
	for !c.done() {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return fmt.Errorf("%s: the connection was lost: %w", c.options.address, err)
		}
		c.Lock()
		err = c.take(frame)
		if err == nil && c.reader.Buffered() == 0 {
			err = c.writer.Flush()
		}
		c.Unlock()
		if err != nil {
			return err
		}
		if c.leaving && len(c.calls) == 0 {
			c.transport.Close()
			if err := c.open(); err != nil {
				return err
			}
			if err := c.fill(); err != nil {
				return err
			}
		}
	}
	return nil
}

// fill begins a closed loop; the end of each call begins another.
func (c *connection) fill() error {
	c.Lock()
	defer c.Unlock()
	for i := 0; c.options.rate == 0 && i < c.share; i++ {
		if err := c.another(); err != nil {
			return err
		}
	}
	return c.writer.Flush()
}

func (c *connection) another() error {
	if c.leaving {
		return nil
	}
	body, more := c.source.next()
	if !more {
		c.ending = true
		return nil
	}
	return c.send(body, time.Now())
}

// offer sends a request of an open loop, unless too many are under way here.
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

// finish says that no more requests come, and wakes the reader by asking the server for a sign of life.
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
	c.write(":method", "POST")
	c.write(":scheme", "http")
	c.write(":path", c.options.method)
	c.write(":authority", c.options.address)
	c.write("te", "trailers")
	c.write("content-type", "application/grpc")
	c.write("user-agent", "diptych-player")
	if c.options.deadline > 0 {
		c.write("grpc-timeout", fmt.Sprintf("%dm", c.options.deadline.Milliseconds()))
	}
	if name, value, found := field(c.options.metadata); found {
		c.write(name, value)
	}
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.block.Bytes(), EndHeaders: true})
	return errors.Join(err, c.sendBody(stream, body))
}

func (c *connection) write(name, value string) {
	_ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // into memory
}

// sendBody sends a request's bytes; where the server takes no more now, the whole connection waits for it.
func (c *connection) sendBody(stream uint32, body []byte) error {
	for c.credit < len(body) {
		if err := c.writer.Flush(); err != nil {
			return err
		}
		return fmt.Errorf("%s takes no more than %d bytes at once", c.options.address, c.credit)
	}
	c.credit -= len(body)
	return c.framer.WriteData(stream, true, body)
}

// take handles a frame of the server's.
func (c *connection) take(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.HeadersFrame:
		return c.headers(f.StreamID, f.HeaderBlockFragment(), f.StreamEnded())
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
		if known := c.calls[f.StreamID]; known != nil {
			known.status = "reset"
			return c.end(f.StreamID, known)
		}
	}
	return nil
}

func (c *connection) headers(stream uint32, block []byte, ended bool) error {
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

func (c *connection) header(h hpack.HeaderField) {
	switch h.Name {
	case "grpc-status":
		c.current.status = h.Value
	case "grpc-status-details-bin":
		c.current.hinted = true
	}
}

func (c *connection) end(stream uint32, ended *call) error {
	delete(c.calls, stream)
	now := time.Now()
	c.answers = append(c.answers, answer{
		at:     now.Sub(c.start),
		took:   now.Sub(ended.due),
		status: ended.status,
		hinted: ended.hinted,
	})
	if c.options.rate == 0 {
		return c.another()
	}
	return nil
}
