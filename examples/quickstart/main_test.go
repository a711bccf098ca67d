package main

func Example() {
	main()
	// Unordered output:
	// /user/profile: 200 OK
	// /user/profile: 200 OK
	// app tokens fetched: 1
	// user tokens fetched: 2
}
