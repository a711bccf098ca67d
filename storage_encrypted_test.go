package requestforge_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// encKey returns a key whose bytes follow from its ID.
func encKey(id string) rf.EncryptionKey {
	key := []byte(strings.Repeat(id+"/", 32)[:32])
	return rf.EncryptionKey{ID: id, Key: key}
}

// encrypt wraps s with the keys of these IDs.
func encrypt(t testing.TB, s rf.Storage, ids ...string) rf.EncryptedStorage {
	t.Helper()
	var cfg rf.EncryptionConfig
	for _, id := range ids {
		cfg.Keys = append(cfg.Keys, encKey(id))
	}
	e, err := rf.NewEncryptedStorage(s, cfg)
	require.NoError(t, err)
	return e
}

// encFull is a record with something in every field.
func encFull() rf.Record {
	return rf.Record{
		Key: "pre:user",
		Token: &rf.Token{
			AccessToken:  "hunter2-access~",
			TokenType:    "HunterType",
			RefreshToken: "hunter2-refresh~",
			Expiry:       time.Date(2123, 4, 5, 6, 7, 8, 987654321, time.UTC),
			Extra:        map[string]any{"hunterName": "hunter2-extra~"},
		},
		Lineage: map[string]uint64{"pre:device": 3, "pre:app": 4},
		Issued:  time.Date(2122, 1, 2, 3, 4, 5, 6, time.UTC),
	}
}

// encBelow is the storage below, in which what is stored can be changed
// behind its back.
type encBelow struct {
	*rf.MemoryStorage
	change func(r *rf.Record) // nil: none
}

func (b *encBelow) Load(ctx context.Context, keys ...string) ([]rf.Entry, error) {
	entries, err := b.MemoryStorage.Load(ctx, keys...)
	for _, e := range entries {
		if e.Record != nil && b.change != nil {
			b.change(e.Record)
		}
	}
	return entries, err
}

func (b *encBelow) Save(ctx context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	e, err := b.MemoryStorage.Save(ctx, key, r, seen)
	if e.Record != nil && b.change != nil {
		b.change(e.Record)
	}
	return e, err
}

func encLoad(t *testing.T, s rf.Storage, key string) rf.Entry {
	t.Helper()
	entries, err := s.Load(t.Context(), key)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	return entries[0]
}

func encStamp(e rf.Entry) uint64 {
	if e.Record == nil {
		return 0
	}
	return e.Record.Stamp
}

func encSave(t *testing.T, s rf.Storage, r rf.Record, seen uint64) rf.Entry {
	t.Helper()
	e, err := s.Save(t.Context(), r.Key, r, seen)
	require.NoError(t, err)
	return e
}

