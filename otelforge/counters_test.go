package otelforge

import (
	"reflect"
	"slices"
	"testing"
)

// A field that Stats gets one day is missing here, and is noticed.
func TestEveryFieldOfStatsHasACounter(t *testing.T) {
	checkFields(t, stepCounters)
	checkFields(t, append(slices.Clip(pipelineCounters), subjectCount))
}

// checkFields sets one number after another and looks for a counter of its own.
func checkFields[T any](t *testing.T, counters []counter[T]) {
	t.Helper()
	for i, typ := 0, reflect.TypeFor[T](); i < typ.NumField(); i++ {
		if typ.Field(i).Type.Kind() != reflect.Uint64 {
			continue // Stats.Steps
		}
		var stats T
		reflect.ValueOf(&stats).Elem().Field(i).SetUint(7)
		var shown []string
		for _, c := range counters {
			if c.value(stats) == 7 {
				shown = append(shown, c.name)
			}
		}
		if len(shown) != 1 {
			t.Errorf("%v.%s is shown by %v, want one counter", typ, typ.Field(i).Name, shown)
		}
	}
}
