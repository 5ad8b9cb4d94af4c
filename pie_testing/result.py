"""What a program did, as a test looks at it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from pie_engine.errors import ErrorInfo
from pie_engine.protocol.plan import NO_USAGE, Usage

_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
TERMINAL = ("return", "error")
_NOT_SEEN = "the daemon does not tell {}; run this test with `--pie-engine=embedded`"


class Event(NamedTuple):
    """One event of a program. `kind`: `started`, `message`, `stdout`, `stderr`, `log`, `return` or `error`."""

    kind: str
    value: Any

    @property
    def is_terminal(self) -> bool:
        return self.kind in TERMINAL


@dataclass(frozen=True)
class ToolCall:
    """What the model asked for in the `<tool_call>` format."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass
class Seen:
    """What only the embedded engine sees of a program."""

    prompts: list[str] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    num_forwards: int = 0
    calls: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Result:
    """A program that has ended, or that was ended in the middle."""

    program: str
    """Its name."""
    events: list[Event]
    usage: Usage = NO_USAGE
    num_passes: int | None = None
    num_pages: int | None = None
    seen: Seen | None = None

    # How it ended.

    @property
    def error(self) -> ErrorInfo | None:
        """What it failed with: `code`, `message`, `hint`, `traceback`. None: it did not fail."""
        last = self.events[-1] if self.events else None
        return last.value if last is not None and last.kind == "error" else None

    @property
    def value(self) -> Any:
        """What `main` returned."""
        last = self.events[-1] if self.events else None
        if last is None or last.kind != "return":
            raise AssertionError(f"{self.program} has not returned: {self.error or 'it was still running'}")
        return last.value

    # What it said.

    def of(self, *kinds: str) -> list[Any]:
        """The values of all events of these kinds."""
        return [event.value for event in self.events if event.kind in kinds]

    @property
    def messages(self) -> list[Any]:
        """What it sent to its client."""
        return self.of("message")

    @property
    def text(self) -> str:
        """Those of its messages that are texts, as a client shows them."""
        return "".join(message for message in self.messages if isinstance(message, str))

    @property
    def stdout(self) -> str:
        return "".join(self.of("stdout"))

    @property
    def stderr(self) -> str:
        return "".join(self.of("stderr"))

    @property
    def logs(self) -> list[tuple[str, str]]:
        """(level, message) of what it has logged."""
        return [(entry["level"], entry["message"]) for entry in self.of("log")]

    # What it asked of the model.

    @property
    def prompts(self) -> list[str]:
        """The whole text of the context at each `generate`, in their order."""
        return self._seen("what programs ask of the model").prompts

    @property
    def replies(self) -> list[str]:
        """What the model wrote for each `generate`, as far as the program took it."""
        return self._seen("what the model writes").replies

    @property
    def tool_calls(self) -> list[ToolCall]:
        """What the model asked for in `<tool_call>` tags, in all replies; what is no call is left out."""
        found = [_CALL.findall(reply) for reply in self.replies]
        return [call for texts in found for text in texts if (call := _call(text)) is not None]

    @property
    def calls(self) -> list[str]:
        """The functions of the engine that it called, as `interface.function`, in their order."""
        return [f"{interface}.{function}" for interface, function in self._seen("calls").calls]

    @property
    def num_forwards(self) -> int:
        """How often it called `forward`."""
        return self._seen("calls of `forward`").num_forwards

    # What it took.

    @property
    def tokens(self) -> int:
        """Tokens that the model read for its replies (but for those that the cache held), and wrote."""
        return self.usage.prompt_tokens - self.usage.cached_tokens + self.usage.completion_tokens

    @property
    def passes(self) -> int:
        """Forward passes that the model ran meanwhile: one reads a prompt, and each further one writes a token."""
        return _known(self.num_passes, "forward passes")

    @property
    def pages(self) -> int:
        """The most KV pages that it held at once."""
        return _known(self.num_pages, "KV pages")

    # For people.

    def transcript(self) -> str:
        """All that can be seen from outside, the same in every run: what golden files hold."""
        return "".join(f"{event.kind}: {_shown(event)}\n" for event in joined(self.events))

    def report(self, *, with_traceback: bool = True) -> str:
        """What a failed test shows of it."""
        parts = [f"{event.kind:8} {_shown(event)}" for event in joined(self.events)]
        if self.error is not None and self.error.traceback and with_traceback:
            parts += ["", self.error.traceback.rstrip()]
        if self.error is not None and self.error.hint:
            parts.append(f"hint: {self.error.hint}")
        took = [f"{self.tokens} tokens"]
        took += [] if self.num_passes is None else [f"{self.num_passes} forward passes"]
        took += [] if self.num_pages is None else [f"{self.num_pages} KV pages"]
        return "\n".join([*parts, "", ", ".join(took)])

    def _seen(self, what: str) -> Seen:
        assert self.seen is not None, _NOT_SEEN.format(what)
        return self.seen


def joined(events: Sequence[Event]) -> list[Event]:
    """Texts that came in pieces, whole: how many pieces there are depends on the moment."""
    whole: list[Event] = []
    for event in events:
        last = whole[-1] if whole else None
        if last and event.kind == last.kind in ("message", "stdout", "stderr") and _are_texts(event, last):
            whole[-1] = Event(event.kind, last.value + event.value)
        else:
            whole.append(event)
    return whole


def _are_texts(*events: Event) -> bool:
    return all(isinstance(event.value, str) for event in events)


def _shown(event: Event) -> str:
    if isinstance(event.value, ErrorInfo):
        return f"{event.value.code}: {event.value.message}"
    if event.kind == "log":
        return f"{event.value['level']}: {event.value['message']}"
    if event.kind in ("stdout", "stderr"):
        return str(event.value).rstrip("\n").replace("\n", "\n  ")
    return json.dumps(msgspec.to_builtins(event.value), ensure_ascii=False)


def _known(number: int | None, what: str) -> int:
    assert number is not None, _NOT_SEEN.format(what)
    return number


def _call(text: str) -> ToolCall | None:
    try:
        call = json.loads(text)
        arguments = call.get("arguments", {})
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        return ToolCall(call["name"], arguments)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
