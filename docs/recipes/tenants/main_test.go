package main

func Example() {
	main()
	// Output:
	// acme 200 OK from acme.example.com
	// globex 200 OK from globex.example.com
	// acme 200 OK from acme.example.com
	// Get "/orders": requestforge: no subject: there is no tenant ""
	// logins: map[acme:2 globex:1]
}
