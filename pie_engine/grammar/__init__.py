"""Grammars: from a schema, a regular expression or rules to masks over the vocabulary. Everything here is llguidance's
work; this is what the core needs of it, without torch and without the model."""
