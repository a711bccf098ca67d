// Counters of a pipeline, and a snapshot of them.

package requestforge

import "sync/atomic"

// Stats is a snapshot of a Pipeline's counters, which begin at zero with the
// process. The counters are read one after another, not at one instant.
type Stats struct {
	Steps map[string]StepStats // by the step's name

	Invalidations   uint64 // marks raised
	RefusalsIgnored uint64 // refusals that invalidated nothing because there were too many
	StorageErrors   uint64 // calls of the storage that failed or took too long
	BadRecords      uint64 // stored records that were of no use
}

// StepStats counts for one step.
type StepStats struct {
	Fetches      uint64 // requests to the auth server: calls of Fetcher and Refresh, each try
	Refreshes    uint64 // tokens got by Refresh
	Failures     uint64 // fetches that failed after all their tries
	FailedFast   uint64 // callers that got a remembered failure
	Loads        uint64 // tokens that another process had put into the storage
	RefreshAhead uint64 // renewals begun in the background
	LockWaits    uint64 // times that a peer was found to hold the lock
}

// counters counts for one pipeline.
type counters struct {
	steps []stepCounters // by step.index

	invalidations, refusalsIgnored, badRecords atomic.Uint64
}

type stepCounters struct {
	fetches, refreshes, failures, failedFast, loads, ahead, lockWaits atomic.Uint64
}

// snapshot returns the counters by the names of the steps. The storage's errors
// are counted elsewhere.
func (c *counters) snapshot(steps []*step) Stats {
	all := Stats{
		Steps:           make(map[string]StepStats, len(steps)),
		Invalidations:   c.invalidations.Load(),
		RefusalsIgnored: c.refusalsIgnored.Load(),
		BadRecords:      c.badRecords.Load(),
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
		}
	}
	return all
}
