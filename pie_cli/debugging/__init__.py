"""`pie debug` and `pie repl`: programs in a Python of the user's own, at the daemon's engine."""
