// The login as a picture: the steps of a pipeline and what depends on what, for a page
// of documentation. Which token each step has is pipeline_state.go's.

package requestforge

import (
	"fmt"
	"strings"
)

// Graph returns the steps as a Mermaid flowchart, for a Markdown page, an issue or a
// runbook. An arrow leads from each parent to the steps that depend on the parent. A step
// whose token Token returns is rounded, a given step is slanted, and the steps of each
// subject's own are in a frame. The names of the steps are all that the text says of the
// configuration. Two pipelines of one configuration have the same Graph.
func (p *Pipeline) Graph() string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	if p.graph == nil { // nobody made p
		return b.String()
	}
	ids := make(map[*step]string)
	node := func(indent string, s *step) {
		ids[s] = fmt.Sprintf("s%d", len(ids))
		left, right := `["`, `"]`
		switch {
		case s.Given != nil:
			left, right = `[/"`, `"/]`
		case s == p.graph.leaf:
			left, right = `(["`, `"])`
		}
		b.WriteString(indent + ids[s] + left + mermaidText(s.Name) + right + "\n")
	}
	for _, s := range p.graph.steps[:p.graph.shared] {
		node("    ", s)
	}
	if own := p.graph.steps[p.graph.shared:]; len(own)+len(p.graph.given) > 0 {
		b.WriteString("    subgraph subject [\"each subject\"]\n")
		for _, s := range p.graph.given {
			node("        ", s)
		}
		for _, s := range own {
			node("        ", s)
		}
		b.WriteString("    end\n")
	}
	for _, s := range p.graph.steps {
		for _, parent := range s.parents {
			b.WriteString("    " + ids[parent] + " --> " + ids[s] + "\n")
		}
	}
	return b.String()
}

// mermaidText escapes name for a label in double quotes. Mermaid reads a label as HTML,
// and "#34;" as the character of that number.
func mermaidText(name string) string {
	var b strings.Builder
	for _, r := range name {
		switch {
		case r == ' ', r == '-', r == '_', r == '.', r == '/', r == ':', '0' <= r && r <= '9', 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', r > 0x9f:
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "#%d;", r)
		}
	}
	return b.String()
}
