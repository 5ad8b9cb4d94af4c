"""One module per text family; each offers functions from a `Draw` to an `Example`."""
