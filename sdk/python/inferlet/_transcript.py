"""The chat of a context: which messages there are, and how much of their rendered text is already in the context.

The template is rendered anew for each change and only what is new is appended. Where the new text does not start with
what is there (some templates rewrite earlier turns), the context goes back to the common prefix first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Message = dict[str, Any]


class Tokens(Protocol):
    """What a transcript does to its context."""

    def length(self) -> int: ...
    def read(self, start: int, end: int) -> list[int]: ...
    def append_text(self, text: str) -> None: ...
    def append_tokens(self, tokens: Sequence[int]) -> None: ...
    def truncate(self, length: int) -> None: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, tokens: Sequence[int]) -> str: ...
    def render(self, messages: Sequence[Message], cue: bool) -> str: ...


@dataclass(frozen=True)
class _Mark:
    """What was in the context at a length: the first `num_messages` messages, as `rendered`."""

    length: int
    num_messages: int
    rendered: str
    is_cued: bool


@dataclass
class Transcript:
    """`[tokens before the chat] [rendered messages] [the reply so far]`."""

    tokens: Tokens
    messages: list[Message] = field(default_factory=list)
    _rendered: str = ""
    """Text of the chat in the context, without the reply."""
    _is_cued: bool = False
    """`_rendered` ends with the generation prompt."""
    _base: int = 0
    """Tokens before the chat."""
    _reply: list[str | list[int]] | None = None
    """Pieces of the assistant's turn that is open; None when none is."""
    _is_stale: bool = False
    """There are messages that are not in the context yet."""
    _marks: list[_Mark] = field(default_factory=list)

    def add(self, message: Message) -> None:
        """Note a message; it reaches the context with the next `sync`."""
        if not self.messages:
            self._base, self._rendered = self.tokens.length(), ""
        self._close_reply()
        self.messages.append(message)
        self._is_stale = True

    def sync(self) -> None:
        """Bring all messages into the context. After one of the user or a tool it is ready for the reply."""
        if self._is_stale:
            self._bring(cue=self.messages[-1]["role"] in ("user", "tool"))

    def open_reply(self) -> None:
        """Make the context ready for the assistant's words; nothing to do without a chat."""
        self.sync()
        if self.messages and self._reply is None:
            if not self._is_cued:
                self._bring(cue=True)
            self._reply = []

    def note_reply(self, piece: str | list[int]) -> Callable[[str], None]:
        """A piece of the open turn that is in the context by now. Returns what replaces it while it grows."""
        if self._reply is None:
            return lambda text: None
        pieces, index = self._reply, len(self._reply)
        pieces.append(piece)

        def replace(text: str) -> None:
            pieces[index] = text

        return replace

    def cut(self, length: int) -> None:
        """The context has been truncated to `length` tokens from outside of the chat."""
        while self._marks and self._marks[-1].length > length:
            self._marks.pop()
        self._is_stale = False
        if not self._marks:
            self._base, self.messages, self._rendered, self._reply, self._is_cued = length, [], "", None, False
            return
        mark = self._marks[-1]
        del self.messages[mark.num_messages :]
        self._rendered, self._is_cued, self._reply = mark.rendered, mark.is_cued, None
        if mark.is_cued and length > mark.length:
            self._reply = [self.tokens.read(mark.length, length)]

    def copy(self, tokens: Tokens) -> Transcript:
        """The same chat over a fork of its context."""
        reply = None if self._reply is None else list(self._reply)
        return Transcript(
            tokens,
            list(self.messages),
            self._rendered,
            self._is_cued,
            self._base,
            reply,
            self._is_stale,
            [*self._marks],
        )

    def state(self) -> dict[str, Any]:
        """All of it but the tokens, as JSON carries it."""
        return {
            "messages": self.messages,
            "rendered": self._rendered,
            "is_cued": self._is_cued,
            "base": self._base,
            "reply": self._reply,
            "marks": [[mark.length, mark.num_messages, mark.rendered, mark.is_cued] for mark in self._marks],
        }

    @classmethod
    def restored(cls, tokens: Tokens, state: dict[str, Any]) -> Transcript:
        """The chat that gave `state`, over a context with the same tokens."""
        return cls(
            tokens,
            list(state["messages"]),
            state["rendered"],
            state["is_cued"],
            state["base"],
            state["reply"],
            False,
            [_Mark(*mark) for mark in state["marks"]],
        )

    def _close_reply(self) -> None:
        if self._reply is None:
            return
        text = "".join(piece if isinstance(piece, str) else self.tokens.decode(piece) for piece in self._reply)
        self._reply = None
        if text:
            self.messages.append({"role": "assistant", "content": text})
            self._rendered += text
            self._is_cued = False

    def _bring(self, *, cue: bool) -> None:
        text = self.tokens.render(self.messages, cue)
        if text.startswith(self._rendered):
            if len(text) > len(self._rendered):
                self.tokens.append_text(text[len(self._rendered) :])
        else:
            self._realign(self.tokens.encode(text))
        self._rendered, self._is_cued, self._is_stale = text, cue, False
        self._marks.append(_Mark(self.tokens.length(), len(self.messages), text, cue))

    def _realign(self, wanted: list[int]) -> None:
        """Keep the tokens that both have from the start of the chat on, and append the others."""
        there = self.tokens.read(self._base, self.tokens.length())
        num_common = 0
        for old, new in zip(there, wanted, strict=False):
            if old != new:
                break
            num_common += 1
        if num_common < len(there):
            self.tokens.truncate(self._base + num_common)
            self._marks = [mark for mark in self._marks if mark.length <= self._base + num_common]
        if num_common < len(wanted):
            self.tokens.append_tokens(wanted[num_common:])
