package requestforge_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

func TestMemoryStorageKeepsTheContract(t *testing.T) {
	authtest.TestStorage(t, func(t *testing.T) requestforge.Storage { return requestforge.NewMemoryStorage() })
}

func TestMemoryStorageZeroValueWorks(t *testing.T) {
	authtest.TestStorage(t, func(t *testing.T) requestforge.Storage { return new(requestforge.MemoryStorage) })
}

// modelEntry is what a storage holds under one key, as the contract has it.
type modelEntry struct {
	token             string // "": none
	stamp, mark, gone uint64
}

// takes reports whether a Save or Delete that has seen a version is heeded.
func (e modelEntry) takes(seen uint64) bool {
	return e.stamp == 0 && e.gone == 0 || seen == e.version()
}

func (e modelEntry) version() uint64 {
	if e.token != "" {
		return e.stamp
	}
	return e.gone
}

func (e modelEntry) check(t *rapid.T, call string, got requestforge.Entry) {
	if got.Version() != e.version() {
		t.Fatalf("%s returned version %d, want %d", call, got.Version(), e.version())
	}
	have := modelEntry{mark: got.Mark, gone: got.Gone}
	if got.Record != nil {
		have.token, have.stamp = got.Record.Token.AccessToken, got.Record.Stamp
	}
	if have != e {
		t.Fatalf("%s returned %+v, want %+v", call, have, e)
	}
}

func TestMemoryStorageMatchesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := t.Context()
		s := requestforge.NewMemoryStorage()
		model := map[string]modelEntry{} // a missing key is the zero entry
		saves := 0

		keys := rapid.SampledFrom([]string{"a", "b", "c"})
		stamps := rapid.Uint64Range(0, 20)
		seen := func(t *rapid.T, e modelEntry) uint64 {
			if rapid.Bool().Draw(t, "stale") {
				return stamps.Draw(t, "seen")
			}
			return e.version()
		}
		t.Repeat(map[string]func(*rapid.T){
			"Load": func(t *rapid.T) {
				keys := rapid.SliceOfN(keys, 0, 5).Draw(t, "keys")
				entries, err := s.Load(ctx, keys...)
				require.NoError(t, err)
				require.Len(t, entries, len(keys))
				for i, key := range keys {
					model[key].check(t, "Load", entries[i])
				}
			},
			"Save": func(t *rapid.T) {
				key := keys.Draw(t, "key")
				seen := seen(t, model[key])
				floor := stamps.Draw(t, "floor")
				saves++
				token := fmt.Sprint("token ", saves)
				if e := model[key]; e.takes(seen) {
					model[key] = modelEntry{token: token, stamp: max(e.stamp, e.mark, e.gone, floor) + 1, mark: e.mark, gone: e.gone}
				}
				got, err := s.Save(ctx, key, requestforge.Record{
					Key: key, Stamp: floor, Token: &requestforge.Token{AccessToken: token},
				}, seen)
				require.NoError(t, err)
				model[key].check(t, "Save", got)
			},
			"Revoke": func(t *rapid.T) {
				key, stamp := keys.Draw(t, "key"), stamps.Draw(t, "stamp")
				e := model[key]
				e.mark = max(e.mark, stamp)
				model[key] = e
				require.NoError(t, s.Revoke(ctx, key, stamp))
			},
			"Delete": func(t *rapid.T) {
				key := keys.Draw(t, "key")
				seen := seen(t, model[key])
				if e := model[key]; e.takes(seen) {
					model[key] = modelEntry{mark: e.mark, gone: max(seen, e.mark, e.gone) + 1}
				}
				got, err := s.Delete(ctx, key, seen)
				require.NoError(t, err)
				model[key].check(t, "Delete", got)
			},
		})
	})
}

func TestMemoryStorageDoneContextDoesNothing(t *testing.T) {
	s := requestforge.NewMemoryStorage()
	want, err := s.Save(t.Context(), "k", recordOf("k", "first"), 0)
	require.NoError(t, err)

	cause := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err = s.Load(ctx, "k")
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.Save(ctx, "k", recordOf("k", "second"), 1)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.Revoke(ctx, "k", 1), context.Canceled)
	_, err = s.Delete(ctx, "k", 1)
	require.ErrorIs(t, err, context.Canceled)
	_, ok, err := s.TryLock(ctx, "k")
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, ok)

	got, err := s.Load(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, []requestforge.Entry{want}, got)
	lease, ok, err := s.TryLock(t.Context(), "k")
	require.NoError(t, err)
	require.True(t, ok, "a TryLock that failed has locked the key")

	require.NoError(t, lease.Unlock(ctx), "a lease must end even if its holder's context has")
	_, ok, err = s.TryLock(t.Context(), "k")
	require.NoError(t, err)
	require.True(t, ok)
}