// The new key seals, both unseal: the second stage of changing the key.
func ExampleNewEncryptedStorage() {
	newKey, oldKey := make([]byte, 32), make([]byte, 32)
	rand.Read(newKey) // really from a secret manager
	rand.Read(oldKey)

	store, err := rf.NewEncryptedStorage(rf.NewMemoryStorage(), rf.EncryptionConfig{
		Keys: []rf.EncryptionKey{{ID: "2026-02", Key: newKey}, {ID: "2025-08", Key: oldKey}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(store)
	// Output: EncryptedStorage(*requestforge.MemoryStorage, keys 2026-02 2025-08)
}

func TestEncryptedStorageKeepsTheRulesOfStorage(t *testing.T) {
	type plain struct{ rf.Storage }
	for name, below := range map[string]func() rf.Storage{
		"locker":    func() rf.Storage { return rf.NewMemoryStorage() },
		"no locker": func() rf.Storage { return plain{rf.NewMemoryStorage()} },
	} {
		t.Run(name, func(t *testing.T) {
			authtest.TestStorage(t, func(t *testing.T) rf.Storage { return encrypt(t, below(), "new", "old") })
		})
	}
}

func TestEncryptedStorageHoldsNoSecretInTheClear(t *testing.T) {
	r := encFull()
	secrets := []string{
		r.Token.AccessToken, r.Token.RefreshToken, r.Token.TokenType, "hunterName", "hunter2-extra~", "hunter",
		fmt.Sprint(r.Token.Expiry.Unix()), "987654321", "2123-04-05",
		string(encKey("new").Key),
	}
	below := rf.NewMemoryStorage()
	e := encrypt(t, below, "new")
	encSave(t, e, r, 0)
	require.Equal(t, r.Token.AccessToken, encLoad(t, e, r.Key).Record.Token.AccessToken)

	stored := encLoad(t, below, r.Key).Record
	data, err := stored.MarshalBinary()
	require.NoError(t, err)
	dump := strings.Join([]string{
		string(data), fmt.Sprintf("%#v", stored), stored.Token.AccessToken, fmt.Sprintf("%x", stored.Token.AccessToken),
		stored.Token.TokenType, stored.Token.RefreshToken, fmt.Sprint(stored.Token.Extra), fmt.Sprint(stored.Token.Expiry.UnixNano()),
	}, "\n")
	for _, secret := range secrets {
		for how, form := range encForms(secret) {
			require.NotContains(t, dump, form, "%q as %s", secret, how)
		}
	}
	// What isn't secret, so that the search above is known to find things.
	require.Contains(t, dump, "pre:user")
	require.Contains(t, dump, encForms("pre:device")["base64"])
}

// encForms returns s as it might be written down.
func encForms(s string) map[string]string {
	forms := map[string]string{
		"text": s, "base64": base64.StdEncoding.EncodeToString([]byte(s)), "hex": hex.EncodeToString([]byte(s)),
		"HEX": strings.ToUpper(hex.EncodeToString([]byte(s))), "escaped": url.QueryEscape(s), "decimal": strings.Trim(fmt.Sprint([]byte(s)), "[]"),
	}
	// Within something longer, base64 begins at one of three places.
	for shift := range 3 {
		for name, enc := range map[string]*base64.Encoding{"std": base64.RawStdEncoding, "url": base64.RawURLEncoding} {
			text := enc.EncodeToString([]byte(strings.Repeat("x", shift) + s))
			forms[fmt.Sprintf("base64 %s %d", name, shift)] = text[(shift*8+5)/6 : len(text)-1]
		}
	}
	return forms
}

// The storage below may drop a record by its expiry only if Keep is positive.
func TestEncryptedStorageShowsTheExpiryOnlyToAStorageThatNeedsIt(t *testing.T) {
	for _, keep := range []time.Duration{-1, 0, time.Hour} {
		r := encFull()
		r.Keep = keep
		below := rf.NewMemoryStorage()
		e := encrypt(t, below, "new")
		encSave(t, e, r, 0)
		stored := encLoad(t, below, r.Key).Record
		if keep > 0 {
			require.Equal(t, r.Token.Expiry, stored.Token.Expiry)
		} else {
			require.Zero(t, stored.Token.Expiry)
		}
		require.Equal(t, keep, stored.Keep)
		require.Equal(t, r.Token.Expiry, encLoad(t, e, r.Key).Record.Token.Expiry)
	}
}

func TestEncryptedStorageTreatsWhatItCantUnsealAsMissing(t *testing.T) {
	r := encFull()
	r.Keep = time.Hour
	below := &encBelow{MemoryStorage: rf.NewMemoryStorage()}
	var logs bytes.Buffer
	e, err := rf.NewEncryptedStorage(below, rf.EncryptionConfig{
		Keys:   []rf.EncryptionKey{encKey("new"), encKey("old")},
		Logger: slog.New(slog.NewTextHandler(&logs, nil)),
	})
	require.NoError(t, err)
	encSave(t, e, r, 0)
	require.NoError(t, e.Revoke(t.Context(), r.Key, 1))
	sealed := encLoad(t, below, r.Key).Record.Token.AccessToken

	miss := func(what string, change func(r *rf.Record)) {
		t.Helper()
		before := e.Unreadable()
		below.change = change
		got := encLoad(t, e, r.Key)
		below.change = nil
		require.Nil(t, got.Record, what)
		require.EqualValues(t, 1, got.Mark, what)
		require.Equal(t, before+1, e.Unreadable(), what)
	}
	value := func(v string) func(*rf.Record) {
		return func(r *rf.Record) { r.Token.AccessToken = v }
	}
	for i := range len(sealed) {
		for _, flip := range []byte{1, 0x20, 0x80, 0xff} {
			data := []byte(sealed)
			data[i] ^= flip
			miss(fmt.Sprintf("byte %d ^ %#x", i, flip), value(string(data)))
		}
		miss(fmt.Sprintf("cut to %d bytes", i), value(sealed[:i]))
		miss(fmt.Sprintf("without its first %d bytes", i+1), value(sealed[i+1:]))
	}
	miss("a byte more", value(sealed+"\x00"))
	miss("not sealed", value("plain"))
	miss("no token", func(r *rf.Record) { r.Token = nil })

	header := func(id string) string { return "rfs1\x00" + string([]byte{byte(len(id))}) + id }
	require.True(t, strings.HasPrefix(sealed, header("new")))
	rest := sealed[len(header("new")):]
	miss("unknown key", value(header("unknown")+rest))
	miss("another key of the keyring", value(header("old")+rest))
	miss("no key", value(header("")+rest))
	miss("an ID that is none", value(header("hunter2\n")+rest))

	for what, change := range map[string]func(r *rf.Record){
		"Key":               func(r *rf.Record) { r.Key = "pre:app" },
		"Issued":            func(r *rf.Record) { r.Issued = r.Issued.Add(1) },
		"no Issued":         func(r *rf.Record) { r.Issued = time.Time{} },
		"Keep":              func(r *rf.Record) { r.Keep++ },
		"Expiry":            func(r *rf.Record) { r.Token.Expiry = r.Token.Expiry.Add(1) },
		"no Expiry":         func(r *rf.Record) { r.Token.Expiry = time.Time{} },
		"Expiry for Issued": func(r *rf.Record) { r.Token.Expiry, r.Issued = r.Issued, r.Token.Expiry },
		"no Lineage":        func(r *rf.Record) { r.Lineage = nil },
		"one ancestor less": func(r *rf.Record) { delete(r.Lineage, "pre:app") },
		"one ancestor more": func(r *rf.Record) { r.Lineage[""] = 0 },
		"ancestor's stamp":  func(r *rf.Record) { r.Lineage["pre:app"]++ },
		"ancestor's name":   func(r *rf.Record) { r.Lineage = map[string]uint64{"pre:device": 3, "pre:apq": 4} },
		"ancestors swapped": func(r *rf.Record) { r.Lineage = map[string]uint64{"pre:device": 4, "pre:app": 3} },
	} {
		miss(what, change)
	}

	// What is neither bound nor used does no harm.
	below.change = func(r *rf.Record) {
		r.Token.TokenType, r.Token.RefreshToken, r.Token.Extra = "x", "x", map[string]any{"x": 1}
	}
	got := encLoad(t, e, r.Key).Record
	require.NotNil(t, got)
	require.Equal(t, encFull().Token.TokenType, got.Token.TokenType)
	require.Equal(t, encFull().Token.RefreshToken, got.Token.RefreshToken)
	require.Equal(t, encFull().Token.Extra, got.Token.Extra)

	require.Equal(t, 1, strings.Count(logs.String(), "\n"), "one line for one record, however often it is met: %s", logs.String())
	require.Contains(t, logs.String(), "pre:user")
	require.NotContains(t, logs.String(), "hunter")
}

func TestEncryptedStorageLogsTheKeyThatIsMissing(t *testing.T) {
	below := rf.NewMemoryStorage()
	encSave(t, encrypt(t, below, "2019-09"), encFull(), 0)
	var logs bytes.Buffer
	e, err := rf.NewEncryptedStorage(below, rf.EncryptionConfig{
		Keys: []rf.EncryptionKey{encKey("new")}, Logger: slog.New(slog.NewJSONHandler(&logs, nil))})
	require.NoError(t, err)
	require.Nil(t, encLoad(t, e, "pre:user").Record)
	require.Contains(t, logs.String(), `2019-09`)

	for i, foreign := range []string{encFull().Token.AccessToken, "rfs1\x00\x08hunter2\nand more"} {
		logs.Reset()
		r := encFull()
		r.Token.AccessToken = foreign
		_, err = below.Save(t.Context(), "pre:user", r, uint64(1+i))
		require.NoError(t, err)
		require.Nil(t, encLoad(t, e, "pre:user").Record)
		require.Contains(t, logs.String(), "isn't sealed")
		require.NotContains(t, logs.String(), "hunter")
	}
}

// Two IDs may stand for the same bytes, if someone renames a key.
func TestEncryptedStorageBindsTheIDOfTheKey(t *testing.T) {
	below := &encBelow{MemoryStorage: rf.NewMemoryStorage()}
	e, err := rf.NewEncryptedStorage(below, rf.EncryptionConfig{Keys: []rf.EncryptionKey{
		{ID: "a", Key: encKey("a").Key}, {ID: "b", Key: encKey("a").Key}}})
	require.NoError(t, err)
	encSave(t, e, encFull(), 0)
	require.NotNil(t, encLoad(t, e, "pre:user").Record)
	below.change = func(r *rf.Record) {
		r.Token.AccessToken = strings.Replace(r.Token.AccessToken, "\x01a", "\x01b", 1)
	}
	require.Nil(t, encLoad(t, e, "pre:user").Record)
}

func TestEncryptedStorageRecordOfAnotherStepOrPrefixIsMissing(t *testing.T) {
	below := rf.NewMemoryStorage()
	e := encrypt(t, below, "new")
	encSave(t, e, encFull(), 0)
	sealed := *encLoad(t, below, "pre:user").Record
	for _, key := range []string{"pre:app", "other:user", "pre:use", "pre:userr", ""} {
		for _, name := range []string{"pre:user", key} {
			moved := sealed
			moved.Key = name
			_, err := below.Save(t.Context(), key, moved, encStamp(encLoad(t, below, key)))
			require.NoError(t, err)
			require.Nil(t, encLoad(t, e, key).Record, "under %q, Key %q", key, name)
		}
	}
	require.NotNil(t, encLoad(t, e, "pre:user").Record)
}

func TestEncryptedStorageSaveReplacesWhatItCantUnseal(t *testing.T) {
	below := rf.NewMemoryStorage()
	lost := encrypt(t, below, "lost")
	for i := range uint64(7) {
		encSave(t, lost, encFull(), i)
	}
	require.NoError(t, lost.Revoke(t.Context(), "pre:user", 9))
	e := encrypt(t, below, "new")
	seen := encLoad(t, e, "pre:user")
	require.Nil(t, seen.Record)

	// All have seen no record; one of them may win.
	const savers = 32
	entries := make([]rf.Entry, savers)
	var wg sync.WaitGroup
	for i := range savers {
		wg.Go(func() {
			r := encFull()
			r.Token.AccessToken = fmt.Sprint("token ", i)
			entries[i], _ = e.Save(context.Background(), r.Key, r, 0)
		})
	}
	wg.Wait()
	stored := encLoad(t, e, "pre:user")
	require.NotNil(t, stored.Record)
	require.EqualValues(t, 10, stored.Record.Stamp, "above the mark and what was there")
	for _, got := range entries {
		require.NotNil(t, got.Record)
		require.Equal(t, stored.Record.Token.AccessToken, got.Record.Token.AccessToken)
		require.Equal(t, stored.Record.Stamp, got.Record.Stamp)
		require.EqualValues(t, 9, got.Mark)
	}

	// A record that can be read is not replaced by one who hasn't seen it.
	late := encFull()
	late.Token.AccessToken = "late"
	require.Equal(t, stored.Record.Token.AccessToken, encSave(t, e, late, 0).Record.Token.AccessToken)
}

// To whom has seen a record, one that can't be unsealed in its place is as
// good as a Delete. That is what the pipeline knows how to go on from.
func TestEncryptedStorageSaveOverAnothersSecretSaysGone(t *testing.T) {
	below := rf.NewMemoryStorage()
	e := encrypt(t, below, "new")
	seen := encSave(t, e, encFull(), 0).Record.Stamp
	theirs := encSave(t, encrypt(t, below, "theirs", "new"), encFull(), seen).Record.Stamp
	got := encSave(t, e, encFull(), seen)
	require.Nil(t, got.Record)
	require.Equal(t, theirs, encLoad(t, below, "pre:user").Record.Stamp, "nothing was stored")
	require.Equal(t, theirs+1, encSave(t, e, encFull(), 0).Record.Stamp)
}

// encRival lets others write between any two calls.
type encRival struct {
	rf.Storage
	write func(key string)
	saves int
}

func (s *encRival) Save(ctx context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	s.saves++
	s.write(key)
	return s.Storage.Save(ctx, key, r, seen)
}

func TestEncryptedStorageSaveGivesUpOnRivalsWithOtherKeys(t *testing.T) {
	below := rf.NewMemoryStorage()
	theirs := encrypt(t, below, "theirs")
	rival := &encRival{Storage: below}
	rival.write = func(key string) {
		encSave(t, theirs, encFull(), encStamp(encLoad(t, below, key)))
	}
	e := encrypt(t, rival, "ours")
	_, err := e.Save(t.Context(), "pre:user", encFull(), 0)
	require.ErrorContains(t, err, "keyring")
	require.LessOrEqual(t, rival.saves, 5)

	// Deleted in between, it is saved all the same.
	rival.saves = 0
	rival.write = func(key string) {
		if rival.saves == 2 {
			require.NoError(t, below.Delete(t.Context(), key))
		}
	}
	require.NotNil(t, encSave(t, e, encFull(), 0).Record)
	require.Equal(t, 3, rival.saves)
}

func TestEncryptedStorageSaveOverAStorageThatChangesRecordsIsAnError(t *testing.T) {
	below := &encBelow{MemoryStorage: rf.NewMemoryStorage(), change: func(r *rf.Record) { r.Keep++ }}
	e := encrypt(t, below, "new")
	_, err := e.Save(t.Context(), "pre:user", encFull(), 0)
	require.ErrorContains(t, err, "doesn't return what it was given")
	below.change = nil
	require.EqualValues(t, 1, encLoad(t, below, "pre:user").Record.Stamp, "saved once, not in a loop")
}

func TestEncryptedStorageHandsErrorsThrough(t *testing.T) {
	want := errors.New("down")
	e := encrypt(t, encBroken{want}, "new")
	_, err := e.Load(t.Context(), "k")
	require.Same(t, want, err)
	_, err = e.Save(t.Context(), "pre:user", encFull(), 0)
	require.Same(t, want, err)
	require.Same(t, want, e.Revoke(t.Context(), "k", 1))
	require.Same(t, want, e.Delete(t.Context(), "k"))
	_, err = encrypt(t, encBroken{nil}, "new").Load(t.Context(), "k")
	require.ErrorContains(t, err, "0 entries for 1 keys")
}

// encBroken returns err and nothing else.
type encBroken struct{ err error }

func (s encBroken) Load(context.Context, ...string) ([]rf.Entry, error) { return nil, s.err }
func (s encBroken) Save(context.Context, string, rf.Record, uint64) (rf.Entry, error) {
	return rf.Entry{}, s.err
}
func (s encBroken) Revoke(context.Context, string, uint64) error { return s.err }
func (s encBroken) Delete(context.Context, ...string) error      { return s.err }

type (
	encLocker   struct{}
	encWatcher  struct{}
	encFailures struct{}
)

func (encLocker) TryLock(context.Context, string) (rf.Lease, bool, error) {
	return nil, false, errors.New("TryLock")
}
func (encWatcher) Watch(context.Context, []string, func(string)) error { return errors.New("Watch") }
func (encFailures) LoadFailure(context.Context, string) (rf.Failure, error) {
	return rf.Failure{}, errors.New("LoadFailure")
}
func (encFailures) SaveFailure(context.Context, string, rf.Failure) error {
	return errors.New("SaveFailure")
}

func TestEncryptedStorageOffersWhatTheStorageBelowOffers(t *testing.T) {
	for _, below := range []rf.Storage{
		encBroken{},
		struct {
			encBroken
			encLocker
		}{},
		struct {
			encBroken
			encWatcher
		}{},
		struct {
			encBroken
			encFailures
		}{},
		struct {
			encBroken
			encLocker
			encWatcher
		}{},
		struct {
			encBroken
			encLocker
			encFailures
		}{},
		struct {
			encBroken
			encWatcher
			encFailures
		}{},
		struct {
			encBroken
			encLocker
			encWatcher
			encFailures
		}{},
	} {
		e := encrypt(t, below, "new")
		require.Equal(t, below, e.Unwrap())
		_, want := below.(rf.Locker)
		l, got := rf.Storage(e).(rf.Locker)
		require.Equal(t, want, got, "Locker over %T", below)
		if got {
			_, _, err := l.TryLock(t.Context(), "k")
			require.EqualError(t, err, "TryLock")
		}
		_, want = below.(rf.Watcher)
		w, got := rf.Storage(e).(rf.Watcher)
		require.Equal(t, want, got, "Watcher over %T", below)
		if got {
			require.EqualError(t, w.Watch(t.Context(), nil, nil), "Watch")
		}
		_, want = below.(rf.FailureStorage)
		f, got := rf.Storage(e).(rf.FailureStorage)
		require.Equal(t, want, got, "FailureStorage over %T", below)
		if got {
			_, err := f.LoadFailure(t.Context(), "k")
			require.EqualError(t, err, "LoadFailure")
			require.EqualError(t, f.SaveFailure(t.Context(), "k", rf.Failure{}), "SaveFailure")
		}
	}
}

func TestEncryptedStorageConstructorReportsMistakesWithoutKeys(t *testing.T) {
	const secret = "hunter2-hunter2-hunter2-hunter2!"
	good := []byte(secret)
	var nilStorage *rf.MemoryStorage
	for name, test := range map[string]struct {
		storage rf.Storage
		keys    []rf.EncryptionKey
		want    []string
	}{
		"nil storage":   {nil, []rf.EncryptionKey{{"a", good}}, []string{"Storage is nil"}},
		"nil pointer":   {nilStorage, []rf.EncryptionKey{{"a", good}}, []string{"nil *requestforge.MemoryStorage"}},
		"no keys":       {rf.NewMemoryStorage(), nil, []string{"Keys is empty"}},
		"no key":        {rf.NewMemoryStorage(), []rf.EncryptionKey{{"a", nil}}, []string{"Keys[0] (a)", "0 bytes"}},
		"16 bytes":      {rf.NewMemoryStorage(), []rf.EncryptionKey{{"a", good[:16]}}, []string{"16 bytes", "takes 32"}},
		"31 bytes":      {rf.NewMemoryStorage(), []rf.EncryptionKey{{"b", good}, {"a", good[:31]}}, []string{"Keys[1] (a)", "31 bytes"}},
		"33 bytes":      {rf.NewMemoryStorage(), []rf.EncryptionKey{{"a", []byte(secret + "x")}}, []string{"33 bytes"}},
		"zero":          {rf.NewMemoryStorage(), []rf.EncryptionKey{{"a", make([]byte, 32)}}, []string{"all zero"}},
		"duplicate":     {rf.NewMemoryStorage(), []rf.EncryptionKey{{"a", good}, {"a", good}}, []string{"Keys[1]", `"a"`, "twice"}},
		"no ID":         {rf.NewMemoryStorage(), []rf.EncryptionKey{{"", good}}, []string{"Keys[0]", "ID"}},
		"key for an ID": {rf.NewMemoryStorage(), []rf.EncryptionKey{{secret, nil}}, []string{"Keys[0]", "ID"}},
		"long ID":       {rf.NewMemoryStorage(), []rf.EncryptionKey{{strings.Repeat("a", 65), good}}, []string{"Keys[0]", "65 bytes"}},
		"odd ID":        {rf.NewMemoryStorage(), []rf.EncryptionKey{{"é", good}}, []string{"Keys[0]", "ID"}},
		"all at once":   {nil, []rf.EncryptionKey{{"a", good[:1]}, {"a", good}, {" ", nil}}, []string{"Storage", "Keys[0]", "Keys[1]", "Keys[2]"}},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := rf.NewEncryptedStorage(test.storage, rf.EncryptionConfig{Keys: test.keys})
			require.Nil(t, e)
			for _, want := range test.want {
				require.ErrorContains(t, err, want)
			}
			require.NotContains(t, err.Error(), "hunter")
		})
	}
	_, err := rf.NewEncryptedStorage(rf.NewMemoryStorage(), rf.EncryptionConfig{Keys: []rf.EncryptionKey{{strings.Repeat("aZ09-._", 9), good}}})
	require.NoError(t, err)
}

func TestEncryptedStorageKeepsNoReferenceToTheKey(t *testing.T) {
	below := rf.NewMemoryStorage()
	cfg := rf.EncryptionConfig{Keys: []rf.EncryptionKey{encKey("new"), encKey("old")}}
	e, err := rf.NewEncryptedStorage(below, cfg)
	require.NoError(t, err)
	encSave(t, e, encFull(), 0)
	clear(cfg.Keys[0].Key)
	clear(cfg.Keys)
	require.NotNil(t, encLoad(t, e, "pre:user").Record)
	encSave(t, e, encFull(), 1)
	require.NotNil(t, encLoad(t, encrypt(t, below, "new"), "pre:user").Record)
}

func TestEncryptedStoragePrintsNoKey(t *testing.T) {
	const secret = "hunter2-hunter2-hunter2-hunter2!"
	key := rf.EncryptionKey{ID: "2026", Key: []byte(secret)}
	wrong := rf.EncryptionKey{ID: secret, Key: []byte("2026")}
	cfg := rf.EncryptionConfig{Keys: []rf.EncryptionKey{key}, Logger: slog.New(slog.DiscardHandler)}
	type plain struct{ rf.Storage }
	e, err := rf.NewEncryptedStorage(rf.NewMemoryStorage(), cfg)
	require.NoError(t, err)
	noLocker, err := rf.NewEncryptedStorage(plain{rf.NewMemoryStorage()}, cfg)
	require.NoError(t, err)
	for name, v := range map[string]any{
		"key": key, "*key": &key, "[]key": cfg.Keys, "map": map[string]rf.EncryptionKey{"k": key}, "any": struct{ K any }{key},
		"ID and key swapped": wrong, "config": cfg, "*config": &cfg,
		"storage": e, "no locker": noLocker, "exported": struct{ S rf.Storage }{e}, "unexported": struct{ s, n rf.Storage }{e, noLocker},
	} {
		printed := map[string]string{}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			printed[verb] = fmt.Sprintf(verb, v)
		}
		data, err := json.Marshal(v)
		require.NoError(t, err)
		printed["JSON"] = string(data)
		var text, js bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("msg", "v", v)
		slog.New(slog.NewJSONHandler(&js, nil)).Info("msg", "v", v, slog.Group("g", "v", v))
		printed["slog text"], printed["slog JSON"] = text.String(), js.String()
		for how, got := range printed {
			for _, form := range encForms(secret[:8]) {
				require.NotContains(t, got, form, "%s by %s", name, how)
			}
		}
	}
	require.Equal(t, "EncryptedStorage(*requestforge.MemoryStorage, keys 2026)", fmt.Sprint(e))
	require.Equal(t, "EncryptionKey(2026)", fmt.Sprint(key))
}

