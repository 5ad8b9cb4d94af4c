"""What this process is."""

from __future__ import annotations

from inferlet import _checks, _transport


class Runtime:
    """`runtime.process_id`, `runtime.program`, `runtime.version`, `runtime.secret(name)`."""

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

    def secret(self, name: str) -> str:
        """A secret that `secrets` in pie.toml names and `pie secret set` has set.

        Where its value would stand in an event or a recording, `[secret NAME]` stands. Raises `NotFound`.
        """
        return str(_transport.call(_transport.host.runtime.secret, _checks.text("the name of a secret", name)))


runtime = Runtime()
