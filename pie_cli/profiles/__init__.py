"""Profiles on the command line: what a program did with its time, as text, as a trace for Perfetto, as a page."""
