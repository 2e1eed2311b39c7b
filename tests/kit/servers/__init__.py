"""Real servers for the tests: found, built or installed, started on free loopback ports, and ended by their own pid."""
