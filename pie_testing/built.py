"""Programs of tests as the components that `pie build` makes of them: `--pie-built`."""

from __future__ import annotations

from collections.abc import Callable

from pie_client import Bundle


class Builds:
    """The components of one run of pytest."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """`say` is told of what takes long."""
        self._say = say
        self._said = ""
        self._made: dict[str, Bundle] = {}

    def component_of(self, program: Bundle) -> Bundle:
        """Built and compiled, which takes longer than a test waits for its program. Raises what `pie build` refuses."""
        if program.manifest.runtime == "component":
            return program
        digest = program.digest
        if digest not in self._made:
            self._made[digest] = self._make(program)
        return self._made[digest]

    def _make(self, program: Bundle) -> Bundle:
        from pie_engine.builder.build import build
        from pie_engine.builder.python import PythonBuilder
        from pie_engine.builder.record import bundle_of_component
        from pie_engine.config import load_paths
        from pie_engine.host.components import load_component
        from pie_engine.host.engine import new_engine

        cache = load_paths().cache
        built = build(PythonBuilder(), program, cache, self._tell)
        load_component(new_engine(), cache / "components", built.component)
        return bundle_of_component(built.component, built.record)

    def _tell(self, text: str, _fraction: float | None) -> None:
        if text != self._said:
            self._said = text
            self._say(text)