func TestMemoryStorageRefusesWhatCannotBeStored(t *testing.T) {
	s := requestforge.NewMemoryStorage()
	r := recordOf("k", "first")
	r.Token.Extra = map[string]any{"conn": make(chan int)}
	_, err := s.Save(t.Context(), "k", r, 0)
	require.ErrorContains(t, err, `Extra["conn"]`)
	got, err := s.Load(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, []requestforge.Entry{{}}, got)
}

// A logout leaves nothing of the token, and is remembered.
func TestMemoryStorageKeepsNothingButTheTombstoneOfALogout(t *testing.T) {
	s := requestforge.NewMemoryStorage()
	r := recordOf("k", "first")
	r.Token.Expiry, r.Keep = time.Now().Add(-2*time.Hour), time.Hour // of no use any more
	saved, err := s.Save(t.Context(), "k", r, 0)
	require.NoError(t, err)
	require.NoError(t, s.Revoke(t.Context(), "k", 4))
	want := requestforge.Entry{Mark: 4, Gone: 5}
	got, err := s.Delete(t.Context(), "k", saved.Version())
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, want.Gone, got.Version())

	late, err := s.Save(t.Context(), "k", recordOf("k", "late"), saved.Version())
	require.NoError(t, err)
	require.Equal(t, want, late)
	next, err := s.Save(t.Context(), "k", recordOf("k", "next"), want.Version())
	require.NoError(t, err)
	require.EqualValues(t, 6, next.Version())
	require.EqualValues(t, 5, next.Gone)
}

// recordOf returns a small record.
func recordOf(key, access string) requestforge.Record {
	return requestforge.Record{Key: key, Token: &requestforge.Token{AccessToken: access}}
}

// recordTests are records, and what they come back as where that differs.
var recordTests = []struct {
	name string
	in   requestforge.Record
	out  *requestforge.Record // nil: as in
}{
	{name: "bare", in: recordOf("", "")},
	{
		name: "full",
		in: requestforge.Record{
			Key: "pre:user",
			Token: &requestforge.Token{
				AccessToken: "access", TokenType: "MAC", RefreshToken: "refresh",
				Expiry: time.Date(2026, 7, 8, 9, 10, 11, 123456789, time.UTC),
				Extra: map[string]any{
					"id":   json.Number("9007199254740993"),
					"deep": map[string]any{"list": []any{json.Number("-0"), nil, true, "<&>\u2028", map[string]any{}, []any{}}},
					"1.10": json.Number("1.10"), "1e400": json.Number("1e400"), "nil": nil, "": "",
				},
			},
			Stamp:   1<<53 - 1,
			Lineage: map[string]uint64{"pre:device": 1<<53 - 1, "pre:app": 0, "\xff": 1, "\xfe": 2},
			Issued:  time.Date(2026, 7, 8, 9, 10, 11, 1, time.UTC),
			Keep:    math.MaxInt64,
		},
	},
	{
		name: "bytes that aren't UTF-8",
		in: requestforge.Record{
			Key:   "\xff\x00",
			Token: &requestforge.Token{AccessToken: "\xc3(", TokenType: "\x00\xff", RefreshToken: "\xed\xa0\x80"},
		},
	},
	{
		name: "any year",
		in: requestforge.Record{
			Token:  &requestforge.Token{Expiry: time.Date(292277026596, 12, 4, 15, 30, 7, 999999999, time.UTC)},
			Issued: time.Date(-5000, 1, 1, 0, 0, 0, 1, time.UTC),
			Keep:   math.MinInt64,
		},
	},
	{
		name: "the epoch",
		in:   requestforge.Record{Token: &requestforge.Token{Expiry: time.Unix(0, 0).UTC()}, Issued: time.Unix(-1, 0).UTC()},
	},
	{
		name: "empty maps",
		in:   requestforge.Record{Token: &requestforge.Token{Extra: map[string]any{}}, Lineage: map[string]uint64{}},
	},
	{
		name: "another zone",
		in:   requestforge.Record{Token: &requestforge.Token{Expiry: time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))}},
		out:  &requestforge.Record{Token: &requestforge.Token{Expiry: time.Date(2026, 1, 2, 2, 4, 5, 6, time.UTC)}},
	},
	{
		name: "Go values in Extra",
		in: requestforge.Record{Token: &requestforge.Token{Extra: map[string]any{
			"int": -42, "uint64": uint64(math.MaxUint64), "float": 0.1, "strings": []string{"a"},
			"struct": struct{ A int }{1}, "raw": json.RawMessage(` { "b" : 1.0 } `),
		}}},
		out: &requestforge.Record{Token: &requestforge.Token{Extra: map[string]any{
			"int": json.Number("-42"), "uint64": json.Number("18446744073709551615"), "float": json.Number("0.1"),
			"strings": []any{"a"}, "struct": map[string]any{"A": json.Number("1")}, "raw": map[string]any{"b": json.Number("1.0")},
		}}},
	},
}

