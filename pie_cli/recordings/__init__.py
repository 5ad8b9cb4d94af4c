"""Recordings on the command line: writing them, replaying them, comparing them."""
