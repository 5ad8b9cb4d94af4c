"""What this process is."""

from __future__ import annotations

from inferlet import _transport


class Runtime:
    """`runtime.process_id`, `runtime.program`, `runtime.version`."""

    @property
    def process_id(self) -> str:
        """The process id, as `pie ps` shows it."""
        return _transport.host.runtime.process_id()

    @property
    def program(self) -> str:
        """The program's name in pie.toml."""
        return _transport.host.runtime.program()

    @property
    def version(self) -> str:
        """The program's version in pie.toml."""
        return _transport.host.runtime.version()


runtime = Runtime()
