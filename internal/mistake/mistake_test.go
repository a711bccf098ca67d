package mistake_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/requestforge/requestforge/internal/mistake"
)

func TestListJoinsAllMistakes(t *testing.T) {
	var list mistake.List
	if err := list.Err(); err != nil {
		t.Errorf("an empty list is the error %v", err)
	}
	list.Addf("Steps[%d] has no Name", 0)
	list.Addf("cause: %w", io.EOF)
	err := list.Err()
	if want := "requestforge: Steps[0] has no Name\nrequestforge: cause: EOF"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if !errors.Is(err, io.EOF) {
		t.Error("the cause is lost")
	}
}

func TestEachTakesJoinedErrorsApart(t *testing.T) {
	err := errors.Join(errors.New("requestforge: a"), errors.Join(errors.New("b"), errors.New("requestforge: c")))
	var got []string
	mistake.Each(err, func(text string) { got = append(got, text) })
	mistake.Each(nil, func(text string) { t.Errorf("nil has the mistake %q", text) })
	if want := []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestInNamesEachMistake(t *testing.T) {
	if err := mistake.In("Config", nil); err != nil {
		t.Errorf("no mistakes are the error %v", err)
	}
	errs := []error{errors.New("a"), io.EOF}
	err := mistake.In("Config", errs)
	if want := "Config: a\nConfig: EOF"; err.Error() != want || !errors.Is(err, io.EOF) {
		t.Errorf("got %q, want %q", err, want)
	}
	if errs[0].Error() != "a" {
		t.Error("the errors given were changed")
	}
}

func TestIsNil(t *testing.T) {
	var transport *http.Transport
	var f http.HandlerFunc
	var m http.Header
	for _, v := range []any{transport, f, m, []int(nil), (chan int)(nil)} {
		if !mistake.IsNil(v) {
			t.Errorf("a nil %T is not found", v)
		}
	}
	for _, v := range []any{nil, 0, "", struct{}{}, new(int), http.Header{}} {
		if mistake.IsNil(v) {
			t.Errorf("%#v is taken for nil", v)
		}
	}
}

func TestFinal(t *testing.T) {
	err := fmt.Errorf("wrapped: %w", mistake.Final(io.EOF))
	judge, ok := errors.AsType[interface {
		error
		RetryVerdict() (bool, time.Duration)
	}](err)
	if !ok {
		t.Fatal("no verdict")
	}
	if retry, after := judge.RetryVerdict(); retry || after != 0 {
		t.Errorf("got %v, %v", retry, after)
	}
	if !errors.Is(err, io.EOF) || err.Error() != "wrapped: EOF" {
		t.Errorf("got %v", err)
	}
}
