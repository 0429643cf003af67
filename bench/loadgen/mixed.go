package main

import (
	"errors"
	"sync"
	"time"
)

// mixer lets calls in flight move between two connections to different servers, so that every nth call goes
// to the second, whatever their speeds.
//
// A response frees a place. The next call of that place belongs to either connection, and is sent once the lock of
// the one that received the response is released; so two connections never wait for each other.
type mixer struct {
	sync.Mutex
	sources [2]*source
	every   int
	sent    int
	active  int // places with a call in flight, or about to send one
	pair    [2]*connection
}

// next returns the next request and the index of its connection; false once the time is over.
func (m *mixer) next() ([]byte, int, bool) {
	m.Lock()
	defer m.Unlock()
	at := 0
	if (m.sent+1)%m.every == 0 {
		at = 1
	}
	body, ok := m.sources[at].next()
	if ok {
		m.sent++
	} else {
		m.active--
	}
	return body, at, ok
}

func (m *mixer) idle() bool {
	m.Lock()
	defer m.Unlock()
	return m.active == 0
}

// refill sends the next call of each free place; it is called without any connection's lock.
func (m *mixer) refill(places int) error {
	for ; places > 0; places-- {
		body, at, ok := m.next()
		if !ok {
			continue
		}
		if err := m.pair[at].sendNow(body); err != nil {
			return err
		}
	}
	for _, c := range m.pair {
		if err := c.flush(); err != nil {
			return err
		}
		if m.idle() {
			c.finish()
		}
	}
	return nil
}

func (c *connection) sendNow(body []byte) error {
	c.Lock()
	defer c.Unlock()
	if c.leaving {
		return errors.New(c.options.address + ": the server closes the connection, which a mix does not follow")
	}
	return c.submit(body, time.Now())
}

// runMixed runs a closed loop of two methods.
func runMixed(o options, first *source) (*report, error) {
	requests, err := readRequests(o.mixed.requests, o.mixed.freshIDs)
	if err != nil {
		return nil, err
	}
	if o.mixedEvery < 2 || o.seconds == 0 || o.rate > 0 {
		return nil, errors.New("a mix needs -mixed-every of 2 or more and -seconds, and takes no -rate")
	}
	second := &source{requests: requests, end: first.end}
	other := o
	other.address, other.method = o.mixed.address, o.mixed.method
	start := time.Now()
	var connections [2][]*connection
	var tasks []func() error
	for i := 0; i < o.connections; i++ {
		m := &mixer{sources: [2]*source{first, second}, every: o.mixedEvery, active: max(1, o.inFlight/o.connections)}
		for at, each := range []options{o, other} {
			c, err := dial(each, nil, start)
			if err != nil {
				return nil, err
			}
			c.mixer, m.pair[at] = m, c
			connections[at] = append(connections[at], c)
			tasks = append(tasks, c.run)
		}
		tasks = append(tasks, func() error { return m.refill(m.active) })
	}
	if err := runAll(tasks); err != nil {
		return nil, err
	}
	result := summarise(append(connections[0], connections[1]...), 0)
	result.Mixed = summarise(connections[1], 0)
	return result, nil
}
