// The step graph: which token is live, who fetches it, what an invalidation
// takes with it.

package requestforge

import (
	"context"
	"log/slog"
	"time"
)

// TokenSource supplies the token of a request.
type TokenSource interface {
	Token(ctx context.Context) (*Token, error)
	Invalidate(ctx context.Context, rejected *Token) error
}

// Step is one call of a login.
type Step struct {
	Name      string
	DependsOn []string
	TTL       time.Duration
	Fetcher   Fetcher
	Refresh   Fetcher
	OnError   func(ctx context.Context, err error)
	OnRotate  func(ctx context.Context, tok *Token)
}

// PipelineConfig describes a Pipeline.
type PipelineConfig struct {
	Steps                  []Step
	Storage                Storage
	KeyPrefix, RefreshFrom string
	FetchTimeout           time.Duration
	StorageTimeout         time.Duration
	CoolDown, MaxCoolDown  time.Duration
	FetchRetries           int
	RefreshAhead           time.Duration
	Logger                 *slog.Logger
}

// Pipeline is a TokenSource over a graph of steps.
type Pipeline struct{}

type provenance struct{}

// Stats is a snapshot of a Pipeline's counters.
type Stats struct{}

func NewPipeline(cfg PipelineConfig) (*Pipeline, error)                        { return &Pipeline{}, nil }
func (p *Pipeline) Token(ctx context.Context) (*Token, error)                  { return nil, nil }
func (p *Pipeline) Invalidate(ctx context.Context, rejected *Token) error      { return nil }
func (p *Pipeline) InvalidateStep(ctx context.Context, name string) error      { return nil }
func (p *Pipeline) InvalidateAll(ctx context.Context) error                    { return nil }
func (p *Pipeline) Refresh(ctx context.Context) (*Token, error)                { return nil, nil }
func (p *Pipeline) Forget(ctx context.Context) error                           { return nil }
func (p *Pipeline) Stats() Stats                                               { return Stats{} }
func (p *Pipeline) Close() error                                               { return nil }
