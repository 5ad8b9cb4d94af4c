"""What this process is, and the programs that it launches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inferlet import _checks, _transport, children


class Runtime:
    """`runtime.process_id`, `runtime.program`, `runtime.version`, `runtime.secret(name)`, `runtime.launch(program)`."""

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

    async def launch(
        self,
        program: str,
        input: Mapping[str, Any] | None = None,
        /,
        *,
        endowment: float | None = None,
        **arguments: Any,
    ) -> children.Child:
        """Start another program as a child of this one, for the same user; returns when it has a process id.

        >>> child = await runtime.launch("worker", question="Why?")
        >>> answer = await child.result()

        Args:
            program: `name`, which is the newest, or `name@version` of a program that was uploaded, by `pie dev` say;
                `launches` in pie.toml has to name it. Its own name is this very program, uploaded or not.
            input: arguments of its `main`, for those that are called as a parameter here is.
            endowment: credits that it takes along, out of what this program has left in each model; None: an eighth of
                that. What it has left comes back when it ends.
            arguments: of its `main`.

        It ends with this program at the latest. Raises `InvalidInput` for what pie.toml does not let it launch and for
        an endowment above its own, `NotFound` for an unknown program, `LimitExceeded` for too many children. What
        `main` does not take ends the child, before it runs, with `invalid_input`.
        """
        return await children.launch(program, input, endowment, arguments)


runtime = Runtime()
