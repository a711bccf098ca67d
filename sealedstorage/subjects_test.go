package sealedstorage_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

type subjectKey struct{}

// as is the context of a request of a subject.
func as(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, subjectKey{}, id)
}

const issuer = "https://issuer.example"

func idOf(name string) string { return rf.SubjectID(issuer, name+"@people.example") }

// crowd is the login of many people: app for all -> user for each, with refresh tokens.
type crowd struct {
	mu        sync.Mutex
	n         int
	logins    map[string]int    // by ID
	refreshes map[string]int    // by ID
	owner     map[string]string // the ID, by token of either kind
	foreign   int               // refresh tokens that came for somebody else
}

func newCrowd() *crowd {
	return &crowd{logins: map[string]int{}, refreshes: map[string]int{}, owner: map[string]string{}}
}

func (c *crowd) issue(id string) *rf.Token {
	c.n++
	tok := &rf.Token{AccessToken: fmt.Sprintf("hunter2-access-%d~", c.n), Expiry: time.Now().Add(time.Hour)}
	if id != "" {
		tok.RefreshToken = fmt.Sprintf("hunter2-refresh-%d~", c.n)
		tok.Extra = map[string]any{"mail": id}
	}
	c.owner[tok.AccessToken], c.owner[tok.RefreshToken] = id, id
	return tok
}

func (c *crowd) pipeline(t *testing.T, s rf.Storage) *rf.Pipeline {
	t.Helper()
	login := rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.logins[in.Subject]++
		return c.issue(in.Subject), nil
	})
	refresh := rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.owner[in.Previous.RefreshToken] != in.Subject {
			c.foreign++
			return nil, errors.New("the refresh token is somebody else's")
		}
		c.refreshes[in.Subject]++
		return c.issue(in.Subject), nil
	})
	return pipeline(t, rf.PipelineConfig{
		Subject: func(ctx context.Context) (string, error) {
			id, _ := ctx.Value(subjectKey{}).(string)
			return id, nil
		},
		Storage: s, KeyPrefix: "test",
		Steps: []rf.Step{
			{Name: "app", Identity: "app", Fetcher: login},
			{Name: "user", Identity: "user", DependsOn: []string{"app"}, PerSubject: true, Fetcher: login, Refresh: refresh},
		},
	})
}

func tokenAs(t *testing.T, p *rf.Pipeline, id string) *rf.Token {
	t.Helper()
	tok, err := p.Token(as(t.Context(), id))
	require.NoError(t, err)
	return tok
}

// moving is a MemoryStorage that notes the keys of what is saved, in order, and in which
// other records lie under some keys until they are replaced.
type moving struct {
	*rf.MemoryStorage
	mu      sync.Mutex
	keys    []string
	instead map[string]*rf.Record
}

func (m *moving) Load(ctx context.Context, keys ...string) ([]rf.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	entries, err := m.MemoryStorage.Load(ctx, keys...)
	for i, key := range keys {
		if r := m.instead[key]; r != nil && err == nil {
			moved := *r
			entries[i].Record = &moved
		}
	}
	return entries, err
}

func (m *moving) Save(ctx context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys = append(m.keys, key)
	e, err := m.MemoryStorage.Save(ctx, key, r, seen)
	switch moved := m.instead[key]; {
	case moved == nil || err != nil:
	case e.Record != nil && e.Record.Token.AccessToken == r.Token.AccessToken:
		delete(m.instead, key)
	default:
		there := *moved
		e.Record = &there
	}
	return e, err
}