func TestRecordEncodingIsExact(t *testing.T) {
	for _, test := range recordTests {
		t.Run(test.name, func(t *testing.T) {
			data, err := test.in.MarshalBinary()
			require.NoError(t, err)
			again, err := test.in.MarshalBinary()
			require.NoError(t, err)
			require.Equal(t, data, again, "the same record has two encodings")

			want := test.in
			if test.out != nil {
				want = *test.out
			}
			given := bytes.Clone(data)
			var got requestforge.Record
			require.NoError(t, got.UnmarshalBinary(given))
			clear(given) // UnmarshalBinary must not keep it.
			require.True(t, reflect.DeepEqual(got, want), "the record has changed")
			again, err = got.MarshalBinary()
			require.NoError(t, err)
			require.Equal(t, data, again, "what was decoded is encoded differently")
		})
	}
}

func TestRecordEncodingKeepsInstantsOfAnyClock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		instant := rapid.Custom(func(t *rapid.T) time.Time {
			zone := time.FixedZone("", rapid.IntRange(-14*3600, 14*3600).Draw(t, "zone"))
			return time.Unix(rapid.Int64().Draw(t, "s"), rapid.Int64Range(0, 1e9-1).Draw(t, "ns")).In(zone)
		})
		r := requestforge.Record{
			Token:  &requestforge.Token{Expiry: instant.Draw(t, "expiry")},
			Issued: instant.Draw(t, "issued"),
		}
		data, err := r.MarshalBinary()
		require.NoError(t, err)
		var got requestforge.Record
		require.NoError(t, got.UnmarshalBinary(data))
		if !got.Token.Expiry.Equal(r.Token.Expiry) || !got.Issued.Equal(r.Issued) {
			t.Fatalf("%v and %v became %v and %v", r.Token.Expiry, r.Issued, got.Token.Expiry, got.Issued)
		}
	})
}

func TestRecordInGobKeepsItsToken(t *testing.T) {
	var buf bytes.Buffer
	require.NoError(t, gob.NewEncoder(&buf).Encode(recordOf("k", "a")))
	var got requestforge.Record
	require.NoError(t, gob.NewDecoder(&buf).Decode(&got))
	require.Equal(t, "a", got.Token.AccessToken)
}

// leakyJSON fails to be JSON with an error that quotes it.
type leakyJSON string

func (l leakyJSON) MarshalJSON() ([]byte, error) {
	return nil, fmt.Errorf("can't encode %s", string(l))
}

// moodyJSON fails to be JSON the first time only.
type moodyJSON struct{ tried bool }

func (m *moodyJSON) MarshalJSON() ([]byte, error) {
	if !m.tried {
		m.tried = true
		return nil, errors.New("hunter2")
	}
	return []byte("1"), nil
}

