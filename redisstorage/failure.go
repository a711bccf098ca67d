// Failures of the auth server, shared so that one failing process spares the auth server
// the requests of the others.

package redisstorage

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/requestforge/requestforge"
)

type failureWire struct {
	Fingerprint string `json:"fingerprint"`
	Status      int    `json:"status"`
	Code        string `json:"code"`
	Permanent   bool   `json:"permanent"`
}

// LoadFailure implements [requestforge.FailureStorage]. An unreadable failure counts
// as missing.
func (s *Storage) LoadFailure(ctx context.Context, key string) (requestforge.Failure, error) {
	reply, err := s.run(ctx, loadFailureScript, "load failure of", []string{key}, []string{s.failureName(key)})
	if err != nil || reply == nil {
		return requestforge.Failure{}, err
	}
	f, ok := reply.([]any)
	if !ok || len(f) != 2 {
		return requestforge.Failure{}, s.odd("load failure of", []string{key})
	}
	text, _ := f[0].(string)
	left, _ := f[1].(int64)
	var w failureWire
	if left <= 0 || json.Unmarshal([]byte(text), &w) != nil {
		return requestforge.Failure{}, nil
	}
	return requestforge.Failure{
		Fingerprint: w.Fingerprint,
		StatusCode:  w.Status,
		Code:        w.Code,
		Permanent:   w.Permanent,
		Left:        time.Duration(min(left, maxLife.Milliseconds())) * time.Millisecond,
	}, nil
}

// SaveFailure implements [requestforge.FailureStorage].
func (s *Storage) SaveFailure(ctx context.Context, key string, f requestforge.Failure) error {
	const op = "save failure of"
	if err := ctx.Err(); err != nil {
		return named(op, []string{key}, err)
	}
	name := s.failureName(key)
	text, err := json.Marshal(failureWire{f.Fingerprint, f.StatusCode, f.Code, f.Permanent})
	if err != nil {
		return errors.New("requestforge: redisstorage: a failure can't be written as JSON")
	}
	_, err = await(ctx, func() (any, error) {
		if f.Left <= 0 {
			return s.client.Del(ctx, name).Result()
		}
		// Whole milliseconds, rounded up: Redis knows nothing shorter.
		ms := (min(f.Left, maxLife) + time.Millisecond - 1) / time.Millisecond
		return s.client.SetArgs(ctx, name, text, redis.SetArgs{TTL: ms * time.Millisecond}).Result()
	})
	if err != nil {
		return named(op, []string{key}, err)
	}
	return nil
}