// Each subject's token comes back to that subject, in a process that begins anew, and
// nothing stored shows a token or an ID.
func TestSubjectsTokensComeBackThroughTheSeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 100
		c, below := newCrowd(), &moving{MemoryStorage: rf.NewMemoryStorage()}
		first := c.pipeline(t, seal(t, below, "a"))
		var ids []string
		tokens := map[string]*rf.Token{}
		for i := range many {
			id := idOf(fmt.Sprint("person-", i))
			ids, tokens[id] = append(ids, id), tokenAs(t, first, id)
		}
		storage := seal(t, below, "b", "a") // with a newer key in front
		again := c.pipeline(t, storage)
		for _, id := range ids {
			got := tokenAs(t, again, id)
			require.Equal(t, tokens[id].AccessToken, got.AccessToken)
			require.Equal(t, tokens[id].RefreshToken, got.RefreshToken)
			require.Equal(t, map[string]any{"mail": id}, got.Extra)
			require.Equal(t, 1, c.logins[id])
		}
		require.Equal(t, 1, c.logins[""])
		require.Zero(t, storage.Unreadable())
		require.Zero(t, again.Stats().BadRecords)

		require.Len(t, below.keys, 1+many)
		secrets := []string{"hunter2", issuer, "person-", "@people.example"}
		for _, secret := range secrets {
			for skip := range 3 { // whatever is around it
				if whole := secret[skip : skip+(len(secret)-skip)/3*3]; len(whole) >= 6 {
					secrets = append(secrets, base64.StdEncoding.EncodeToString([]byte(whole)))
				}
			}
			secrets = append(secrets, hex.EncodeToString([]byte(secret)))
		}
		for _, key := range below.keys {
			stored := load(t, below, key).Record
			data, err := stored.MarshalBinary()
			require.NoError(t, err)
			for _, text := range []string{key, string(data), stored.Token.AccessToken, stored.Token.RefreshToken, fmt.Sprint(stored.Token.Extra), fmt.Sprint(stored.Lineage)} {
				for _, secret := range secrets {
					require.NotContains(t, text, secret)
				}
			}
		}
	})
}

// A sealed record that was moved to another subject's key, whatever else is changed with
// it, is counted and replaced by a login of that subject. Neither its token nor its
// refresh token is ever used there.
func TestSubjectsSealedRecordThatWasMovedDoesNotOpen(t *testing.T) {
	for name, change := range map[string]func(r *rf.Record, bobs rf.Record){
		"as it is":           func(*rf.Record, rf.Record) {},
		"with the other key": func(r *rf.Record, bobs rf.Record) { r.Key = bobs.Key },
		"the token alone":    func(r *rf.Record, bobs rf.Record) { bobs.Token = r.Token; *r = bobs },
		"all but the token":  func(r *rf.Record, bobs rf.Record) { r.Token = bobs.Token },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, below := newCrowd(), &moving{MemoryStorage: rf.NewMemoryStorage()}
				ann, bob := idOf("ann"), idOf("bob")
				first := c.pipeline(t, seal(t, below, "a"))
				anns, bobs := tokenAs(t, first, ann), tokenAs(t, first, bob)
				require.Len(t, below.keys, 3)
				annKey, bobKey := below.keys[1], below.keys[2]

				moved := *load(t, below, annKey).Record
				change(&moved, *load(t, below, bobKey).Record)
				below.instead = map[string]*rf.Record{bobKey: &moved}
				storage := seal(t, below, "a")
				again := c.pipeline(t, storage)
				got := tokenAs(t, again, bob)
				require.NotContains(t, []string{anns.AccessToken, bobs.AccessToken}, got.AccessToken)
				require.Equal(t, bob, c.owner[got.AccessToken])
				require.Equal(t, bob, c.owner[got.RefreshToken])
				require.Positive(t, storage.Unreadable())
				require.Equal(t, 2, c.logins[bob])
				require.Equal(t, anns.AccessToken, tokenAs(t, again, ann).AccessToken, "ann keeps hers")

				// Nor is its refresh token used, when the time has come.
				time.Sleep(2 * time.Hour)
				require.Equal(t, bob, c.owner[tokenAs(t, again, bob).AccessToken])
				require.Equal(t, ann, c.owner[tokenAs(t, again, ann).AccessToken])
				require.Zero(t, c.foreign)
				require.Equal(t, 1, c.logins[ann])
			})
		})
	}
}
