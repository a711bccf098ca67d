// What a MemoryStorage keeps of a record, and that nobody sees it.

package requestforge

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/requestforge/requestforge/internal/loginjar"
)

// anyRecord draws a record of any kind, with the bytes and times that a shared storage
// keeps.
func anyRecord(t *rapid.T) Record {
	bytes := rapid.SampledFrom([]string{"", "a", "hunter2", "Bearer", "bearer", "DPoP", "urn:x", "\xff\x00", "k"})
	instant := func(name string) time.Time {
		if rapid.Bool().Draw(t, name+" is zero") {
			return time.Time{}
		}
		zone := time.FixedZone("", rapid.IntRange(-14*3600, 14*3600).Draw(t, "zone"))
		return time.Unix(rapid.Int64().Draw(t, name), rapid.Int64Range(0, 1e9-1).Draw(t, "ns")).In(zone)
	}
	tok := &Token{
		AccessToken:  bytes.Draw(t, "access"),
		TokenType:    bytes.Draw(t, "type"),
		RefreshToken: bytes.Draw(t, "refresh"),
		Expiry:       instant("expiry"),
	}
	switch rapid.IntRange(0, 5).Draw(t, "extra") {
	case 0:
		tok.Extra = map[string]any{}
	case 1:
		tok.Extra = map[string]any{"n": 1.5, "user": map[string]any{"id": "x"}, "list": []any{nil, "y"}}
	}
	if rapid.IntRange(0, 5).Draw(t, "jar") == 0 {
		tok.jar = loginjar.New()
		from, _ := url.Parse("https://login.example.com/")
		for i := range rapid.IntRange(0, 3).Draw(t, "cookies") {
			tok.jar.SetCookies(from, []*http.Cookie{{Name: fmt.Sprint("c", i), Value: "hunter2"}})
		}
	}
	return Record{
		Key:     rapid.OneOf(rapid.Just("k"), rapid.Just("k"), bytes).Draw(t, "key"), // mostly as it is saved under
		Token:   tok,
		Stamp:   rapid.Uint64Range(0, maxStamp-1).Draw(t, "stamp"),
		Lineage: rapid.OneOf(rapid.Just(map[string]uint64(nil)), rapid.MapOfN(bytes, rapid.Uint64Range(0, maxStamp), 0, 3)).Draw(t, "lineage"),
		Issued:  instant("issued"),
		Until:   time.Unix(rapid.Int64Range(-1<<40, 1<<40).Draw(t, "until"), 1).UTC(),
		Keep:    time.Duration(rapid.Int64().Draw(t, "keep")),

		Challenge: rapid.OneOf(rapid.Just(map[string]string(nil)), rapid.MapOfN(bytes, bytes, 0, 3)).Draw(t, "challenge"),
	}
}

func sameRecord(t *rapid.T, want, got Record) {
	encoded := func(r Record) ([]byte, *loginjar.Jar) {
		data, err := r.MarshalBinary()
		require.NoError(t, err)
		tok := *r.Token
		return data, tok.jar
	}
	wantData, wantJar := encoded(want)
	gotData, gotJar := encoded(got)
	require.Equal(t, string(wantData), string(gotData))
	require.Equal(t, wantJar == nil, gotJar == nil)
	for _, r := range []*Record{&want, &got} { // the jars count what has happened to them
		tok := *r.Token
		tok.jar = nil
		r.Token = &tok
	}
	require.True(t, reflect.DeepEqual(want, got), "%#v is not %#v", got, want)
}

