package rawquery_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/requestforge/requestforge/internal/rawquery"
)

func TestRemoveLeavesTheOthersAsTheyAre(t *testing.T) {
	for _, c := range []struct{ query, name, want string }{
		{"", "a", ""},
		{"a", "a", ""},
		{"a=", "a", ""},
		{"%61=1&b=%7e&a", "a", "b=%7e"},
		{"b=%7E&&c;d&a=1", "a", "b=%7E&&c;d"},
		{"a=1&a=2&a=%32", "a", ""},
		{"A=1", "a", "A=1"},
		{"a%zz=1&a=1", "a%zz", "a=1"},
		{"a+b=1", "a b", ""},
	} {
		if got := rawquery.Remove(c.query, c.name); got != c.want {
			t.Errorf("%q without %q: %q", c.query, c.name, got)
		}
	}
}

func TestStripTakesParametersOutOfURLs(t *testing.T) {
	added := rawquery.Added("a=1&key=s%26t&key=old", "a=1&key=old")
	if len(added) != 1 || added[0] != (rawquery.Param{Name: "key", Value: "s&t"}) {
		t.Fatal(added)
	}
	for link, want := range map[string]string{
		"":                               "",
		"/x":                             "/x",
		"/x?key=s%26t":                   "/x",
		"/x?%6bey=s%26%74&a=1#key=s%26t": "/x?a=1#key=s%26t",
		"/x?key=old&b=%7e&key=s%26t":     "/x?key=old&b=%7e",
		"//h/?key=other":                 "//h/?key=other",
		"::?key=s%26t":                   "::",
		"/login?next=%2Fx%3Fkey%3Ds%2526t%26a%3D1&b=2": "/login?next=%2Fx%3Fa%3D1&b=2",
		"/login?next=%252Fx%253Fkey%253Ds%252526t":     "/login?next=%252Fx",
		"/login?q=key%3Ds%2526t":                       "/login?q=",
		"/login?%2Fx%3Fkey%3Ds%2526t":                  "/login?%2Fx",
		"/login?/x?key=s%26t&a=1":                      "/login?/x&a=1",
		"/login/%2Fx%3Fkey%3Ds%2526t/%7e":              "/login/%2Fx/%7e",
		"/x;key=s%26t;b=%7e/y":                         "/x;b=%7e/y",
		"/x?a=1;key=s%26t;b=2&c=3":                     "/x?a=1;b=2&c=3",
		"/x?key=s%26t;":                                "/x",
		"?key=s%26t":                                   "?",
		"?key=s%26t#top":                               "?#top",
		"?":                                            "?",
		"/#/x?key=s%26t":                               "/#/x",
		"/x?key=s%26t?key=s%26t":                       "/x",
	} {
		if got := rawquery.Strip(link, added); got != want {
			t.Errorf("Strip(%q) = %q, want %q", link, got, want)
		}
	}
	for links, want := range map[string]string{
		"":  "",
		"<": "<",
		`</x?page=2&key=s%26t>; rel="next", <https://h/?key=s%26t>; title="a<b"`: `</x?page=2>; rel="next", <https://h/>; title="a<b"`,
	} {
		if got := rawquery.StripLinks(links, added); got != want {
			t.Errorf("StripLinks(%q) = %q, want %q", links, got, want)
		}
	}
}

func FuzzStrip(f *testing.F) {
	f.Add("/x?a=1&key=v&next=%2F%3Fkey%3Dv", "key", "v")
	f.Fuzz(func(t *testing.T, link, name, value string) {
		added := rawquery.Added(rawquery.Add("", name, value), "")
		head, query, _ := strings.Cut(rawquery.Strip(link, added), "?")
		before, _, _ := strings.Cut(link, "?")
		if head != before && !strings.HasPrefix(head, before+"#") && !strings.ContainsAny(before, "%;") {
			t.Errorf("%q became %q", before, head)
		}
		query, _, _ = strings.Cut(query, "#")
		if slices.Contains(rawquery.Added(query, ""), added[0]) {
			t.Errorf("%q is left of %q", query, link)
		}
	})
}

func FuzzAddedIsFoundAndRemoved(f *testing.F) {
	f.Add("", "key", "v")
	f.Add("a=1&b=%zz;c", "k&=", "v w%+\r\n")
	f.Fuzz(func(t *testing.T, query, name, value string) {
		if strings.ContainsAny(query, "#") || name == "" { // no Place is nameless
			t.Skip()
		}
		before := rawquery.Has(query, name)
		with := rawquery.Add(query, name, value)
		if !rawquery.Has(with, name) {
			t.Errorf("%q isn't in %q", name, with)
		}
		if added := strings.TrimPrefix(with, query); strings.ContainsAny(added, "\r\n #\x00") {
			t.Errorf("%q was added", added)
		}
		if values, err := url.ParseQuery(strings.TrimPrefix(strings.TrimPrefix(with, query), "&")); err != nil || values.Get(name) != value || len(values) != 1 {
			t.Errorf("%q says %v, %v", with, values, err)
		}
		if without := rawquery.Remove(with, name); rawquery.Has(without, name) || !before && without != query {
			t.Errorf("%q is left of %q", without, with)
		}
	})
}
