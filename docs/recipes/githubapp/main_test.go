package main

func Example() {
	main()
	// Output:
	// 300 installations see their repositories
	// 300 installations see their repositories
	// assertions signed: 1 tokens fetched: 301
}
