package forgez_test

import (
	"crypto/subtle"
	"log"
	"net/http"
	"os"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/forgez"
)

func Example() {
	srv := authtest.NewServer(authtest.Config{Steps: []authtest.Step{{Name: "app"}, {Name: "user", Parents: map[string]string{"app": "Authorization"}}}})
	defer srv.Close()

	// readme:start handler
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}
	debug := http.NewServeMux() // beside net/http/pprof, say
	debug.Handle("/debug/tokens", forgez.Handler(tokens))
	go http.ListenAndServe("127.0.0.1:6060", debug)
	// readme:end handler
}

func ExamplePage() {
	var orders, tenants *requestforge.Pipeline

	// readme:start page
	page := &forgez.Page{
		Pipelines: map[string]*requestforge.Pipeline{"orders": orders, "tenants": tenants},
		Allow: func(r *http.Request) bool {
			_, password, _ := r.BasicAuth()
			want := os.Getenv("DEBUG_PASSWORD")
			return forgez.Loopback(r) || want != "" && subtle.ConstantTimeCompare([]byte(password), []byte(want)) == 1
		},
	}
	http.Handle("/debug/tokens", page)
	// readme:end page
}
