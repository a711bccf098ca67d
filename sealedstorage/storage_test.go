package sealedstorage_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/sealedstorage"
)

// testKey returns a key whose bytes follow from its ID.
func testKey(id string) sealedstorage.Key {
	secret := []byte(strings.Repeat(id+"/", 32)[:32])
	return sealedstorage.Key{ID: id, Secret: secret}
}

// seal wraps s with the keys of these IDs.
func seal(t testing.TB, s rf.Storage, ids ...string) *sealedstorage.Storage {
	t.Helper()
	var cfg sealedstorage.Config
	for _, id := range ids {
		cfg.Keys = append(cfg.Keys, testKey(id))
	}
	e, err := sealedstorage.New(s, cfg)
	require.NoError(t, err)
	return e
}

// fullRecord is a record with something in every field.
func fullRecord() rf.Record {
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

// changing is the storage below, in which what is stored can be changed
// behind its back.
type changing struct {
	*rf.MemoryStorage
	change func(r *rf.Record) // nil: none
}

func (b *changing) Load(ctx context.Context, keys ...string) ([]rf.Entry, error) {
	entries, err := b.MemoryStorage.Load(ctx, keys...)
	for _, e := range entries {
		if e.Record != nil && b.change != nil {
			b.change(e.Record)
		}
	}
	return entries, err
}

func (b *changing) Save(ctx context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	e, err := b.MemoryStorage.Save(ctx, key, r, seen)
	if e.Record != nil && b.change != nil {
		b.change(e.Record)
	}
	return e, err
}

func load(t *testing.T, s rf.Storage, key string) rf.Entry {
	t.Helper()
	entries, err := s.Load(t.Context(), key)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	return entries[0]
}

func stampOf(e rf.Entry) uint64 {
	if e.Record == nil {
		return 0
	}
	return e.Record.Stamp
}

func save(t *testing.T, s rf.Storage, r rf.Record, seen uint64) rf.Entry {
	t.Helper()
	e, err := s.Save(t.Context(), r.Key, r, seen)
	require.NoError(t, err)
	return e
}

// The new key seals, both unseal: the second stage of changing the key.
func Example() {
	newSecret, oldSecret := make([]byte, 32), make([]byte, 32)
	rand.Read(newSecret) // really from a secret manager
	rand.Read(oldSecret)

	store, err := sealedstorage.New(rf.NewMemoryStorage(), sealedstorage.Config{
		Keys: []sealedstorage.Key{{ID: "2026-02", Secret: newSecret}, {ID: "2025-08", Secret: oldSecret}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(store)
	// Output: sealedstorage.Storage(*requestforge.MemoryStorage, keys 2026-02 2025-08)
}

// The suite finds a Locker below, and the rules of a Locker hold through the seal.
func TestStorageKeepsTheRules(t *testing.T) {
	for _, locker := range []bool{true, false} {
		t.Run(fmt.Sprintf("locker %t", locker), func(t *testing.T) {
			used := new(uses)
			authtest.TestStorage(t, func(t *testing.T) rf.Storage {
				var below rf.Storage = hiding{rf.NewMemoryStorage()}
				if locker {
					below = &countingLocker{rf.NewMemoryStorage(), used}
				}
				return seal(t, below, "new", "old")
			})
			require.Equal(t, locker, used.locks.Load() > 0, "the suite locked")
		})
	}
}

// uses counts the calls of the optional interfaces.
type uses struct{ locks, watches, loads, saves atomic.Int32 }

// hiding is a Storage and nothing else, whatever it holds.
type hiding struct{ rf.Storage }

type countingLocker struct {
	*rf.MemoryStorage
	used *uses
}

func (l *countingLocker) TryLock(ctx context.Context, key string) (rf.Lease, bool, error) {
	l.used.locks.Add(1)
	return l.MemoryStorage.TryLock(ctx, key)
}

func TestStorageHoldsNoSecretInTheClear(t *testing.T) {
	r := fullRecord()
	secrets := []string{
		r.Token.AccessToken, r.Token.RefreshToken, r.Token.TokenType, "hunterName", "hunter2-extra~", "hunter",
		fmt.Sprint(r.Token.Expiry.Unix()), "987654321", "2123-04-05",
		string(testKey("new").Secret),
	}
	below := rf.NewMemoryStorage()
	e := seal(t, below, "new")
	save(t, e, r, 0)
	require.Equal(t, r.Token.AccessToken, load(t, e, r.Key).Record.Token.AccessToken)

	stored := load(t, below, r.Key).Record
	data, err := stored.MarshalBinary()
	require.NoError(t, err)
	dump := strings.Join([]string{
		string(data), fmt.Sprintf("%#v", stored), stored.Token.AccessToken, fmt.Sprintf("%x", stored.Token.AccessToken),
		stored.Token.TokenType, stored.Token.RefreshToken, fmt.Sprint(stored.Token.Extra), fmt.Sprint(stored.Token.Expiry.UnixNano()),
	}, "\n")
	for _, secret := range secrets {
		for how, form := range writtenForms(secret) {
			require.NotContains(t, dump, form, "%q as %s", secret, how)
		}
	}
	// What isn't secret, so that the search above is known to find things.
	require.Contains(t, dump, "pre:user")
	require.Contains(t, dump, writtenForms("pre:device")["base64"])
}

// What an API has asked for may be about the user, and decides what is asked for next: it is
// sealed with the token.
func TestStorageHidesChallenges(t *testing.T) {
	below := rf.NewMemoryStorage()
	e := seal(t, below, "new")
	r := fullRecord()
	r.Challenge = map[string]string{"scope": "hunter-scope", "claims": `{"sub":"hunter"}`}
	save(t, e, r, 0)
	require.Equal(t, r.Challenge, load(t, e, r.Key).Record.Challenge)
	stored := load(t, below, r.Key).Record
	require.Nil(t, stored.Challenge)
	data, err := stored.MarshalBinary()
	require.NoError(t, err)
	for how, form := range writtenForms("hunter-scope") {
		require.NotContains(t, string(data), form, how)
	}

	// What is put beside the seal is of no account.
	forged := *stored
	forged.Challenge = map[string]string{"scope": "admin"}
	_, err = below.Save(t.Context(), r.Key, forged, stored.Stamp)
	require.NoError(t, err)
	require.Equal(t, r.Challenge, load(t, e, r.Key).Record.Challenge)
}

// writtenForms returns s as it might be written down.
func writtenForms(s string) map[string]string {
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
func TestStorageShowsTheExpiryOnlyToAStorageThatNeedsIt(t *testing.T) {
	for _, keep := range []time.Duration{-1, 0, time.Hour} {
		r := fullRecord()
		r.Keep = keep
		below := rf.NewMemoryStorage()
		e := seal(t, below, "new")
		save(t, e, r, 0)
		stored := load(t, below, r.Key).Record
		if keep > 0 {
			require.Equal(t, r.Token.Expiry, stored.Token.Expiry)
		} else {
			require.Zero(t, stored.Token.Expiry)
		}
		require.Equal(t, keep, stored.Keep)
		require.Equal(t, r.Token.Expiry, load(t, e, r.Key).Record.Token.Expiry)
	}
}

func TestStorageTreatsWhatItCantUnsealAsMissing(t *testing.T) {
	r := fullRecord()
	r.Keep = time.Hour
	below := &changing{MemoryStorage: rf.NewMemoryStorage()}
	var logs bytes.Buffer
	e, err := sealedstorage.New(below, sealedstorage.Config{
		Keys:   []sealedstorage.Key{testKey("new"), testKey("old")},
		Logger: slog.New(slog.NewTextHandler(&logs, nil)),
	})
	require.NoError(t, err)
	save(t, e, r, 0)
	require.NoError(t, e.Revoke(t.Context(), r.Key, 1))
	sealed := load(t, below, r.Key).Record.Token.AccessToken

	miss := func(what string, change func(r *rf.Record)) {
		t.Helper()
		before := e.Unreadable()
		below.change = change
		got := load(t, e, r.Key)
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
		"Until":             func(r *rf.Record) { r.Until = r.Until.Add(time.Hour) },
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
	got := load(t, e, r.Key).Record
	require.NotNil(t, got)
	require.Equal(t, fullRecord().Token.TokenType, got.Token.TokenType)
	require.Equal(t, fullRecord().Token.RefreshToken, got.Token.RefreshToken)
	require.Equal(t, fullRecord().Token.Extra, got.Token.Extra)

	require.Equal(t, 1, strings.Count(logs.String(), "\n"), "one line for one record, however often it is met: %s", logs.String())
	require.Contains(t, logs.String(), "pre:user")
	require.NotContains(t, logs.String(), "hunter")
}

func TestStorageLogsTheKeyThatIsMissing(t *testing.T) {
	below := rf.NewMemoryStorage()
	save(t, seal(t, below, "2019-09"), fullRecord(), 0)
	var logs bytes.Buffer
	e, err := sealedstorage.New(below, sealedstorage.Config{
		Keys: []sealedstorage.Key{testKey("new")}, Logger: slog.New(slog.NewJSONHandler(&logs, nil))})
	require.NoError(t, err)
	require.Nil(t, load(t, e, "pre:user").Record)
	require.Contains(t, logs.String(), `2019-09`)

	for i, foreign := range []string{fullRecord().Token.AccessToken, "rfs1\x00\x08hunter2\nand more"} {
		logs.Reset()
		r := fullRecord()
		r.Token.AccessToken = foreign
		_, err = below.Save(t.Context(), "pre:user", r, uint64(1+i))
		require.NoError(t, err)
		require.Nil(t, load(t, e, "pre:user").Record)
		require.Contains(t, logs.String(), "isn't sealed")
		require.NotContains(t, logs.String(), "hunter")
	}
}

// Two IDs may stand for the same bytes, if someone renames a key.
func TestStorageBindsTheIDOfTheKey(t *testing.T) {
	below := &changing{MemoryStorage: rf.NewMemoryStorage()}
	e, err := sealedstorage.New(below, sealedstorage.Config{Keys: []sealedstorage.Key{
		{ID: "a", Secret: testKey("a").Secret}, {ID: "b", Secret: testKey("a").Secret}}})
	require.NoError(t, err)
	save(t, e, fullRecord(), 0)
	require.NotNil(t, load(t, e, "pre:user").Record)
	below.change = func(r *rf.Record) {
		r.Token.AccessToken = strings.Replace(r.Token.AccessToken, "\x01a", "\x01b", 1)
	}
	require.Nil(t, load(t, e, "pre:user").Record)
}

func TestStorageRecordOfAnotherStepOrPrefixIsMissing(t *testing.T) {
	below := rf.NewMemoryStorage()
	e := seal(t, below, "new")
	save(t, e, fullRecord(), 0)
	sealed := *load(t, below, "pre:user").Record
	for _, key := range []string{"pre:app", "other:user", "pre:use", "pre:userr", ""} {
		for _, name := range []string{"pre:user", key} {
			moved := sealed
			moved.Key = name
			_, err := below.Save(t.Context(), key, moved, stampOf(load(t, below, key)))
			require.NoError(t, err)
			require.Nil(t, load(t, e, key).Record, "under %q, Key %q", key, name)
		}
	}
	require.NotNil(t, load(t, e, "pre:user").Record)
}

func TestStorageSaveReplacesWhatItCantUnseal(t *testing.T) {
	below := rf.NewMemoryStorage()
	lost := seal(t, below, "lost")
	for i := range uint64(7) {
		save(t, lost, fullRecord(), i)
	}
	require.NoError(t, lost.Revoke(t.Context(), "pre:user", 9))
	e := seal(t, below, "new")
	seen := load(t, e, "pre:user")
	require.Nil(t, seen.Record)

	// All have seen no record; one of them may win.
	const savers = 32
	entries := make([]rf.Entry, savers)
	var wg sync.WaitGroup
	for i := range savers {
		wg.Go(func() {
			r := fullRecord()
			r.Token.AccessToken = fmt.Sprint("token ", i)
			entries[i], _ = e.Save(context.Background(), r.Key, r, 0)
		})
	}
	wg.Wait()
	stored := load(t, e, "pre:user")
	require.NotNil(t, stored.Record)
	require.EqualValues(t, 10, stored.Record.Stamp, "above the mark and what was there")
	for _, got := range entries {
		require.NotNil(t, got.Record)
		require.Equal(t, stored.Record.Token.AccessToken, got.Record.Token.AccessToken)
		require.Equal(t, stored.Record.Stamp, got.Record.Stamp)
		require.EqualValues(t, 9, got.Mark)
	}

	// A record that can be read is not replaced by one who hasn't seen it.
	late := fullRecord()
	late.Token.AccessToken = "late"
	require.Equal(t, stored.Record.Token.AccessToken, save(t, e, late, 0).Record.Token.AccessToken)
}

// A record that can't be unsealed is as good as a record that the wrapped Storage has
// lost: whatever the caller has seen, Save replaces it.
func TestStorageSaveOverAnothersSecretReplacesIt(t *testing.T) {
	below := rf.NewMemoryStorage()
	e := seal(t, below, "new")
	seen := save(t, e, fullRecord(), 0).Record.Stamp
	theirs := save(t, seal(t, below, "theirs", "new"), fullRecord(), seen).Record.Stamp
	require.Equal(t, theirs+1, save(t, e, fullRecord(), seen).Record.Stamp)
}

// A Save from before a logout stays one, though a record that can't be unsealed has
// taken the place of the tombstone; and what a logout removes needs no key.
func TestStorageTombstoneHoldsBesideARecordThatCantBeUnsealed(t *testing.T) {
	below := rf.NewMemoryStorage()
	e, theirs := seal(t, below, "new"), seal(t, below, "theirs")
	before := save(t, e, fullRecord(), 0).Record.Stamp
	gone, err := e.Delete(t.Context(), "pre:user", before)
	require.NoError(t, err)
	require.Equal(t, rf.Entry{Gone: 2}, gone)
	require.EqualValues(t, 3, save(t, theirs, fullRecord(), gone.Gone).Record.Stamp)
	require.Equal(t, gone, load(t, e, "pre:user"), "their record is missing, the tombstone isn't")

	for _, late := range []uint64{0, before} {
		require.Equal(t, gone, save(t, e, fullRecord(), late), "from before the logout")
		got, err := e.Delete(t.Context(), "pre:user", late)
		require.NoError(t, err)
		require.Equal(t, gone, got)
	}
	require.NotNil(t, load(t, theirs, "pre:user").Record, "a late Delete ends no later login")

	again, err := e.Delete(t.Context(), "pre:user", gone.Gone)
	require.NoError(t, err)
	require.Equal(t, rf.Entry{Gone: 4}, again)
	require.Equal(t, again, load(t, below, "pre:user"), "nothing but the tombstone is left")

	save(t, theirs, fullRecord(), again.Gone)
	require.EqualValues(t, 6, save(t, e, fullRecord(), again.Gone).Record.Stamp, "a login after the logout")
}

// rivalled lets others write between any two calls.
type rivalled struct {
	rf.Storage
	write func(key string)
	saves int
}

func (s *rivalled) Save(ctx context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	s.saves++
	s.write(key)
	return s.Storage.Save(ctx, key, r, seen)
}

func TestStorageSaveGivesUpOnRivalsWithOtherKeys(t *testing.T) {
	below := rf.NewMemoryStorage()
	theirs := seal(t, below, "theirs")
	rival := &rivalled{Storage: below}
	rival.write = func(key string) {
		save(t, theirs, fullRecord(), stampOf(load(t, below, key)))
	}
	e := seal(t, rival, "ours")
	_, err := e.Save(t.Context(), "pre:user", fullRecord(), 0)
	require.ErrorContains(t, err, "keyring")
	require.LessOrEqual(t, rival.saves, 5)

	// A logout in between holds.
	rival.saves = 0
	rival.write = func(key string) {
		if rival.saves == 2 {
			_, err := below.Delete(t.Context(), key, load(t, below, key).Version())
			require.NoError(t, err)
		}
	}
	got := save(t, e, fullRecord(), 0)
	require.Nil(t, got.Record)
	require.NotZero(t, got.Gone)
	require.Equal(t, 2, rival.saves)
}

func TestStorageSaveOverAStorageThatChangesRecordsIsAnError(t *testing.T) {
	below := &changing{MemoryStorage: rf.NewMemoryStorage(), change: func(r *rf.Record) { r.Keep++ }}
	e := seal(t, below, "new")
	_, err := e.Save(t.Context(), "pre:user", fullRecord(), 0)
	require.ErrorContains(t, err, "doesn't return what was saved")
	below.change = nil
	require.EqualValues(t, 1, load(t, below, "pre:user").Record.Stamp, "saved once, not in a loop")
}

func TestStorageHandsErrorsThrough(t *testing.T) {
	want := errors.New("down")
	e := seal(t, broken{want}, "new")
	_, err := e.Load(t.Context(), "k")
	require.Same(t, want, err)
	_, err = e.Save(t.Context(), "pre:user", fullRecord(), 0)
	require.Same(t, want, err)
	require.Same(t, want, e.Revoke(t.Context(), "k", 1))
	_, err = e.Delete(t.Context(), "k", 0)
	require.Same(t, want, err)
	_, err = seal(t, broken{nil}, "new").Load(t.Context(), "k")
	require.ErrorContains(t, err, "0 entries for 1 keys")
}

// broken returns err and nothing else.
type broken struct{ err error }

func (s broken) Load(context.Context, ...string) ([]rf.Entry, error) { return nil, s.err }
func (s broken) Save(context.Context, string, rf.Record, uint64) (rf.Entry, error) {
	return rf.Entry{}, s.err
}
func (s broken) Revoke(context.Context, string, uint64) error { return s.err }
func (s broken) Delete(context.Context, string, uint64) (rf.Entry, error) {
	return rf.Entry{}, s.err
}

func TestNewReportsMistakesWithoutKeys(t *testing.T) {
	const secret = "hunter2-hunter2-hunter2-hunter2!"
	good := []byte(secret)
	var nilStorage *rf.MemoryStorage
	for name, test := range map[string]struct {
		storage rf.Storage
		keys    []sealedstorage.Key
		want    []string
	}{
		"nil storage":   {nil, []sealedstorage.Key{{"a", good}}, []string{"Storage is nil"}},
		"nil pointer":   {nilStorage, []sealedstorage.Key{{"a", good}}, []string{"nil *requestforge.MemoryStorage"}},
		"no keys":       {rf.NewMemoryStorage(), nil, []string{"Keys is empty"}},
		"no key":        {rf.NewMemoryStorage(), []sealedstorage.Key{{"a", nil}}, []string{"Keys[0] (a)", "0 bytes"}},
		"16 bytes":      {rf.NewMemoryStorage(), []sealedstorage.Key{{"a", good[:16]}}, []string{"16 bytes", "takes 32"}},
		"31 bytes":      {rf.NewMemoryStorage(), []sealedstorage.Key{{"b", good}, {"a", good[:31]}}, []string{"Keys[1] (a)", "31 bytes"}},
		"33 bytes":      {rf.NewMemoryStorage(), []sealedstorage.Key{{"a", []byte(secret + "x")}}, []string{"33 bytes"}},
		"zero":          {rf.NewMemoryStorage(), []sealedstorage.Key{{"a", make([]byte, 32)}}, []string{"all zero"}},
		"duplicate":     {rf.NewMemoryStorage(), []sealedstorage.Key{{"a", good}, {"a", good}}, []string{"Keys[1]", `"a"`, "twice"}},
		"no ID":         {rf.NewMemoryStorage(), []sealedstorage.Key{{"", good}}, []string{"Keys[0]", "ID"}},
		"key for an ID": {rf.NewMemoryStorage(), []sealedstorage.Key{{secret, nil}}, []string{"Keys[0]", "ID"}},
		"long ID":       {rf.NewMemoryStorage(), []sealedstorage.Key{{strings.Repeat("a", 65), good}}, []string{"Keys[0]", "65 bytes"}},
		"odd ID":        {rf.NewMemoryStorage(), []sealedstorage.Key{{"é", good}}, []string{"Keys[0]", "ID"}},
		"all at once":   {nil, []sealedstorage.Key{{"a", good[:1]}, {"a", good}, {" ", nil}}, []string{"Storage", "Keys[0]", "Keys[1]", "Keys[2]"}},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := sealedstorage.New(test.storage, sealedstorage.Config{Keys: test.keys})
			require.Nil(t, e)
			for _, want := range test.want {
				require.ErrorContains(t, err, want)
			}
			require.NotContains(t, err.Error(), "hunter")
		})
	}
	_, err := sealedstorage.New(rf.NewMemoryStorage(), sealedstorage.Config{Keys: []sealedstorage.Key{{strings.Repeat("aZ09-._", 9), good}}})
	require.NoError(t, err)
}

func TestStorageKeepsNoReferenceToTheKey(t *testing.T) {
	below := rf.NewMemoryStorage()
	cfg := sealedstorage.Config{Keys: []sealedstorage.Key{testKey("new"), testKey("old")}}
	e, err := sealedstorage.New(below, cfg)
	require.NoError(t, err)
	save(t, e, fullRecord(), 0)
	clear(cfg.Keys[0].Secret)
	clear(cfg.Keys)
	require.NotNil(t, load(t, e, "pre:user").Record)
	save(t, e, fullRecord(), 1)
	require.NotNil(t, load(t, seal(t, below, "new"), "pre:user").Record)
}

func TestStoragePrintsNoKey(t *testing.T) {
	const secret = "hunter2-hunter2-hunter2-hunter2!"
	key := sealedstorage.Key{ID: "2026", Secret: []byte(secret)}
	wrong := sealedstorage.Key{ID: secret, Secret: []byte("2026")}
	cfg := sealedstorage.Config{Keys: []sealedstorage.Key{key}, Logger: slog.New(slog.DiscardHandler)}
	e, err := sealedstorage.New(rf.NewMemoryStorage(), cfg)
	require.NoError(t, err)
	noLocker, err := sealedstorage.New(hiding{rf.NewMemoryStorage()}, cfg)
	require.NoError(t, err)
	for name, v := range map[string]any{
		"key": key, "*key": &key, "[]key": cfg.Keys, "map": map[string]sealedstorage.Key{"k": key}, "any": struct{ K any }{key},
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
			for _, form := range writtenForms(secret[:8]) {
				require.NotContains(t, got, form, "%s by %s", name, how)
			}
		}
	}
	require.Equal(t, "sealedstorage.Storage(*requestforge.MemoryStorage, keys 2026)", fmt.Sprint(e))
	require.Equal(t, "sealedstorage.Key(2026)", fmt.Sprint(key))
}

// sink is a storage below that stores nothing and says it did.
type sink struct {
	broken
	stored rf.Record
}

func (s *sink) Save(_ context.Context, _ string, r rf.Record, _ uint64) (rf.Entry, error) {
	s.stored = r
	return rf.Entry{Record: &r}, nil
}

func FuzzUnseal(f *testing.F) {
	below := rf.NewMemoryStorage()
	e := seal(f, below, "a", "b")
	if _, err := e.Save(f.Context(), "pre:user", fullRecord(), 0); err != nil {
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
	at := &changing{MemoryStorage: below}
	e = seal(f, at, "a", "b")
	f.Fuzz(func(t *testing.T, data []byte) {
		at.change = func(r *rf.Record) { r.Token = &rf.Token{AccessToken: string(data)} }
		entries, err := e.Load(t.Context(), "pre:user")
		if err != nil {
			t.Fatal(err)
		}
		// Other fuzzing processes seal with nonces of their own.
		got := entries[0].Record
		if got == nil && string(data) == sealed || got != nil && got.Token.AccessToken != fullRecord().Token.AccessToken {
			t.Fatalf("%q became %v", data, got)
		}
	})
}

func TestNoEncodingShowsAKey(t *testing.T) {
	const secret = "hunter2hunter2hunter2hunter2hunt"
	key := sealedstorage.Key{ID: "k1", Secret: []byte(secret)}
	for _, v := range []any{key, &key, []sealedstorage.Key{key}, sealedstorage.Config{Keys: []sealedstorage.Key{key}}} {
		var g, x bytes.Buffer
		_ = gob.NewEncoder(&g).Encode(v)
		_ = xml.NewEncoder(&x).Encode(v)
		require.NotContains(t, g.String(), secret)
		require.NotContains(t, x.String(), secret)
	}
}
