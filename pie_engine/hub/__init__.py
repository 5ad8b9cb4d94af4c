"""Models as files: where they are, how they come here, what they are and whether they are whole. No torch."""
