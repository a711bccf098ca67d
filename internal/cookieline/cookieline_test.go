package cookieline_test

import (
	"net/http"
	"reflect"
	"testing"

	"github.com/requestforge/requestforge/internal/cookieline"
)

func TestPutKeepsTheOthers(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{nil, "session=new"},
		{[]string{""}, "session=new"},
		{[]string{"session=old"}, "session=new"},
		{[]string{"a=1; session=old; b=\"2, 3\""}, "a=1; b=\"2, 3\"; session=new"},
		{[]string{"a=1;session=old", " session = older ;b"}, "a=1; b; session=new"},
		{[]string{"Session=other"}, "Session=other; session=new"},
	} {
		before := append([]string(nil), c.lines...)
		if got := cookieline.Put(c.lines, cookieline.Cookie{Name: "session", Pair: "session=new"}); got != c.want {
			t.Errorf("%q: %q, want %q", c.lines, got, c.want)
		}
		if !reflect.DeepEqual(before, append([]string(nil), c.lines...)) {
			t.Errorf("%q was changed", before)
		}
	}
}

func TestPutPutsSeveral(t *testing.T) {
	a, b, same := cookieline.Cookie{Name: "a", Pair: "a=1"}, cookieline.Cookie{Name: "b", Pair: `b="2 2"`}, cookieline.Cookie{Name: "a", Pair: "a=3"}
	for want, got := range map[string]string{
		`x=1; y; a=1; b="2 2"; a=3`: cookieline.Put([]string{"a=0; x=1", "b=;y; a"}, a, b, same),
		`a=1; b="2 2"`:              cookieline.Put(nil, a, b),
		"x=1":                       cookieline.Put([]string{"x=1"}),
		"":                          cookieline.Put(nil),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzWhatPassesComesBack(f *testing.F) {
	f.Add("session", "abc", "a=1")
	f.Add("s", "a;b", "s=1; s=2")
	f.Fuzz(func(t *testing.T, name, value, line string) {
		if cookieline.Check(name, value) != nil {
			t.Skip()
		}
		req := &http.Request{Header: http.Header{"Cookie": {cookieline.Put([]string{line}, cookieline.Cookie{Name: name, Pair: name + "=" + value})}}}
		found := 0
		for _, c := range req.Cookies() {
			if c.Name == name {
				found++
				if c.Value != value {
					t.Errorf("%q comes back as %q", value, c.Value)
				}
			}
		}
		if found != 1 {
			t.Errorf("%d cookies of the name in %q", found, req.Header)
		}
	})
}
