package main

import (
	"slices"
	"time"
)

// response is the outcome of one call.
type response struct {
	at, latency time.Duration
	status      string
	hasDetails  bool
}

// report is the JSON that the program prints; load_generator.py reads it as LoadResult.
type report struct {
	// Successful calls per second, from the first call to the last response.
	Rate float64 `json:"rate"`
	// Seconds from the first call to the last response.
	Seconds float64 `json:"seconds"`
	// Number of calls by gRPC status number.
	Statuses map[string]int `json:"statuses"`
	// Failed calls with status details: an ErrorInfo and perhaps a RetryInfo.
	WithDetails int `json:"with_details"`
	// Calls of an open loop that were not sent, since too many were in flight.
	Unsent int `json:"unsent"`
	// Milliseconds of successful and of failed calls, by percentile.
	Latency      map[string]float64 `json:"latency"`
	ErrorLatency map[string]float64 `json:"error_latency"`
	// By second of the run.
	Timeline []second `json:"timeline"`
	// The calls of the mixed method alone; all other fields count both methods.
	Mixed *report `json:"mixed,omitempty"`
}

type second struct {
	OK     int     `json:"ok"`
	Errors int     `json:"errors"`
	P99    float64 `json:"p99"`
}

func summarise(connections []*connection, unsent int) *report {
	var responses []response
	for _, c := range connections {
		responses = append(responses, c.responses...)
	}
	r := &report{Statuses: map[string]int{}, Unsent: unsent}
	var successes, failures []time.Duration
	successesBySecond := map[int][]time.Duration{}
	errorsBySecond := map[int]int{}
	for _, each := range responses {
		r.Statuses[each.status]++
		r.Seconds = max(r.Seconds, each.at.Seconds())
		at := int(each.at.Seconds())
		if each.status == "0" {
			successes = append(successes, each.latency)
			successesBySecond[at] = append(successesBySecond[at], each.latency)
			continue
		}
		failures = append(failures, each.latency)
		errorsBySecond[at]++
		if each.hasDetails {
			r.WithDetails++
		}
	}
	if r.Seconds > 0 {
		r.Rate = float64(len(successes)) / r.Seconds
	}
	r.Latency, r.ErrorLatency = percentiles(successes), percentiles(failures)
	for at := 0; at <= int(r.Seconds); at++ {
		p99 := percentiles(successesBySecond[at])["99"]
		r.Timeline = append(r.Timeline, second{len(successesBySecond[at]), errorsBySecond[at], p99})
	}
	return r
}

// percentiles sorts latencies in place and returns milliseconds; it returns an empty map for no latencies.
func percentiles(latencies []time.Duration) map[string]float64 {
	if len(latencies) == 0 {
		return map[string]float64{}
	}
	slices.Sort(latencies)
	result := map[string]float64{}
	for name, share := range map[string]float64{"50": 0.5, "90": 0.9, "95": 0.95, "99": 0.99, "99.9": 0.999, "100": 1} {
		index := min(len(latencies)-1, int(share*float64(len(latencies))))
		result[name] = float64(latencies[index].Microseconds()) / 1000
	}
	return result
}