// encSink is a storage below that stores nothing and says it did.
type encSink struct {
	encBroken
	stored rf.Record
}

func (s *encSink) Save(_ context.Context, _ string, r rf.Record, _ uint64) (rf.Entry, error) {
	s.stored = r
	return rf.Entry{Record: &r}, nil
}

func TestEncryptedStorageNeverUsesANonceTwice(t *testing.T) {
	below := new(encSink)
	e := encrypt(t, below, "k")
	const header, nonce = len("rfs1\x00") + 1 + len("k"), 12
	r := rf.Record{Key: "k", Token: &rf.Token{AccessToken: "a"}}
	seen := make(map[string]bool)
	for range 10_000 {
		_, err := e.Save(t.Context(), "k", r, 0)
		require.NoError(t, err)
		seen[below.stored.Token.AccessToken[header:header+nonce]] = true
	}
	require.Len(t, seen, 10_000)
}

func FuzzEncryptedStorageUnseal(f *testing.F) {
	below := rf.NewMemoryStorage()
	e := encrypt(f, below, "a", "b")
	if _, err := e.Save(f.Context(), "pre:user", encFull(), 0); err != nil {
		f.Fatal(err)
	}
	entries, err := below.Load(f.Context(), "pre:user")
	if err != nil {
		f.Fatal(err)
	}
	stored := *entries[0].Record
	sealed := stored.Token.AccessToken
	f.Add([]byte(sealed))
	f.Add([]byte(sealed[:len(sealed)-1]))
	for _, s := range []string{"", "rfs1", "rfs1\x00", "rfs1\x00\x00", "rfs1\x00\x01", "rfs1\x00\x01a", "rfs1\x00\x01aaaaaaaaaaaaa", "rfs1\x00\xffa", "rfs2\x00\x01a", "rf1:{}"} {
		f.Add([]byte(s))
	}
	at := &encBelow{MemoryStorage: below}
	e = encrypt(f, at, "a", "b")
	f.Fuzz(func(t *testing.T, data []byte) {
		at.change = func(r *rf.Record) { r.Token = &rf.Token{AccessToken: string(data)} }
		entries, err := e.Load(t.Context(), "pre:user")
		if err != nil {
			t.Fatal(err)
		}
		// Other fuzzing processes seal with nonces of their own.
		got := entries[0].Record
		if got == nil && string(data) == sealed || got != nil && got.Token.AccessToken != encFull().Token.AccessToken {
			t.Fatalf("%q became %v", data, got)
		}
	})
}

