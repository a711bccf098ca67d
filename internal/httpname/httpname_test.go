package httpname_test

import (
	"testing"

	"github.com/requestforge/requestforge/internal/httpname"
)

func TestIsToken(t *testing.T) {
	for s, want := range map[string]bool{
		"Authorization": true, "x-api_key.1": true, "!#$%&'*+-.^_`|~": true, "GET": true,
		"": false, "a b": false, "a:b": false, "a\n": false, "é": false, "a\x7f": false, "(a)": false,
	} {
		if got := httpname.IsToken(s); got != want {
			t.Errorf("IsToken(%q) = %v", s, got)
		}
	}
}

func TestIsValue(t *testing.T) {
	for s, want := range map[string]bool{
		"": true, "Bearer abc": true, "a\tb": true, "\xff\xfe": true, "é": true,
		"a\r\nb": false, "a\x00": false, "\x7f": false, "\n": false,
	} {
		if got := httpname.IsValue(s); got != want {
			t.Errorf("IsValue(%q) = %v", s, got)
		}
	}
}
