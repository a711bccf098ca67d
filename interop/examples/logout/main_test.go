package main

import (
	"testing"

	"github.com/requestforge/requestforge/interop/internal/demo/demotest"
)

func TestLogoutEndsTheLoginAtTheServer(t *testing.T) { demotest.Run(t, flow, run) }
