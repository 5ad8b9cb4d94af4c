"""Recordings, run again: `run.Replays` does it, `script.Script` answers the program and compares."""
