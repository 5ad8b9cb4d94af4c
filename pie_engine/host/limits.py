"""What a process may use: what its manifest asks for, as far as the engine gives it; and where each limit is raised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pie_engine.config import HostSection
from pie_engine.errors import LimitExceeded
from pie_engine.protocol.program import Limits

LimitKey = Literal["memory_mb", "cpu_s", "wall_s", "output_mb"]

_CODES: dict[LimitKey, str] = {
    "memory_mb": "memory_limit",
    "cpu_s": "cpu_limit",
    "wall_s": "wall_limit",
    "output_mb": "output_limit",
}


@dataclass(frozen=True, slots=True)
class GrantedLimits:
    """The engine's own limits bound what a manifest asks for. `wall_s` 0: no limit."""

    memory_mb: int
    cpu_s: float
    wall_s: float
    output_mb: float
    asked: Limits
    engine: HostSection

    @classmethod
    def of(cls, asked: Limits, engine: HostSection) -> GrantedLimits:
        walls = [wall for wall in (asked.wall_s, engine.wall_s) if wall]
        return cls(
            memory_mb=min(asked.memory_mb or engine.memory_mb, engine.memory_mb),
            cpu_s=min(asked.cpu_s or engine.cpu_s, engine.cpu_s),
            wall_s=min(walls, default=0.0),
            output_mb=min(asked.output_mb or engine.output_mb, engine.output_mb),
            asked=asked,
            engine=engine,
        )

    def exceeded(self, key: LimitKey, message: str, *, otherwise: str = "") -> LimitExceeded:
        """The error of a program that went over a limit. `otherwise`: what the program could do, not its owner."""
        way_out = self._way_out(key)
        return LimitExceeded.of(_CODES[key], message, hint=f"{way_out}, or {otherwise}" if otherwise else way_out)

    def cuts(self) -> list[str]:
        """A sentence for each limit that the manifest sets higher than the engine."""
        return [
            f"pie.toml asks for `{key}` {asked:g}, and the engine gives {granted:g}; "
            f"raise `{key}` under [host] in the configuration"
            for key in _CODES
            if (asked := getattr(self.asked, key) or 0) > (granted := getattr(self, key))
        ]

    def _way_out(self, key: LimitKey) -> str:
        """Of the limit that holds: the engine's, unless the manifest has set a lower one."""
        most = getattr(self.engine, key)
        if getattr(self, key) == most:
            return f"this is the engine's own limit: raise `{key}` under [host] in the configuration"
        up_to = f", up to the engine's {most:g}" if most else ""
        return f"this is the program's own limit: raise `{key}` under [limits] in pie.toml{up_to}"
