package requestforge

import (
	"net/url"
	"strings"
	"testing"
)

// What is below one base is at the same path below another, byte for byte as it is escaped,
// and nothing else moves.
func FuzzBaseURLMove(f *testing.F) {
	f.Add("/v1", "/data", "/v1/a%2Fb?x")
	f.Add("/v%31/", "/da%2Fta/", "/v1/%7e//..")
	f.Add("", "/", "*")
	f.Add("/a b", "/ä", "/a b/c")
	f.Fuzz(func(t *testing.T, from, to, path string) {
		a, faults := parseBaseURL("https://a.example" + from)
		b, more := parseBaseURL("https://b.example" + to)
		u, err := url.Parse("https://a.example" + path)
		if faults != nil || more != nil || err != nil || !a.holds(u) {
			t.Skip()
		}
		moved := *u
		moved.Host = b.Host
		moved.Path, moved.RawPath = b.move(u, a)
		if u.EscapedPath() == a.EscapedPath() {
			if moved.EscapedPath() != b.EscapedPath() {
				t.Errorf("the base %v became %v, not %v", a, &moved, b)
			}
			return
		}
		rest, below := strings.CutPrefix(moved.EscapedPath(), b.rawDir)
		if !below || rest != strings.TrimPrefix(u.EscapedPath(), a.rawDir) || rest != "" && rest[0] != '/' {
			t.Errorf("%v below %v became %v below %v", u, a, &moved, b)
		}
		again, err := url.Parse(moved.String())
		if err != nil || again.Host != b.Host || again.Path != moved.Path {
			t.Errorf("%v is read as %v, %v", &moved, again, err)
		}
	})
}
