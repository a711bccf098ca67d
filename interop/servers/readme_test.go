package servers_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/requestforge/requestforge/interop/servers"
)

// table is servers.Flows as the README has it.
func table() string {
	names := servers.Names()
	var b strings.Builder
	b.WriteString("| flow | specified by | program | " + strings.Join(names, " | ") + " | simulated |\n")
	b.WriteString(strings.Repeat("|---", 3) + strings.Repeat("|:-:", len(names)+1) + "|\n")
	for _, f := range servers.Flows {
		b.WriteString("| " + f.Name + " | " + f.Source + " | [`" + f.Example + "`](examples/" + f.Example + "/main.go) |")
		ticks := make([]bool, 0, len(names)+1)
		for _, name := range names {
			ticks = append(ticks, slices.Contains(f.Servers, name))
		}
		for _, tick := range append(ticks, len(f.Servers) == 0) {
			if tick {
				b.WriteString(" ✓")
			}
			b.WriteString(" |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestTableOfTheReadmeIsWhatIsRun(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := table(); !strings.Contains(string(readme), "\n\n"+want+"\n") {
		t.Errorf("README.md has another table than:\n%s", want)
	}
}
