package main

import "net/http"

func Example() {
	before := http.DefaultTransport
	defer func() { http.DefaultTransport = before }()
	main()
	// Output:
	// pong
	// pong
}
