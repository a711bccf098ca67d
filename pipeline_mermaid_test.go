package requestforge_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

func TestPipelineGraphIsAMermaidFlowchart(t *testing.T) {
	fetch := rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) { return &rf.Token{AccessToken: "hunter2"}, nil })
	one := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{
		{Name: "user", DependsOn: []string{"app", "device"}, Fetcher: fetch},
		{Name: "app", DependsOn: []string{"device"}, Fetcher: fetch},
		{Name: "device", Fetcher: fetch},
	}})
	require.Equal(t, `flowchart LR
    s0["device"]
    s1["app"]
    s2(["user"])
    s0 --> s1
    s1 --> s2
    s0 --> s2
`, one.Graph())
	require.Equal(t, one.Graph(), one.Graph())

	many := pipeline(t, rf.PipelineConfig{
		Subject: func(context.Context) (string, error) { return "alice", nil },
		Steps: []rf.Step{
			{Name: "app", Fetcher: fetch},
			{Name: "incoming", Given: func(context.Context) (*rf.Token, error) { return &rf.Token{AccessToken: "hunter2"}, nil }},
			{Name: "backend", DependsOn: []string{"app", "incoming"}, Fetcher: fetch},
			{Name: "files", PerSubject: true, Fetcher: fetch},
		},
		Leaf: "backend",
	})
	require.Equal(t, `flowchart LR
    s0["app"]
    subgraph subject ["each subject"]
        s1[/"incoming"/]
        s2(["backend"])
        s3["files"]
    end
    s0 --> s2
    s1 --> s2
`, many.Graph())

	// No name ends a label, or is taken for markup.
	odd := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "a\"] --> x\n<b>#34;end é", Fetcher: fetch}}})
	require.Equal(t, "flowchart LR\n    s0([\"a#34;#93; --#62; x#10;#60;b#62;#35;34#59;end é\"])\n", odd.Graph())

	require.Equal(t, "flowchart LR\n", new(rf.Pipeline).Graph())
}

// The steps of a State say how the steps hang together.
func TestPipelineStateNamesParents(t *testing.T) {
	fetch := rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) { return &rf.Token{AccessToken: "t"}, nil })
	p := pipeline(t, rf.PipelineConfig{
		Subject: userOf,
		Steps: []rf.Step{
			{Name: "app", Fetcher: fetch},
			{Name: "user", DependsOn: []string{"app"}, PerSubject: true, Fetcher: fetch},
		},
	})
	_, err := p.Token(as(t.Context(), "alice"))
	require.NoError(t, err)
	for name, ctx := range map[string]context.Context{"nobody": t.Context(), "alice": as(t.Context(), "alice"), "bob, who is unknown": as(t.Context(), "bob")} {
		steps := p.State(ctx).Steps
		require.Len(t, steps, 2, name)
		require.Empty(t, steps[0].Parents, name)
		require.False(t, steps[0].PerSubject, name)
		require.Equal(t, []string{"app"}, steps[1].Parents, name)
		require.True(t, steps[1].PerSubject, name)
		steps[1].Parents[0] = "changed" // the caller's own
	}
}
