// A pipeline's Stats as observable counters, and the time until each token expires.

package otelforge

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/requestforge/requestforge"
)

// counter describes a counter that is read from a T.
type counter[T any] struct {
	name, unit, description string
	value                   func(T) uint64
}

// Every field of StepStats has a counter here, with the step as attribute. Each name is a
// noun and a past participle, as in system.network.packet.dropped, so no name is a plural.
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
	{"requestforge.fetch.challenged", "{fetch}", "Fetches begun because an API asked for more than the token could show.",
		func(s requestforge.StepStats) uint64 { return s.Challenges }},
	{"requestforge.token.revoked", "{token}", "Tokens that the auth server was told nobody needs any more.",
		func(s requestforge.StepStats) uint64 { return s.Revocations }},
	{"requestforge.token.revocation.failed", "{token}", "Tokens that the auth server couldn't be told of.",
		func(s requestforge.StepStats) uint64 { return s.RevokeFailures }},
}

// Every other field of Stats has a counter here, except Subjects, which is subjectCount.
var pipelineCounters = []counter[requestforge.Stats]{
	{"requestforge.token.invalidated", "{token}", "Tokens declared dead before they expired.",
		func(s requestforge.Stats) uint64 { return s.Invalidations }},
	{"requestforge.refusal.ignored", "{refusal}", "Refusals that invalidated nothing because there were too many.",
		func(s requestforge.Stats) uint64 { return s.RefusalsIgnored }},
	{"requestforge.storage.call.failed", "{call}", "Calls of the storage that failed or took too long.",
		func(s requestforge.Stats) uint64 { return s.StorageErrors }},
	{"requestforge.storage.record.ignored", "{record}", "Stored records that were of no use.",
		func(s requestforge.Stats) uint64 { return s.BadRecords }},
	{"requestforge.subject.evicted", "{subject}", "Subjects dropped from memory.",
		func(s requestforge.Stats) uint64 { return s.Evicted }},
}

// subjectCount goes down as well.
var subjectCount = counter[requestforge.Stats]{"requestforge.subject.count", "{subject}", "Subjects that are kept in memory.",
	func(s requestforge.Stats) uint64 { return s.Subjects }}

// The gauge of each step's newest token. Below zero the token has expired.
const (
	expiryName        = "requestforge.token.time_to_expiry"
	expiryDescription = "Time until the step's newest token expires; without a value if there is none, or it never expires."
)

// counters are the instruments, in the order of the two lists.
type counters struct {
	step, pipeline []metric.Int64ObservableCounter
	subjects       metric.Int64ObservableUpDownCounter
	expiry         metric.Float64ObservableGauge
}

func newCounters(m metric.Meter) (c counters, err error) {
	var errs [4]error
	c.step, errs[0] = observable(m, stepCounters)
	c.pipeline, errs[1] = observable(m, pipelineCounters)
	c.subjects, errs[2] = m.Int64ObservableUpDownCounter(subjectCount.name,
		metric.WithUnit(subjectCount.unit), metric.WithDescription(subjectCount.description))
	c.expiry, errs[3] = m.Float64ObservableGauge(expiryName, metric.WithUnit("s"), metric.WithDescription(expiryDescription))
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

// register observes, at each collection, one snapshot of p's counters and one snapshot of
// p's steps.
func (c counters) register(m metric.Meter, attrs []attribute.KeyValue, p *requestforge.Pipeline) (metric.Registration, error) {
	all := []metric.Observable{c.subjects, c.expiry}
	for _, list := range [][]metric.Int64ObservableCounter{c.step, c.pipeline} {
		for _, instrument := range list {
			all = append(all, instrument)
		}
	}
	pipeline := metric.WithAttributeSet(attribute.NewSet(attrs...))
	steps := make(map[string]metric.MeasurementOption)
	for name := range p.Stats().Steps {
		steps[name] = metric.WithAttributeSet(attribute.NewSet(append(slices.Clip(attrs), stepKey.String(name))...))
	}
	return m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := p.Stats()
		o.ObserveInt64(c.subjects, int64(subjectCount.value(now)), pipeline)
		for i, instrument := range c.pipeline {
			o.ObserveInt64(instrument, int64(pipelineCounters[i].value(now)), pipeline)
		}
		for name, step := range now.Steps {
			for i, instrument := range c.step {
				o.ObserveInt64(instrument, int64(stepCounters[i].value(step)), steps[name])
			}
		}
		// The state without a subject: each subject has its own tokens.
		for _, step := range p.State(context.Background()).Steps {
			if !step.Expiry.IsZero() {
				o.ObserveFloat64(c.expiry, time.Until(step.Expiry).Seconds(), steps[step.Name])
			}
		}
		return nil
	}, all...)
}
