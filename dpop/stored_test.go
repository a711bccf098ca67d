package dpop_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/dpop"
	"github.com/requestforge/requestforge/sealedstorage"
)

func storedKey(t testing.TB, storage requestforge.Storage) *dpop.Key {
	t.Helper()
	key, err := dpop.StoredKey(t.Context(), storage, "shop/dpop")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// meeting is a Storage whose first calls of Load wait for each other: all of them find
// nothing.
type meeting struct {
	requestforge.Storage
	all sync.WaitGroup
}

func (m *meeting) Load(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
	entries, err := m.Storage.Load(ctx, keys...)
	m.all.Done()
	m.all.Wait()
	return entries, err
}

// However many make a key at once, all have the same.
func TestOfManyKeysThatAreMadeAtOnceOneWins(t *testing.T) {
	const processes = 50
	storage := &meeting{Storage: requestforge.NewMemoryStorage()}
	storage.all.Add(processes)
	keys := make([]*dpop.Key, processes)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = dpop.StoredKey(t.Context(), storage, "shop/dpop"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	late := storedKey(t, storage.Storage)
	for _, key := range keys {
		if key == nil || key.Thumbprint() != late.Thumbprint() {
			t.Errorf("%v, and later %v", key, late)
		}
	}
	other, err := dpop.StoredKey(t.Context(), storage.Storage, "other")
	if err != nil || other.Thumbprint() == late.Thumbprint() {
		t.Errorf("under another name: %v, %v", other, err)
	}
}

// The next run of a program, and its other processes, go on with the tokens of the first: no
// login, and the refresh token is taken.
func TestRestartKeepsTheBinding(t *testing.T) {
	sealed := func(next requestforge.Storage) requestforge.Storage {
		storage, err := sealedstorage.New(next, sealedstorage.Config{Keys: []sealedstorage.Key{{ID: "1", Secret: []byte(strings.Repeat("k", 32))}}})
		if err != nil {
			t.Fatal(err)
		}
		return storage
	}
	plain := func(next requestforge.Storage) requestforge.Storage { return next }
	for name, open := range map[string]func(requestforge.Storage) requestforge.Storage{"rfs1\x00": sealed, "dpop1:": plain} {
		s, memory := newSim(t), requestforge.NewMemoryStorage()
		s.set(func() { s.tokenNonce, s.apiNonce = "t-1", "n-1" })
		var first string
		for run := range 4 {
			storage := open(memory)
			key := storedKey(t, storage)
			if run == 0 {
				first = key.Thumbprint()
			}
			pipeline, err := s.login(key, requestforge.PipelineConfig{Storage: storage, KeyPrefix: "shop/" + key.Thumbprint()})
			if err != nil {
				t.Fatal(err)
			}
			client, _ := s.client(t, key, func(cfg *requestforge.Config) { cfg.Source = pipeline })
			if got := status(t, client, "/api"); got != 200 || key.Thumbprint() != first {
				t.Errorf("%q, run %d: %d with %v", name, run, got, key)
			}
			if _, err := pipeline.Refresh(t.Context()); err != nil {
				t.Errorf("%q, run %d: %v", name, run, err)
			}
		}
		if s.logins != 1 || s.refreshes != 4 || s.refused != 0 || s.strict != nil {
			t.Errorf("%q: %d logins, %d refreshes, %d refusals, %v", name, s.logins, s.refreshes, s.refused, s.strict)
		}

		// Sealed, the key shows no more than a token does.
		entries, err := memory.Load(t.Context(), "shop/dpop")
		if err != nil {
			t.Fatal(err)
		}
		if text := entries[0].Record.Token.AccessToken; !strings.HasPrefix(text, name) {
			t.Errorf("%q: %q", name, text)
		}
	}
}

// Two keys over one storage, because it has lost one: no token is ever sent with the other
// key, if the thumbprint is in the prefix.
func TestTokensOfDifferentKeysAreApart(t *testing.T) {
	s, storage := newSim(t), requestforge.NewMemoryStorage()
	var clients []*http.Client
	for range 2 {
		key := dpop.NewKey()
		pipeline, err := s.login(key, requestforge.PipelineConfig{Storage: storage, KeyPrefix: "shop/" + key.Thumbprint()})
		if err != nil {
			t.Fatal(err)
		}
		client, _ := s.client(t, key, func(cfg *requestforge.Config) { cfg.Source = pipeline })
		clients = append(clients, client)
	}
	for range 5 {
		for _, client := range clients {
			if got := status(t, client, "/api"); got != 200 {
				t.Error(got)
			}
		}
	}
	if s.logins != 2 || s.refused != 0 {
		t.Errorf("%d logins, %d refusals", s.logins, s.refused)
	}
}

// A key that was deleted is made anew, over the tombstone.
func TestDeletedKeyIsMadeAnew(t *testing.T) {
	storage := requestforge.NewMemoryStorage()
	first := storedKey(t, storage)
	entries, err := storage.Load(t.Context(), "shop/dpop")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := storage.Delete(t.Context(), "shop/dpop", entries[0].Version()); err != nil {
		t.Fatal(err)
	}
	second := storedKey(t, storage)
	if third := storedKey(t, storage); first.Thumbprint() == second.Thumbprint() || second.Thumbprint() != third.Thumbprint() {
		t.Error(first, second, third)
	}
}

// odd is a Storage that answers as its functions say.
type odd struct {
	requestforge.Storage
	load func() ([]requestforge.Entry, error)
	save func() (requestforge.Entry, error)
}

func (o *odd) Load(context.Context, ...string) ([]requestforge.Entry, error) { return o.load() }

func (o *odd) Save(context.Context, string, requestforge.Record, uint64) (requestforge.Entry, error) {
	return o.save()
}

func TestStoredKeySaysWhatIsWrong(t *testing.T) {
	down := errors.New("the storage is down")
	none := func() ([]requestforge.Entry, error) { return make([]requestforge.Entry, 1), nil }
	stored := func(key, text string) *odd {
		r := &requestforge.Record{Key: key, Token: &requestforge.Token{AccessToken: text}}
		if text == "" {
			r.Token = nil
		}
		return &odd{load: func() ([]requestforge.Entry, error) { return []requestforge.Entry{{Record: r}}, nil }}
	}
	data, _ := exampleKey(t)
	good := "dpop1:" + base64.RawURLEncoding.EncodeToString(data)
	if _, err := dpop.StoredKey(t.Context(), stored("n", good), "n"); err != nil {
		t.Fatal(err)
	}
	tries := 0
	var nilStorage *requestforge.MemoryStorage
	for name, c := range map[string]struct {
		storage requestforge.Storage
		name    string
		want    string
	}{
		"no storage":      {nil, "n", "storage is nil"},
		"a nil storage":   {nilStorage, "n", "storage is nil"},
		"no name":         {requestforge.NewMemoryStorage(), "", "name is empty"},
		"load fails":      {&odd{load: func() ([]requestforge.Entry, error) { return nil, down }}, "n", `loading "n": the storage is down`},
		"load is wrong":   {&odd{load: func() ([]requestforge.Entry, error) { return nil, nil }}, "n", "0 entries"},
		"save fails":      {&odd{load: none, save: func() (requestforge.Entry, error) { return requestforge.Entry{}, down }}, "n", `saving "n": the storage is down`},
		"always deleted":  {&odd{load: none, save: func() (requestforge.Entry, error) { tries++; return requestforge.Entry{Gone: 1}, nil }}, "n", "deleted again and again"},
		"a token":         {stored("n", "hunter2"), "n", `stored under "n" is no key`},
		"another's":       {stored("other", good), "n", `stored under "n" is no key`},
		"no token":        {stored("n", ""), "n", `stored under "n" is no key`},
		"not base64":      {stored("n", "dpop1:hunter2!"), "n", `stored under "n" is no key`},
		"not a key":       {stored("n", "dpop1:hunter2"), "n", `stored under "n" is no key`},
		"another version": {stored("n", "dpop2:hunter2"), "n", `stored under "n" is no key`},
	} {
		key, err := dpop.StoredKey(t.Context(), c.storage, c.name)
		if key != nil || err == nil || !strings.HasPrefix(err.Error(), "requestforge: dpop: StoredKey: ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, %v", name, key, err)
		}
		if strings.Contains(c.want, "down") != errors.Is(err, down) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if tries != 4 {
		t.Errorf("%d tries", tries)
	}
}
