// A pipeline's Stats as observable counters.

package otelforge

import (
	"context"
	"errors"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/requestforge/requestforge"
)

// counter describes a counter that is read from a T.
type counter[T any] struct {
	name, unit, description string
	value                   func(T) uint64
}

// Every field of StepStats has its counter here, with the step as attribute.
// The names are those of a thing and what became of it, as in
// system.network.packet.dropped, so that none is a plural.
var stepCounters = []counter[requestforge.StepStats]{
	{"requestforge.fetch.sent", "{request}", "Requests for a token to the auth server, each try of a fetch.",
		func(s requestforge.StepStats) uint64 { return s.Fetches }},
	{"requestforge.fetch.failed", "{fetch}", "Fetches that failed after all their tries.",
		func(s requestforge.StepStats) uint64 { return s.Failures }},
	{"requestforge.caller.failed_fast", "{caller}", "Callers who got the remembered failure of an earlier fetch.",
		func(s requestforge.StepStats) uint64 { return s.FailedFast }},
	{"requestforge.token.refreshed", "{token}", "Tokens got with a refresh token.",
		func(s requestforge.StepStats) uint64 { return s.Refreshes }},
	{"requestforge.token.loaded", "{token}", "Tokens that another process had put into the storage.",
		func(s requestforge.StepStats) uint64 { return s.Loads }},
	{"requestforge.refresh_ahead.started", "{fetch}", "Renewals begun in the background before the token expires.",
		func(s requestforge.StepStats) uint64 { return s.RefreshAhead }},
	{"requestforge.lock.contended", "{attempt}", "Attempts at a step's lock that found another process holding it.",
		func(s requestforge.StepStats) uint64 { return s.LockWaits }},
}

// Every other field of Stats has its counter here.
var pipelineCounters = []counter[requestforge.Stats]{
	{"requestforge.token.invalidated", "{token}", "Tokens declared dead before they expired.",
		func(s requestforge.Stats) uint64 { return s.Invalidations }},
	{"requestforge.token.spared", "{refusal}", "Refusals that invalidated nothing because there were too many.",
		func(s requestforge.Stats) uint64 { return s.RefusalsIgnored }},
	{"requestforge.storage.call.failed", "{call}", "Calls of the storage that failed or took too long.",
		func(s requestforge.Stats) uint64 { return s.StorageErrors }},
	{"requestforge.storage.record.ignored", "{record}", "Stored records that were of no use.",
		func(s requestforge.Stats) uint64 { return s.BadRecords }},
}

// counters are the instruments, in the order of the two lists.
type counters struct {
	step, pipeline []metric.Int64ObservableCounter
}

func newCounters(m metric.Meter) (c counters, err error) {
	var errs [2]error
	c.step, errs[0] = observable(m, stepCounters)
	c.pipeline, errs[1] = observable(m, pipelineCounters)
	return c, errors.Join(errs[:]...)
}

func observable[T any](m metric.Meter, list []counter[T]) ([]metric.Int64ObservableCounter, error) {
	instruments := make([]metric.Int64ObservableCounter, len(list))
	errs := make([]error, len(list))
	for i, c := range list {
		instruments[i], errs[i] = m.Int64ObservableCounter(c.name, metric.WithUnit(c.unit), metric.WithDescription(c.description))
	}
	return instruments, errors.Join(errs...)
}

// register observes one snapshot of stats at each collection.
func (c counters) register(m metric.Meter, attrs []attribute.KeyValue, stats func() requestforge.Stats) (metric.Registration, error) {
	var all []metric.Observable
	for _, list := range [][]metric.Int64ObservableCounter{c.step, c.pipeline} {
		for _, instrument := range list {
			all = append(all, instrument)
		}
	}
	pipeline := metric.WithAttributeSet(attribute.NewSet(attrs...))
	steps := make(map[string]metric.MeasurementOption)
	for name := range stats().Steps {
		steps[name] = metric.WithAttributeSet(attribute.NewSet(append(slices.Clip(attrs), stepKey.String(name))...))
	}
	return m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := stats()
		for i, instrument := range c.pipeline {
			o.ObserveInt64(instrument, int64(pipelineCounters[i].value(now)), pipeline)
		}
		for name, step := range now.Steps {
			for i, instrument := range c.step {
				o.ObserveInt64(instrument, int64(stepCounters[i].value(step)), steps[name])
			}
		}
		return nil
	}, all...)
}
