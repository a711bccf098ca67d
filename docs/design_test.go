package docs

import (
	"context"
	"testing"

	rf "github.com/requestforge/requestforge"
)

// The graph in design.md is the one that Graph draws.
func TestDesignShowsTheGraph(t *testing.T) {
	login := &rf.HTTPFetcher{URL: "https://auth.example.com/token"}
	tokens, err := rf.NewPipeline(rf.PipelineConfig{
		Subject: func(context.Context) (string, error) { return "ann", nil },
		Steps: []rf.Step{
			{Name: "app", Fetcher: login},
			{Name: "inbound", Given: func(context.Context) (*rf.Token, error) { return nil, nil }},
			{Name: "user", DependsOn: []string{"app", "inbound"}, Fetcher: login},
			{Name: "orders", DependsOn: []string{"user"}, Fetcher: login},
			{Name: "invoices", DependsOn: []string{"user"}, Fetcher: login},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	show(t, "design.md", "graph", "```mermaid\n"+tokens.Graph()+"```")
}
