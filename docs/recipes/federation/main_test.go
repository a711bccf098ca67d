package main

func Example() {
	main()
	// Output:
	// 200 OK
	// 200 OK
}
