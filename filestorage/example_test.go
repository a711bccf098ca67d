package filestorage_test

import (
	"log"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/filestorage"
)

// A volume of a Kubernetes pod with an fsGroup is mounted at /data. The group is this
// pod's alone.
func ExampleOptions() {
	store, err := filestorage.Options{InsecureAllowGroup: true}.New("/data/tokens")
	if err != nil {
		log.Fatal(err)
	}
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps:     []requestforge.Step{ /* … */ },
		Storage:   store,
		KeyPrefix: "mytool",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer pipeline.Close()
}