// encLogin is a login of one step, whose auth server kills the session when a
// refresh token is used twice.
type encLogin struct {
	mu        sync.Mutex
	n         int
	refresh   string // the one that is good
	logins    int
	refreshes int
	reused    int
}

func (l *encLogin) issue() *rf.Token {
	l.n++
	l.refresh = fmt.Sprint("refresh-", l.n)
	return &rf.Token{AccessToken: fmt.Sprint("access-", l.n), RefreshToken: l.refresh, Expiry: time.Now().Add(time.Hour)}
}

func (l *encLogin) pipeline(t *testing.T, s rf.Storage) *rf.Pipeline {
	return pipeline(t, rf.PipelineConfig{Storage: s, RefreshAhead: -1, Steps: []rf.Step{{
		Name: "user",
		Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.logins++
			return l.issue(), nil
		}),
		Refresh: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if in.Previous.RefreshToken != l.refresh {
				l.reused++
				return nil, &rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}
			}
			l.refreshes++
			return l.issue(), nil
		}),
	}}})
}

func TestEncryptedStorageRotationLosesNoLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := rf.NewMemoryStorage()
		l := new(encLogin)
		hours := 0
		// Two processes live at once, at neighbouring stages, for as long
		// as it takes both to need new tokens.
		live := func(one, two []string) {
			a, b := l.pipeline(t, encrypt(t, below, one...)), l.pipeline(t, encrypt(t, below, two...))
			for range 4 {
				first, second := mustToken(t, a), mustToken(t, b)
				require.Equal(t, first.AccessToken, second.AccessToken, "%v and %v share a token", one, two)
				a, b = b, a
				time.Sleep(time.Hour)
				hours++
			}
		}
		keys := []string{"k1", "k2", "k3"}
		live([]string{"k1"}, []string{"k1"})
		for i, before := range keys[:2] {
			after := keys[i+1]
			live([]string{before}, []string{before, after})
			live([]string{before, after}, []string{before, after})
			live([]string{before, after}, []string{after, before})
			live([]string{after, before}, []string{after, before})
			live([]string{after, before}, []string{after})
			live([]string{after}, []string{after})
		}
		require.Equal(t, 1, l.logins)
		require.Equal(t, hours-1, l.refreshes, "one a lifetime, for both processes")
		require.Zero(t, l.reused)
	})
}

func TestEncryptedStorageUnderAPipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := &encBelow{MemoryStorage: rf.NewMemoryStorage()}
		l := newLogin()
		process := func(ids ...string) *rf.Pipeline {
			return pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: encrypt(t, below, ids...)})
		}
		fetches := func() []int { return []int{l.fetches("device"), l.fetches("app"), l.fetches("user")} }

		first := process("a")
		require.Equal(t, "user-1", mustToken(t, first).AccessToken)
		require.Equal(t, "user-1", mustToken(t, process("a")).AccessToken)
		require.Equal(t, []int{1, 1, 1}, fetches(), "the second process loads")

		require.NoError(t, first.InvalidateStep(t.Context(), "app"))
		require.Equal(t, "user-2", mustToken(t, process("a")).AccessToken)
		require.Equal(t, []int{1, 2, 2}, fetches(), "marks work as ever")

		// One byte of every record is damaged, for good.
		sealed := map[string]string{}
		for _, key := range []string{"requestforge:device", "requestforge:app", "requestforge:user"} {
			r := *encLoad(t, below, key).Record
			data := []byte(r.Token.AccessToken)
			data[len(data)-1] ^= 1
			r.Token.AccessToken = string(data)
			sealed[key] = r.Token.AccessToken
			_, err := below.Save(t.Context(), key, r, r.Stamp)
			require.NoError(t, err)
		}
		damaged := process("a")
		require.Equal(t, "user-3", mustToken(t, damaged).AccessToken)
		require.Equal(t, []int{2, 3, 3}, fetches())
		require.Zero(t, damaged.Stats().StorageErrors, "a miss, not a failure")
		require.Equal(t, "user-3", mustToken(t, process("a")).AccessToken)
		require.Equal(t, []int{2, 3, 3}, fetches(), "what was damaged has been replaced")

		// Every key is lost; then there are two fleets with nothing in common.
		require.Equal(t, "user-4", mustToken(t, process("b")).AccessToken)
		require.Equal(t, "user-4", mustToken(t, process("b")).AccessToken)
		require.Equal(t, "user-5", mustToken(t, process("a")).AccessToken)
		require.Equal(t, []int{4, 5, 5}, fetches(), "each costs one login, and none waits for another")
	})
}

// A process that was given no keys must not send what it finds.
func TestEncryptedStorageWithoutTheKeysIsNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := rf.NewMemoryStorage()
		l := newLogin()
		sealing := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: encrypt(t, below, "a")})
		require.Equal(t, "user-1", mustToken(t, sealing).AccessToken)
		plain := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: below})
		require.Equal(t, "user-2", mustToken(t, plain).AccessToken)
		require.NotZero(t, plain.Stats().BadRecords)
		again := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: encrypt(t, below, "a")})
		require.Equal(t, "user-3", mustToken(t, again).AccessToken)
	})
}
