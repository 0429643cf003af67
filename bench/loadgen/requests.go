package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

const (
	// frameHeader is the length of gRPC's frame header: a flag for compression, and the length of the message.
	frameHeader = 5
	// idLength is the length of a UUID as text.
	idLength = 36
	// maxFrame is the length of an HTTP/2 frame that every server accepts.
	maxFrame = 16384
)

// source hands out requests until the count is reached or the time is over.
type source struct {
	sync.Mutex
	requests  []request
	index     int
	remaining int
	limited   bool
	end       time.Time
	unsent    int
}

func (s *source) next() ([]byte, bool) {
	s.Lock()
	defer s.Unlock()
	if s.limited && s.remaining == 0 || !s.end.IsZero() && time.Now().After(s.end) {
		return nil, false
	}
	s.remaining--
	next := &s.requests[s.index%len(s.requests)]
	s.index++
	return next.build(), true
}

// stopOnSignal ends the requests at SIGTERM, as if the time were over; calls in flight are still answered.
func (s *source) stopOnSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
	s.Lock()
	defer s.Unlock()
	s.end = time.Now()
}

// request is a gRPC message frame, and the offsets of the ids that each call replaces.
type request struct {
	frame []byte
	ids   []int
}

// build returns the frame of one call; all ids in it are the same new UUID.
func (r *request) build() []byte {
	if len(r.ids) == 0 {
		return r.frame
	}
	frame, id := bytes.Clone(r.frame), newID()
	for _, at := range r.ids {
		copy(frame[at:], id)
	}
	return frame
}

// newID returns a random UUID (version 4).
func newID() string {
	high, low := rand.Uint64(), rand.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", high>>32, high>>16&0xffff, high&0xfff, 0x8000|low>>50, low&0xffffffffffff)
}

// readRequests returns the requests of a file, with the offsets of their request ids if these are to be replaced.
func readRequests(path string, freshIDs bool) ([]request, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var requests []request
	for len(content) > 0 {
		size, width := binary.Uvarint(content)
		if width <= 0 || uint64(len(content)-width) < size {
			return nil, fmt.Errorf("%s: not a requests file", path)
		}
		if size > maxFrame-frameHeader {
			return nil, fmt.Errorf("%s: a request of %d bytes does not fit into one frame", path, size)
		}
		end := width + int(size)
		frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(size))
		next := request{frame: append(frame, content[width:end]...)}
		if freshIDs {
			if next.ids = findIDs(next.frame); next.ids == nil {
				return nil, fmt.Errorf("%s: a request does not begin with a request id", path)
			}
		}
		requests = append(requests, next)
		content = content[end:]
	}
	if len(requests) == 0 {
		return nil, fmt.Errorf("%s: no requests", path)
	}
	return requests, nil
}

// findIDs returns where the request id stands: as field 1, and in further fields that have the same value.
func findIDs(frame []byte) []int {
	const tagAndLength = 2
	first := frameHeader + tagAndLength
	if len(frame) < first+idLength || frame[frameHeader] != 1<<3|2 || frame[frameHeader+1] != idLength {
		return nil
	}
	id := frame[first : first+idLength]
	var found []int
	for at := first; ; at += idLength {
		next := bytes.Index(frame[at:], id)
		if next < 0 {
			return found
		}
		at += next
		found = append(found, at)
	}
}
