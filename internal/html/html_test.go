package html_test

import (
	"strings"
	"testing"

	"github.com/requestforge/requestforge/internal/html"
)

func TestBegins(t *testing.T) {
	for body, want := range map[string]bool{
		"<html>": true, "<HTML lang=de>": true, "<html": true, "<html/>": true,
		"<!DOCTYPE html>": true, "<!doctype HTML PUBLIC \"-//W3C//DTD HTML 4.01//EN\">": true, "<!doctype html\n>": true,
		"<head><title>": true, "<body class=x>": true,
		"\xef\xbb\xbf \r\n\t<html>": true, "<!-- a > --> <!----><html>": true,
		`<?xml version="1.0"?><!DOCTYPE html PUBLIC "x">`: true, `<?xml version="1.0"?><html xmlns="x">`: true,

		"": false, "<": false, "{}": false, "html": false, "x<html>": false,
		`<?xml version="1.0"?><token>a</token>`: false, "<token>": false, "<soap:Envelope>": false,
		"<html5>": false, "<header>": false, "<htm>": false, "<!doctype htmlx>": false, "<!DOCTYPE note>": false,
		"<!-- <html>": false, "<?xml <html>": false, "<html:page>": false, "<a>": false, "< html>": false,
		strings.Repeat("<!---->", 1000) + "{}": false,
	} {
		if got := html.Begins([]byte(body)); got != want {
			t.Errorf("%.60q: got %v", body, got)
		}
	}
}
