"""Runs a program in an ordinary Python, where debuggers work, against the host of a daemon: `pie debug`, `pie repl`."""
