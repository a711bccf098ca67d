module github.com/requestforge/requestforge/interop

go 1.26.0

replace (
	github.com/requestforge/requestforge => ../
	github.com/requestforge/requestforge/oauth2source => ../oauth2source
)
