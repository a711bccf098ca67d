package main

import (
	"testing"

	"github.com/requestforge/requestforge/interop/internal/demo/demotest"
)

func TestClientCredentialsReplaceARevokedToken(t *testing.T) { demotest.Run(t, flow, run) }
