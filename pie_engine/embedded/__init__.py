"""The engine in one process and one thread, for tests and replays."""

from pie_engine.embedded.engine import Embedded
from pie_engine.embedded.process import EmbeddedProcess

__all__ = ["Embedded", "EmbeddedProcess"]
