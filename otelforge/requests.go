// Counters for the refused requests that an auth layer handles.

package otelforge

import (
	"errors"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/requestforge/requestforge"
)

// requests are the counters of an AuthTrace.
type requests struct {
	refused, replayed, gaveUp metric.Int64Counter
}

func newRequests(m metric.Meter) (r requests, err error) {
	var errs [3]error
	r.refused, errs[0] = m.Int64Counter("requestforge.token.refused",
		metric.WithUnit("{response}"), metric.WithDescription("Responses of APIs that refused the token."))
	r.replayed, errs[1] = m.Int64Counter("requestforge.request.replayed",
		metric.WithUnit("{send}"), metric.WithDescription("Requests sent again by the auth layer."))
	r.gaveUp, errs[2] = m.Int64Counter("requestforge.request.gave_up",
		metric.WithUnit("{request}"), metric.WithDescription("Refusals that went back to the caller."))
	return r, errors.Join(errs[:]...)
}

// AuthTrace returns functions that count refused tokens by status, and replays and refusals
// returned to the caller by reason. Use the result as AuthTrace of a [requestforge.Config]
// or as Trace of a [requestforge.AuthTransport]. Several transports may share one
// AuthTrace. Each count is recorded with the context of the request, so that an SDK can
// attach exemplars.
func (t *Telemetry) AuthTrace() *requestforge.AuthTrace {
	with := func(attrs ...attribute.KeyValue) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(append(attrs, t.attrs...)...))
	}
	return &requestforge.AuthTrace{
		Refused: func(req *http.Request, info requestforge.RefusedInfo) {
			t.requests.refused.Add(req.Context(), 1, with(semconv.HTTPResponseStatusCode(info.StatusCode)))
		},
		Replayed: func(req *http.Request, info requestforge.ReplayedInfo) {
			t.requests.replayed.Add(req.Context(), 1, with(replayKey.String(string(info.Reason))))
		},
		GaveUp: func(req *http.Request, info requestforge.GaveUpInfo) {
			t.requests.gaveUp.Add(req.Context(), 1, with(gaveUpKey.String(string(info.Reason))))
		},
	}
}