func TestRecordThatCannotBeEncodedIsAnErrorWithoutContent(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	itself := map[string]any{"s": secret}
	itself["itself"] = itself
	deep := any(secret)
	for range 10_000 {
		deep = []any{deep}
	}
	extra := func(key string, v any) requestforge.Record {
		r := recordOf(secret, secret)
		r.Token.Extra = map[string]any{"fine": 1, key: v}
		return r
	}
	for name, test := range map[string]struct {
		r    requestforge.Record
		want string
	}{
		"no token":          {requestforge.Record{Key: "k"}, "no token"},
		"stamp":             {requestforge.Record{Token: &requestforge.Token{}, Stamp: 1 << 53}, "2^53"},
		"lineage":           {requestforge.Record{Token: &requestforge.Token{}, Lineage: map[string]uint64{secret: 1 << 53}}, "2^53"},
		"function":          {extra("call", func() {}), `Extra["call"] (func())`},
		"NaN":               {extra("nan", math.NaN()), `Extra["nan"]`},
		"not a number":      {extra("num", json.Number(secret)), `Extra["num"]`},
		"nested":            {extra("nest", []any{map[string]any{secret: json.Number(secret)}}), `Extra["nest"]`},
		"marshaler's error": {extra("leak", leakyJSON(secret)), `Extra["leak"]`},
		"moody marshaler":   {extra("mood", new(moodyJSON)), "Extra can't be stored"},
		"holds itself":      {extra("self", itself), `Extra["self"]`},
		"bytes":             {extra("bytes", secret+"\xff"), `Extra["bytes"]`},
		"bytes in a list":   {extra("list", []any{"fine", secret + "\xff"}), `Extra["list"]`},
		"bytes in a map":    {extra("map", map[string]any{"a": secret + "\xff"}), `Extra["map"]`},
		"bytes in a key":    {extra("key", map[string]any{secret + "\xff": 1}), `Extra["key"]`},
		"bytes in its key":  {extra("\xff", 1), `Extra["\xff"]`},
		"too deep":          {extra("deep", deep), "deep"},
		"too large":         {recordOf("k", strings.Repeat(secret, 1<<20)), "4 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := test.r.MarshalBinary()
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), secret)
			require.Nil(t, data)
			if name == "moody marshaler" {
				return // it has been asked
			}
			_, same := requestforge.NewMemoryStorage().Save(t.Context(), test.r.Key, test.r, 0)
			require.EqualError(t, same, err.Error())
		})
	}
}

func TestRecordThatIsDamagedIsAnErrorWithoutContent(t *testing.T) {
	const secret = "hunter2"
	const good = `rf1:{"key":"aw==","stamp":1,"token":{"access":"YQ==","type":"","refresh":"","expiry":null,"extra":{"a":1}},` +
		`"lineage":[{"key":"YQ==","stamp":1}],"issued":{"s":1,"ns":2},"keep":3}`
	require.NoError(t, new(requestforge.Record).UnmarshalBinary([]byte(good)))
	with := func(from, to string) string {
		require.Contains(t, good, from)
		return strings.Replace(good, from, to, 1)
	}
	for name, test := range map[string]struct{ data, want string }{
		"empty":                  {"", "version"},
		"no version":             {good[len("rf1:"):], "version"},
		"unknown version":        {with("rf1:", "rf2:"), "version"},
		"nothing but a version":  {"rf1:", "damaged"},
		"null":                   {"rf1:null", "no token"},
		"a list":                 {`rf1:["hunter2"]`, "damaged"},
		"cut":                    {good[:len(good)-1], "damaged"},
		"trailing space":         {good + " ", "damaged"},
		"trailing text":          {good + secret, "damaged"},
		"a second record":        {good + good[len("rf1:"):], "damaged"},
		"unknown field":          {with(`"keep"`, `"hunter2":1,"keep"`), "damaged"},
		"no token":               {with(`"token":{"access":"YQ==","type":"","refresh":"","expiry":null,"extra":{"a":1}},`, ""), "no token"},
		"not base64":             {with(`"YQ=="`, `"hunter2"`), "damaged"},
		"a number for a token":   {with(`"YQ=="`, `4711`), "damaged"},
		"a string for a stamp":   {with(`"stamp":1`, `"stamp":"hunter2"`), "damaged"},
		"a fraction for a stamp": {with(`"stamp":1`, `"stamp":4711.5`), "damaged"},
		"negative stamp":         {with(`"stamp":1`, `"stamp":-4711`), "damaged"},
		"stamp 2^53":             {with(`"stamp":1,"token"`, `"stamp":9007199254740992,"token"`), "2^53"},
		"ancestor 2^53":          {with(`"stamp":1}`, `"stamp":9007199254740992}`), "2^53"},
		"an ancestor twice":      {with(`{"key":"YQ==","stamp":1}`, `{"key":"YQ==","stamp":1},{"key":"YQ==","stamp":2}`), "damaged"},
		"nanoseconds below 0":    {with(`"ns":2`, `"ns":-1`), "damaged"},
		"nanoseconds of 1 s":     {with(`"ns":2`, `"ns":1000000000`), "damaged"},
		"too deep":               {with(`{"a":1}`, `{"a":`+strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000)+`}`), "damaged"},
		"too large":              {good + strings.Repeat(" ", 4<<20), "4 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			r := recordOf("as", "it was")
			err := r.UnmarshalBinary([]byte(test.data))
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), secret)
			require.NotContains(t, err.Error(), "4711")
			require.True(t, reflect.DeepEqual(recordOf("as", "it was"), r), "the record was changed")
		})
	}
}