func TestMemoryStorageGivesBackWhatASharedOneWould(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRecord(t)
		data, err := r.MarshalBinary()
		require.NoError(t, err)
		var want Record
		require.NoError(t, want.UnmarshalBinary(data))
		want.Stamp++

		s := NewMemoryStorage()
		saved, err := s.Save(t.Context(), "k", r, 0)
		require.NoError(t, err)
		sameRecord(t, want, *saved.Record)
		for range 2 {
			entries, err := s.Load(t.Context(), "k")
			require.NoError(t, err)
			sameRecord(t, want, *entries[0].Record)

			// Whoever changes what was given or taken changes nothing.
			for _, r := range []*Record{&r, entries[0].Record, saved.Record} {
				r.Token.AccessToken = "changed"
				if user, ok := r.Token.Extra["user"].(map[string]any); ok {
					user["id"] = "changed"
				}
				clear(r.Token.Extra)
				for _, key := range []string{"", "a", "k"} {
					if r.Lineage != nil {
						r.Lineage[key] = 99
					}
				}
				if r.Token.jar != nil {
					u, _ := url.Parse("https://login.example.com/")
					r.Token.jar.SetCookies(u, []*http.Cookie{{Name: "c0", Value: "changed"}})
				}
			}
		}
	})
}

// Not only fmt: printers that go through unexported fields and pointers (go-spew, a
// debugger of a framework) find no secret either.
func TestMemoryStorageHoldsNoSecretThatReflectionFinds(t *testing.T) {
	s := NewMemoryStorage()
	for i, tok := range []*Token{
		{AccessToken: "hunter2", RefreshToken: "hunter2"},
		{AccessToken: "hunter2", RefreshToken: "hunter2", TokenType: "hunter2", Extra: map[string]any{"hunter2": "hunter2"}, jar: jarWith(t, "https://h.example/", "sid=hunter2")},
	} {
		_, err := s.Save(t.Context(), fmt.Sprint("k", i), Record{Token: tok, Lineage: map[string]uint64{"p": 1}}, 0)
		require.NoError(t, err)
	}
	_, _, err := s.TryLock(t.Context(), "k0")
	require.NoError(t, err)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{s, struct{ s *MemoryStorage }{s}, s.entries, maps.Clone(s.entries)["k0"], *s.entries["k0"], []memoryEntry{*s.entries["k1"]}} {
			require.NotContains(t, fmt.Sprintf(verb, v), "hunter2")
			require.NotContains(t, fmt.Sprintf(verb, v), "68756e74657232")
		}
	}
	seen, strings := map[uintptr]bool{}, 0
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.String:
			strings++
			require.NotContains(t, v.String(), "hunter2")
		case reflect.Slice, reflect.Array:
			if v.Type().Elem().Kind() == reflect.Uint8 {
				require.False(t, bytes.Contains([]byte(fmt.Sprintf("%s", v)), []byte("hunter2")))
			}
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.Pointer, reflect.Interface:
			if v.Kind() == reflect.Pointer && seen[v.Pointer()] || v.IsNil() {
				return
			}
			if v.Kind() == reflect.Pointer {
				seen[v.Pointer()] = true
			}
			walk(v.Elem())
		case reflect.Map:
			for _, key := range v.MapKeys() {
				walk(key)
				walk(v.MapIndex(key))
			}
		case reflect.Struct:
			for i := range v.NumField() {
				walk(v.Field(i))
			}
		}
	}
	walk(reflect.ValueOf(s))
	require.Positive(t, strings, "the keys, at least")
}

func TestMemoryStorageDropForgetsAllOfAKey(t *testing.T) {
	s, ctx := NewMemoryStorage(), t.Context()
	s.drop("k") // of an empty one
	rec := func(key string) Record { return Record{Key: key, Token: &Token{AccessToken: "a"}} }
	for _, key := range []string{"record", "mark", "gone", "stays"} {
		e, err := s.Save(ctx, key, rec(key), 0)
		require.NoError(t, err)
		if key == "mark" {
			require.NoError(t, s.Revoke(ctx, key, 7))
		}
		if key == "gone" {
			_, err := s.Delete(ctx, key, e.Version())
			require.NoError(t, err)
		}
	}
	lease, ok, err := s.TryLock(ctx, "record")
	require.NoError(t, err)
	require.True(t, ok)
	s.drop("record", "mark", "gone", "unknown")
	got, err := s.Load(ctx, "record", "mark", "gone")
	require.NoError(t, err)
	require.Equal(t, make([]Entry, 3), got)
	got, err = s.Load(ctx, "stays")
	require.NoError(t, err)
	require.NotNil(t, got[0].Record)
	require.Len(t, s.entries, 1)
	_, ok, err = s.TryLock(ctx, "record")
	require.NoError(t, err)
	require.False(t, ok, "whoever holds the lock of a key still does")
	require.NoError(t, lease.Unlock(ctx))

	// As after any loss, the floor keeps stamps rising.
	r := rec("mark")
	r.Stamp = 8
	saved, err := s.Save(ctx, "mark", r, 1)
	require.NoError(t, err)
	require.EqualValues(t, 9, saved.Version())
}

