package main

import (
	"slices"
	"time"
)

type answer struct {
	at, took time.Duration
	status   string
	hinted   bool
}

type report struct {
	// Calls answered OK a second, from the first call to the last answer.
	Rate float64 `json:"rate"`
	// From the first call to the last answer, in seconds.
	Seconds float64 `json:"seconds"`
	// How often each gRPC status was answered, by its number.
	Statuses map[string]int `json:"statuses"`
	// Answers other than OK that carried details, and so a reason and perhaps a retry hint.
	Detailed int `json:"detailed"`
	// Calls of an open loop that were not sent, since too many were under way.
	Unsent int `json:"unsent"`
	// Milliseconds until an answer that was OK, and until another one, by percentile.
	Latency map[string]float64 `json:"latency"`
	Refusal map[string]float64 `json:"refusal"`
	// By second of the run.
	Timeline []second `json:"timeline"`
}

type second struct {
	OK      int     `json:"ok"`
	Refused int     `json:"refused"`
	P99     float64 `json:"p99"`
}

func summarise(connections []*connection, unsent int) *report {
	var answers []answer
	for _, c := range connections {
		answers = append(answers, c.answers...)
	}
	r := &report{Statuses: map[string]int{}, Unsent: unsent}
	var accepted, refused []time.Duration
	bySecond := map[int][]time.Duration{}
	refusedBySecond := map[int]int{}
	for _, a := range answers {
		r.Statuses[a.status]++
		r.Seconds = max(r.Seconds, a.at.Seconds())
		at := int(a.at.Seconds())
		if a.status == "0" {
			accepted = append(accepted, a.took)
			bySecond[at] = append(bySecond[at], a.took)
			continue
		}
		refused = append(refused, a.took)
		refusedBySecond[at]++
		if a.hinted {
			r.Detailed++
		}
	}
	if r.Seconds > 0 {
		r.Rate = float64(len(accepted)) / r.Seconds
	}
	r.Latency, r.Refusal = percentiles(accepted), percentiles(refused)
	for at := 0; at <= int(r.Seconds); at++ {
		r.Timeline = append(r.Timeline, second{len(bySecond[at]), refusedBySecond[at], percentiles(bySecond[at])["99"]})
	}
	return r
}

func percentiles(took []time.Duration) map[string]float64 {
	if len(took) == 0 {
		return map[string]float64{}
	}
	slices.Sort(took)
	found := map[string]float64{}
	for name, part := range map[string]float64{"50": 0.5, "90": 0.9, "95": 0.95, "99": 0.99, "99.9": 0.999, "100": 1} {
		found[name] = float64(took[min(len(took)-1, int(part*float64(len(took))))].Microseconds()) / 1000
	}
	return found
}