func TestStorageTypesPrintNoSecrets(t *testing.T) {
	const secret = "hunter2"
	r := requestforge.Record{
		Key:     "pre:user",
		Token:   &requestforge.Token{AccessToken: secret, TokenType: secret, RefreshToken: secret, Extra: map[string]any{secret: secret}},
		Stamp:   17,
		Lineage: map[string]uint64{"pre:app": 4},
		Issued:  time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	e := requestforge.Entry{Record: &r, Mark: 3}
	s := requestforge.NewMemoryStorage()
	_, err := s.Save(t.Context(), "pre:user", r, 0)
	require.NoError(t, err)
	lease, _, err := s.TryLock(t.Context(), "pre:user")
	require.NoError(t, err)
	// A []byte prints as numbers and goes into JSON as base64.
	encoded, err := r.MarshalBinary()
	require.NoError(t, err)
	hidden := []string{
		secret,
		strings.Trim(fmt.Sprint([]byte(secret)), "[]"),
		"aHVudGVyMg",
		strings.Trim(fmt.Sprint(encoded[:4]), "[]"),
	}

	for name, v := range map[string]any{
		"Record": r, "*Record": &r, "[]Record": []requestforge.Record{r}, "map": map[string]requestforge.Record{"k": r},
		"field": struct{ R requestforge.Record }{r}, "any": struct{ R any }{&r}, "no token": requestforge.Record{}, "nil": (*requestforge.Record)(nil),
		"Entry": e, "*Entry": &e, "[]Entry": []requestforge.Entry{e, {}},
		"MemoryStorage": s, "exported": struct{ S requestforge.Storage }{s}, "unexported": struct{ s *requestforge.MemoryStorage }{s}, "Lease": lease,
	} {
		printed := map[string]string{}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
			printed[verb] = fmt.Sprintf(verb, v)
		}
		data, err := json.Marshal(v)
		require.NoError(t, err, name)
		printed["JSON"] = string(data)
		var text, js bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("msg", "v", v)
		slog.New(slog.NewJSONHandler(&js, nil)).Info("msg", "v", v, slog.Group("g", "v", v))
		printed["slog text"], printed["slog JSON"] = text.String(), js.String()
		for how, got := range printed {
			for _, secret := range hidden {
				require.NotContains(t, got, secret, "%s by %s", name, how)
			}
		}
	}

	got := fmt.Sprint(r)
	require.Equal(t, got, fmt.Sprintf("%#v", r))
	for _, want := range []string{"pre:user", "17", "pre:app", "12026", "REDACTED"} {
		require.Contains(t, got, want)
	}
	require.Contains(t, fmt.Sprint(requestforge.Record{}), "Token:<nil>")
	data, err := json.Marshal(r)
	require.NoError(t, err)
	require.Error(t, json.Unmarshal(data, &requestforge.Record{}), "JSON holds no token, so it must not pass for a record")
}

func FuzzRecord(f *testing.F) {
	for _, test := range recordTests {
		data, err := test.in.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`rf1:{"TOKEN":{"access":null,"extra":{"a":"\ud800","a":{"b":-0.0E+1}}},"lineage":[{}],"issued":{}}`))
	f.Add([]byte("rf1:{\"token\":{\"extra\":{\"\xff\":\"\xfe\"}}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<18 {
			return // It may need more room when it is written again.
		}
		var first, second requestforge.Record
		if err := first.UnmarshalBinary(data); err != nil {
			return
		}
		encoded, err := first.MarshalBinary()
		if err != nil {
			t.Fatalf("what was decoded can't be encoded: %v", err)
		}
		if err := second.UnmarshalBinary(encoded); err != nil {
			t.Fatalf("what was encoded can't be decoded: %v", err)
		}
		if !reflect.DeepEqual(first, second) {
			t.Fatalf("%q became %q", data, encoded)
		}
		again, err := second.MarshalBinary()
		if err != nil || !bytes.Equal(encoded, again) {
			t.Fatalf("%q is encoded as %q and as %q, %v", data, encoded, again, err)
		}
	})
}
