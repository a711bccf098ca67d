package main

func Example() {
	main()
	// Output:
	// 200 OK from shop.example.com
	// 200 OK from shop--eu.example.com
}
