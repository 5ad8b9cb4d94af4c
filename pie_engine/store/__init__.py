"""SQLite: programs, processes, event logs, messages."""