// traffic makes enough changes for each entry to be looked at, and leaves none.
func traffic(t *testing.T, s *MemoryStorage) {
	t.Helper()
	for range 2 * max(memorySweep, len(s.entries)) {
		_, err := s.Save(t.Context(), "traffic", Record{Token: &Token{AccessToken: "a"}}, 0)
		require.NoError(t, err)
		s.drop("traffic")
	}
}

// What the contract lets a Storage drop goes, and nothing else.
func TestMemoryStorageDropsWhatIsOfNoUseAnyMore(t *testing.T) {
	const day = 24 * time.Hour
	type step struct {
		after time.Duration // from the begin
		here  bool
	}
	for name, test := range map[string]struct {
		expires time.Duration // 0: never
		keep    time.Duration
		change  func(s *MemoryStorage)
		wants   []step
	}{
		"a record":                   {time.Hour, time.Hour, nil, []step{{2*time.Hour - time.Second, true}, {2*time.Hour + 5*time.Second, false}}},
		"a record without Keep":      {time.Hour, 0, nil, []step{{400 * day, true}}},
		"a record below zero":        {time.Hour, -time.Hour, nil, []step{{400 * day, true}}},
		"a record without an expiry": {0, time.Hour, nil, []step{{400 * day, true}}},
		"a record for ever":          {time.Hour, 1<<63 - 1, nil, []step{{400 * day, true}}},
		"a record that was revoked": {time.Hour, time.Hour, func(s *MemoryStorage) { s.Revoke(t.Context(), "k", 5) },
			[]step{{2*time.Hour - time.Second, true}, {2*time.Hour + 5*time.Second, false}}},
		"a tombstone": {time.Hour, time.Hour, func(s *MemoryStorage) { s.Delete(t.Context(), "k", 1) },
			[]step{{30*day - time.Second, true}, {30*day + 5*time.Second, false}}},
		"a tombstone that is revoked": {time.Hour, time.Hour,
			func(s *MemoryStorage) {
				s.Delete(t.Context(), "k", 1)
				time.Sleep(20 * day)
				s.Revoke(t.Context(), "k", 9)
			},
			[]step{{50*day - time.Second, true}, {50*day + 5*time.Second, false}}},
		"a tombstone of a long Keep": {time.Hour, 90 * day, func(s *MemoryStorage) { s.Delete(t.Context(), "k", 1) },
			[]step{{90*day - time.Second, true}, {91 * day, false}}},
		"a tombstone of a Keep without an expiry": {0, 90 * day, func(s *MemoryStorage) { s.Delete(t.Context(), "k", 1) },
			[]step{{90*day - time.Second, true}, {90*day + 5*time.Second, false}}},
		"a tombstone of a long life": {90 * day, time.Hour, func(s *MemoryStorage) { s.Delete(t.Context(), "k", 1) },
			[]step{{90*day - time.Second, true}, {91 * day, false}}},
		"a tombstone of what stays": {time.Hour, 0, func(s *MemoryStorage) { s.Delete(t.Context(), "k", 1) },
			[]step{{30*day - time.Second, true}, {30*day + 5*time.Second, false}}},
		"a second tombstone": {time.Hour, 90 * day,
			func(s *MemoryStorage) {
				e, _ := s.Delete(t.Context(), "k", 1)
				s.Save(t.Context(), "k", Record{Key: "k", Token: &Token{AccessToken: "b"}}, e.Version())
				s.Delete(t.Context(), "k", e.Version()+1)
			},
			[]step{{90*day - time.Second, true}, {91 * day, false}}},
		"a record after a tombstone": {time.Hour, time.Hour,
			func(s *MemoryStorage) {
				e, _ := s.Delete(t.Context(), "k", 1)
				r := Record{Key: "k", Token: &Token{AccessToken: "b", Expiry: time.Now().Add(time.Hour)}, Keep: time.Hour}
				s.Save(t.Context(), "k", r, e.Version())
			},
			[]step{{30*day - time.Second, true}, {30*day + 5*time.Second, false}}},
		"a lasting record after a tombstone": {time.Hour, time.Hour,
			func(s *MemoryStorage) {
				e, _ := s.Delete(t.Context(), "k", 1)
				s.Save(t.Context(), "k", Record{Key: "k", Token: &Token{AccessToken: "b"}}, e.Version())
			},
			[]step{{400 * day, true}}},
		"a mark without a record": {time.Hour, time.Hour,
			func(s *MemoryStorage) { s.drop("k"); s.Revoke(t.Context(), "k", 5) },
			[]step{{30*day - time.Second, true}, {30*day + 5*time.Second, false}}},
		"a record after a mark": {time.Hour, time.Hour,
			func(s *MemoryStorage) {
				s.drop("k")
				s.Revoke(t.Context(), "k", 5)
				r := Record{Key: "k", Token: &Token{AccessToken: "b", Expiry: time.Now().Add(time.Hour)}, Keep: time.Hour}
				s.Save(t.Context(), "k", r, 0)
			},
			[]step{{2*time.Hour - time.Second, true}, {2*time.Hour + 5*time.Second, false}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, begin := NewMemoryStorage(), time.Now()
				r := Record{Key: "k", Token: &Token{AccessToken: "a"}, Keep: test.keep}
				if test.expires != 0 {
					r.Token.Expiry = begin.Add(test.expires)
				}
				_, err := s.Save(t.Context(), "k", r, 0)
				require.NoError(t, err)
				if test.change != nil {
					test.change(s)
				}
				want, err := s.Load(t.Context(), "k")
				require.NoError(t, err)
				require.NotEqual(t, Entry{}, want[0])
				for _, step := range test.wants {
					time.Sleep(time.Until(begin.Add(step.after)))
					traffic(t, s)
					if !step.here {
						want = []Entry{{}}
					}
					got, err := s.Load(t.Context(), "k")
					require.NoError(t, err)
					require.Equal(t, want, got, "after %v", step.after)
				}
			})
		})
	}
}

// However many users come and go, there is room for twice those of one time, and after a
// rush it is given back.
func TestMemoryStorageStaysSmallWhileUsersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, users := NewMemoryStorage(), 0
		hour := func(n int) {
			for range n {
				time.Sleep(time.Hour / time.Duration(n))
				users++
				key := fmt.Sprint("p:user/", users)
				r := Record{Key: key, Token: &Token{AccessToken: "a", Expiry: time.Now().Add(time.Hour)}, Keep: time.Hour}
				saved, err := s.Save(t.Context(), key, r, 0)
				require.NoError(t, err)
				require.NotNil(t, saved.Record)
			}
		}
		for range 100 {
			hour(100)
			require.LessOrEqual(t, len(s.entries), 2*201+memorySweep)
		}
		hour(10_000)
		for range 201 { // as many changes as there are entries
			hour(100)
		}
		require.LessOrEqual(t, len(s.entries), 2*201+memorySweep)
		require.LessOrEqual(t, s.most, 2*(2*201+memorySweep), "the map is a new one")
	})
}
