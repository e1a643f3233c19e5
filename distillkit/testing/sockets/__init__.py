"""The contract of each socket, as far as a test can see it: a file a socket."""
