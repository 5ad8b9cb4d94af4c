"""Lines of a view, as pure functions of it and of the room there is."""
