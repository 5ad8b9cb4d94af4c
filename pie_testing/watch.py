"""A tap that remembers what a program asked of its models."""

from __future__ import annotations

from pie_engine.host.process import Ending, Process
from pie_engine.host.tap import Called, Waited
from pie_testing.result import Seen


class Watch:
    """Implements `host.tap.Tap`; `seen` grows as the program runs."""

    def __init__(self, process: Process) -> None:
        self.seen = Seen()
        self._process = process
        self._reply_of: dict[int, int] = {}
        """By the handle of a stream."""

    def called(self, call: Called) -> None:
        arguments, result = call.arguments, call.result
        name = (call.function.interface, call.function.function)
        self.seen.calls.append(name)
        if call.error is not None:
            return
        if name in (("generate", "start"), ("generate", "search")):
            self._reply_of[result] = len(self.seen.replies)
            self.seen.prompts.append(self._text_of(arguments[0]))
            self.seen.replies.append("")
        elif name == ("generate", "next") and result is not None:
            self._reply(arguments[0], result.text)
        elif name == ("generate", "finish-search"):
            self._reply(arguments[0], result.hypotheses[0].text if result.hypotheses else "")
        elif name == ("forward", "start"):
            self.seen.num_forwards += 1

    def waited(self, wait: Waited) -> None: ...

    def piped(self, text: str) -> None: ...

    def ended(self, ending: Ending) -> None: ...

    def _text_of(self, ctx: int) -> str:
        context = self._process.contexts[ctx]
        return context.core.model.tokenizer.decode(list(context.tokens))

    def _reply(self, handle: int, text: str) -> None:
        index = self._reply_of.get(handle)
        if index is not None:
            self.seen.replies[index] += text
