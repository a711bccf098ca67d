// What the storage must still be told of.

package requestforge_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// A logout that the storage can't be told of is told later, also if a login was being saved
// meanwhile, whose answer comes after the logout.
func TestPipelineForgetDuringASaveIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		saved, goOn := make(chan struct{}), make(chan struct{})
		var once atomic.Bool
		storage := &faulty{MemoryStorage: rf.NewMemoryStorage(), before: func(op string) error {
			if down.Load() && op != "Save" {
				return errDisk
			}
			return nil
		}, after: func(*rf.Entry) {
			if once.CompareAndSwap(false, true) {
				close(saved)
				<-goOn
			}
		}}
		r := &rotating{}
		cfg := rf.PipelineConfig{Storage: storage, KeyPrefix: "x", Steps: identified([]rf.Step{r.step()}), StorageTimeout: time.Minute, RefreshAhead: -1}
		p := pipeline(t, cfg)
		go p.Token(t.Context())
		<-saved
		down.Store(true)
		require.Error(t, p.Forget(t.Context()))
		close(goOn)
		synctest.Wait()
		down.Store(false)
		time.Sleep(2 * time.Minute) // looks are at most half a minute apart
		peer := pipeline(t, cfg)
		tok, err := peer.Token(t.Context())
		require.NoError(t, err)
		require.NotEqual(t, "access-1", tok.AccessToken, "a token from before the logout")
	})
}

// revoking is a storage with another Revoke.
type revoking struct {
	*rf.MemoryStorage
	before func(stamp uint64) error
}

func (r revoking) Revoke(ctx context.Context, key string, stamp uint64) error {
	if err := r.before(stamp); err != nil {
		return err
	}
	return r.MemoryStorage.Revoke(ctx, key, stamp)
}

// An answer about an older revocation doesn't hide that a newer one has failed.
func TestPipelineLateRevokeHidesNoFailedOne(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint(late), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, failed := 0, 0
				goOn := make(chan struct{})
				storage := revoking{rf.NewMemoryStorage(), func(stamp uint64) error {
					if n++; n == 1 && late {
						<-goOn
					}
					if stamp == 2 && failed == 0 {
						failed++
						return errDisk
					}
					return nil
				}}
				l := newLogin()
				l.takes = 0
				cfg := rf.PipelineConfig{Storage: storage, KeyPrefix: "x", Steps: identified([]rf.Step{l.step("user")}), StorageTimeout: time.Minute, RefreshAhead: -1}
				p, peer := pipeline(t, cfg), pipeline(t, cfg)
				mustToken(t, p)
				go p.InvalidateStep(t.Context(), "user")
				synctest.Wait()
				mustToken(t, p)
				require.Equal(t, "user-2", mustToken(t, peer).AccessToken)
				err := p.InvalidateStep(t.Context(), "user")
				close(goOn)
				synctest.Wait()
				require.Error(t, err)
				time.Sleep(3 * time.Minute)
				tok := mustToken(t, peer)
				require.NotEqual(t, "user-2", tok.AccessToken)
			})
		})
	}
}
