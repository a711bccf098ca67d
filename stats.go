// Counters of a pipeline, and a snapshot of them.

package requestforge

import "sync/atomic"

// Stats is a snapshot of a Pipeline's counters, which begin at zero with the process. The
// counters are read in sequence, not at the same instant.
type Stats struct {
	Steps map[string]StepStats // by the step's name

	Invalidations   uint64 // marks raised
	RefusalsIgnored uint64 // refusals without an invalidation, and challenges without a fetch, because there were too many
	StorageErrors   uint64 // calls of the storage that failed or took too long
	BadRecords      uint64 // unusable stored records

	Subjects uint64 // subjects in memory now
	Evicted  uint64 // subjects dropped from memory, see PipelineConfig.MaxSubjects
}

// StepStats are the counters of a step.
type StepStats struct {
	Fetches      uint64 // requests to the auth server: calls of Fetcher and Refresh, each try
	Refreshes    uint64 // tokens got by Refresh
	Failures     uint64 // fetches that failed after all tries
	FailedFast   uint64 // callers that got a remembered failure
	Loads        uint64 // tokens loaded that another process had stored
	RefreshAhead uint64 // renewals begun in the background
	LockWaits    uint64 // times that a peer held the lock
	Challenges   uint64 // fetches begun because an API asked for more than the token could show

	Revocations    uint64 // tokens that Step.Revoke has revoked
	RevokeFailures uint64 // tokens that Step.Revoke failed to revoke, or beyond the bound on waits for the end of RevokeReplaced
}

// counters are the counters of a pipeline.
type counters struct {
	steps []stepCounters // by step.index

	invalidations, refusalsIgnored, badRecords, evicted atomic.Uint64
}

type stepCounters struct {
	fetches, refreshes, failures, failedFast, loads, ahead, lockWaits, challenges, revocations, revokeFailures atomic.Uint64
}

// snapshot returns the counters by the names of the steps. The storage's errors
// are counted elsewhere.
func (c *counters) snapshot(steps []*step) Stats {
	all := Stats{
		Steps:           make(map[string]StepStats, len(steps)),
		Invalidations:   c.invalidations.Load(),
		RefusalsIgnored: c.refusalsIgnored.Load(),
		BadRecords:      c.badRecords.Load(),
		Evicted:         c.evicted.Load(),
	}
	for i, s := range steps {
		c := &c.steps[i]
		all.Steps[s.Name] = StepStats{
			Fetches:      c.fetches.Load(),
			Refreshes:    c.refreshes.Load(),
			Failures:     c.failures.Load(),
			FailedFast:   c.failedFast.Load(),
			Loads:        c.loads.Load(),
			RefreshAhead: c.ahead.Load(),
			LockWaits:    c.lockWaits.Load(),
			Challenges:   c.challenges.Load(),

			Revocations:    c.revocations.Load(),
			RevokeFailures: c.revokeFailures.Load(),
		}
	}
	return all
}
