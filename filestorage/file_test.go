package filestorage

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/requestforge/requestforge"
)

func FuzzDecode(f *testing.F) {
	r := requestforge.Record{Key: "k\xff", Token: &requestforge.Token{AccessToken: "a", RefreshToken: "\x00"}}
	data, err := r.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	whole, err := table{"k\xff": {data, 3, 2, 9}, "": {mark: 1}}.encode()
	if err != nil {
		f.Fatal(err)
	}
	_, body, _ := bytes.Cut(whole, []byte("\n"))
	f.Add(body, true)
	for _, s := range []string{"", "{}", `{"entries":null}`, `{"ENTRIES":[{}]}`, `{"entries":[{"key":null,"until":-1}]} `} {
		f.Add([]byte(s), true)
	}
	f.Add(whole, false)
	for _, s := range []string{"", magic, magic + version, magic + "2 ", string(header(nil)), string(header([]byte("a")))} {
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, sum bool) {
		if sum {
			data = append(header(data), data...)
		}
		first, err := decode("path", data)
		if err != nil {
			if !strings.Contains(err.Error(), "path") {
				t.Fatalf("%v names no path", err)
			}
			return
		}
		encoded, err := first.encode()
		if err != nil {
			t.Fatal(err)
		}
		second, err := decode("path", encoded)
		if err != nil || !reflect.DeepEqual(first, second) {
			t.Fatalf("%q became %q, %v", data, encoded, err)
		}
		again, err := second.encode()
		if err != nil || !bytes.Equal(encoded, again) {
			t.Fatalf("%q is encoded as %q and as %q, %v", data, encoded, again, err)
		}
	})
}

// Whatever is written can be read: the bound of both sides is the same.
func TestFileIsBounded(t *testing.T) {
	tokens := table{"k": {record: make([]byte, 13<<20), stamp: 1}}
	if data, err := tokens.encode(); err == nil {
		t.Errorf("a file of %d bytes", len(data))
	}
}
