// What the page shows, as JSON.

package forgez

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
)

// LabelHeader is the header in which a request for the data has the label of the subject
// whose steps are wanted, percent-encoded as in a URL's path.
const LabelHeader = "Forgez-Subject-Label"

// maxLabel bounds a label, decoded.
const maxLabel = 1024

// labelIn returns the label that a request has; "": none.
func labelIn(h http.Header) (string, error) {
	label, err := url.PathUnescape(h.Get(LabelHeader))
	if err != nil || len(label) > maxLabel {
		// What was typed isn't repeated.
		return "", errors.New(LabelHeader + " is not percent-encoded, or too long")
	}
	return label, nil
}

// background is the context for State. PipelineConfig.Subject might take the viewer for a
// subject in the context of a viewer's request.
var background = context.Background()

// view is what the page shows.
type view struct {
	Time      time.Time      `json:"time"`
	Pipelines []pipelineView `json:"pipelines"`
}

type pipelineView struct {
	Name     string           `json:"name"`
	Labelled bool             `json:"labelled"` // subjects can be found by a label
	Steps    []stepView       `json:"steps"`
	Counters pipelineCounters `json:"counters"`
}

// pipelineCounters is requestforge.Stats without the steps.
type pipelineCounters struct {
	Invalidations   uint64 `json:"invalidations"`
	RefusalsIgnored uint64 `json:"refusals_ignored"`
	StorageErrors   uint64 `json:"storage_errors"`
	BadRecords      uint64 `json:"bad_records"`
	Subjects        uint64 `json:"subjects"`
	Evicted         uint64 `json:"evicted"`
}

type stepView struct {
	Name       string                      `json:"name"`
	Parents    []string                    `json:"parents"`
	PerSubject bool                        `json:"per_subject"`
	Status     requestforge.Status         `json:"status"`
	Subjects   map[requestforge.Status]int `json:"subjects,omitzero"` // instead of Status
	Expiry     time.Time                   `json:"expiry,omitzero"`
	NextTry    time.Time                   `json:"next_try,omitzero"`
	Error      *errorView                  `json:"error,omitzero"`
	Counters   stepCounters                `json:"counters"`
}

type errorView struct {
	Step string    `json:"step"` // where the failure was: the step itself or an ancestor
	Text string    `json:"text"`
	At   time.Time `json:"at"`
}

// stepCounters is requestforge.StepStats.
type stepCounters struct {
	Fetches        uint64 `json:"fetches"`
	Refreshes      uint64 `json:"refreshes"`
	Failures       uint64 `json:"failures"`
	FailedFast     uint64 `json:"failed_fast"`
	Loads          uint64 `json:"loads"`
	RefreshAhead   uint64 `json:"refresh_ahead"`
	LockWaits      uint64 `json:"lock_waits"`
	Challenges     uint64 `json:"challenges"`
	Revocations    uint64 `json:"revocations"`
	RevokeFailures uint64 `json:"revoke_failures"`
}

// viewOf looks at each pipeline, and at the subject with the label unless label is "".
func viewOf(all []named, label string) view {
	ctx := background
	if label != "" {
		ctx = requestforge.WithSubjectLabel(ctx, label)
	}
	v := view{Time: time.Now().UTC(), Pipelines: []pipelineView{}}
	for _, n := range all {
		v.Pipelines = append(v.Pipelines, n.view(ctx))
	}
	return v
}

func (n named) view(ctx context.Context) pipelineView {
	state, stats := n.pipeline.State(ctx), n.pipeline.Stats()
	if !state.Labelled {
		state = n.pipeline.State(background)
	}
	v := pipelineView{Name: n.name, Labelled: state.Labelled, Steps: []stepView{}, Counters: pipelineCounters{
		Invalidations: stats.Invalidations, RefusalsIgnored: stats.RefusalsIgnored, StorageErrors: stats.StorageErrors,
		BadRecords: stats.BadRecords, Subjects: stats.Subjects, Evicted: stats.Evicted,
	}}
	for _, s := range state.Steps {
		v.Steps = append(v.Steps, stepView{
			Name: s.Name, Parents: append([]string{}, s.Parents...), PerSubject: s.PerSubject, Status: s.Status, Subjects: s.Subjects,
			Expiry: s.Expiry.UTC(), NextTry: s.NextTry.UTC(), Error: errorOf(s), Counters: stepCounters(stats.Steps[s.Name]),
		})
	}
	return v
}

// errorOf returns the last failure of a step, without the time of the next try, which
// NextTry has.
func errorOf(s requestforge.StepState) *errorView {
	if s.LastError == nil {
		return nil
	}
	s.LastError.RetryAfter = 0
	return &errorView{s.LastError.Step, strings.TrimPrefix(s.LastError.Error(), "requestforge: "), s.LastErrorAt.UTC()}
}
