package main

func Example() {
	main()
	// Output:
	// GET /orders 200 OK
	// POST /orders 200 OK
	// POST /payouts 401 Unauthorized
	// GET /orders 200 OK
	// POST /payouts 200 OK
	// POST /payouts 200 OK
	// DELETE /users 403 Forbidden
	// login: orders.read
	// login: orders.read orders.write
	// login: orders.read orders.write payouts, with a code
	// login: orders.read orders.write payouts, with a code
	// login: orders.read orders.write payouts, with a code
}
