"""Unit tests of inferlets under plain Python: a fake host with scripted replies.

>>> from inferlet.testing import run_inferlet
>>> from main import main
>>>
>>> def test_greets():
...     result = run_inferlet(main, {"prompt": "Hi"}, replies=["Hello!"])
...     assert result.messages == ["Hello!"]
"""

from __future__ import annotations

import base64
import enum
import itertools
import json
import math
import re
import struct
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from inferlet import _transport, errors
from inferlet._loop import TERMINATION, HostLoop
from inferlet._packing import pack_pairs, pack_tokens, unpack_tokens
from inferlet._plain_json import dump_json
from inferlet._reply_check import check_reply
from inferlet.signature import Signature

Reply = str | Callable[[str], str]
"""What the model says: a text, or a function of the whole prompt text."""
TOKENS_PER_CHUNK = 4
LOGPROB = -0.25
"""Of every token that the fake model writes."""
ENTROPY = 1.25
"""At every token, in nats."""
_handles = itertools.count(1)
"""Of all fake hosts: what is collected late, when another host is in its place, must not mean one of the other's."""
_sleep = time.sleep  # in the sandbox's build, before it is replaced by one that waits on the host
_SPECIAL = re.compile(r"<\|\w+\|>")
_FIRST_CHARACTER = 100
"""Smaller token ids are special tokens, in the order in which they are first seen."""


@dataclass
class Result:
    """What an inferlet did."""

    value: Any
    """What `main` returned, as JSON carries it."""
    messages: list[Any]
    """What it sent to the client."""
    logs: list[tuple[str, str]]
    """(level, message) of `inferlet.log`."""
    prompts: list[str]
    """The whole text of the context at each `generate`."""


def run_inferlet(
    main: Callable[..., Coroutine[Any, Any, Any]],
    input: dict[str, Any] | None = None,
    *,
    replies: Sequence[Reply] = (),
    inbox: Sequence[Any] = (),
    adapters: Sequence[str] = (),
) -> Result:
    """Run `main` with these arguments against a fake model and client.

    Args:
        main: the inferlet's `main`.
        input: its arguments, checked and converted as the engine does.
        replies: what the model writes, one for each `generate`.
        inbox: messages that the client has sent; None last, as `pie run` does at the end of its input.
        adapters: names of LoRA adapters that are loaded.

    Raises what `main` raises; `Deadlock` when it waits for a message that never comes.
    """
    host = FakeHost(replies=replies, inbox=inbox, adapters=adapters)
    before = _transport.connect(host)
    try:
        loop = HostLoop()
        try:
            value = loop.run(main(**Signature.of(main).bind(input or {})))
        finally:
            loop.close()
    finally:
        _transport.connect(before)
    return Result(json.loads(dump_json(value)), host.messages, host.logs, host.prompts)


class _Level(enum.Enum):
    DEBUG = 0
    INFO = 1
    WARNING = 2
    ERROR = 3


class _Output(enum.Enum):
    STDOUT = 0
    STDERR = 1


class _Finish(enum.Enum):
    STOP = 0
    LENGTH = 1
    CONTEXT = 2
    DEADLINE = 3
    STOPPED = 4


class _SpeculationKind(enum.Enum):
    LOOKUP = 0
    MODEL = 1


@dataclass
class _Speculation:
    kind: _SpeculationKind
    max_tokens: int


class _GrammarKind(enum.Enum):
    JSON_SCHEMA = 0
    REGEX = 1
    LARK = 2
    EBNF = 3
    CHOICE = 4


@dataclass
class _Grammar:
    kind: _GrammarKind
    text: str


@dataclass
class _SamplerOptions:
    typical_p: float
    epsilon_cutoff: float
    eta_cutoff: float
    xtc_probability: float
    xtc_threshold: float
    mirostat_tau: float
    mirostat_eta: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    penalty_window: int
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_breakers: str
    logit_bias: str
    allowed_tokens: str | None
    banned_tokens: str


@dataclass
class _Placement:
    positions: list[int] | None
    mask: list[list[int]] | None


@dataclass
class _Probes:
    top_k: int
    logprobs_of: list[int]
    entropy: bool
    logits: bool
    hidden: bool
    of_allowed: bool


@dataclass
class _Sampler:
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    more: _SamplerOptions | None


@dataclass
class _Plan:
    sampler: _Sampler
    max_tokens: int | None
    timeout_s: float | None
    speculation: _Speculation | None
    stop: list[str]
    stop_tokens: list[int]
    ignore_eos: bool
    seed: int | None
    logprobs: bool
    top_logprobs: int
    entropy: bool
    chunk_ms: int
    grammar: _Grammar | None
    window: int | None
    sinks: int


class _EarlyStopping(enum.Enum):
    NO = 0
    YES = 1
    NEVER = 2


@dataclass
class _BeamPlan:
    num_beams: int
    max_tokens: int | None
    length_penalty: float
    early_stopping: _EarlyStopping
    num_returned: int
    stop: list[str]
    stop_tokens: list[int]
    ignore_eos: bool
    timeout_s: float | None
    grammar: _Grammar | None


@dataclass
class _Stream:
    """A scripted reply on its way: what is still to come, and what has been delivered."""

    ctx: int
    plan: _Plan
    coming: list[int]
    num_prompt: int
    delivered: list[int] = field(default_factory=list)
    finish: _Finish = _Finish.STOP
    is_piped: bool = False


class FakeHost:
    """All interfaces of the WIT over a scripted model.

    A token is a character, or one special token like `<|user|>`. Everything is ready at once. `calls` counts what was
    called, by `interface.function`.
    """

    def __init__(
        self, *, replies: Sequence[Reply] = (), inbox: Sequence[Any] = (), adapters: Sequence[str] = ()
    ) -> None:
        self.replies = deque(replies)
        self.inbox = deque(json.dumps(message) for message in inbox)
        self.messages: list[Any] = []
        self.logs: list[tuple[str, str]] = []
        self.prompts: list[str] = []
        self.printed: list[tuple[str, str]] = []
        self.contexts: dict[int, list[int]] = {}
        self.adapters = [*adapters]
        self.adapter_of: dict[int, str] = {}
        """The adapter of each context; empty: none."""
        self.saved: dict[str, tuple[list[int], str, str]] = {}
        """Saved contexts by name: tokens, what the SDK keeps with them, and their adapter."""
        self.stored_code: dict[str, str] = {}
        self.calls: dict[str, int] = {}
        self.drafts: list[tuple[int, list[int]]] = []
        """(index, tokens) of each `Stream.draft`."""
        self.tokens_per_chunk = TOKENS_PER_CHUNK
        self._special: list[str] = []
        self._streams: dict[int, _Stream] = {}
        self._passes: dict[int, tuple[int, _Sampler | None, _Probes | None, int | None]] = {}
        self._matchers: dict[int, tuple[list[int], list[int]]] = {}
        """By handle: the tokens of the scripted reply that it lets in, and those that it has taken."""
        self._looks: dict[int, SimpleNamespace] = {}
        self._searches: dict[int, SimpleNamespace] = {}
        self._receives: deque[int] = deque()
        self._promised: dict[int, str] = {}
        self._ready: list[int] = []
        self._make_interfaces()

    def terminate(self) -> None:
        """Ask the program to end, as `pie stop` or a closing client does."""
        self._ready.append(TERMINATION)

    def post(self, message: Any) -> None:
        """A message of the client."""
        self.inbox.append(json.dumps(message))
        self._match_receives()

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids of the fake tokenizer."""
        ids, end = [], 0
        for match in _SPECIAL.finditer(text) if special else ():
            ids += _characters(text[end : match.start()])
            ids.append(self._special_id(match[0]))
            end = match.end()
        return ids + _characters(text[end:])

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """The text of token ids of the fake tokenizer."""
        return "".join(
            chr(i - _FIRST_CHARACTER) if i >= _FIRST_CHARACTER else "" if skip_special else self._special[i - 1]
            for i in ids
        )

    def text_of(self, ctx: int) -> str:
        """All that a context holds."""
        return self.decode(self.contexts[ctx])

    def _special_id(self, token: str) -> int:
        if token not in self._special:
            self._special.append(token)
        return self._special.index(token) + 1

    # Interfaces, by the names of the WIT.

    def _make_interfaces(self) -> None:
        self.futures = self._interface("futures", wait_any=self._wait_any, forget=lambda handle: None)
        self.model = self._interface(
            "model",
            list=lambda: ["fake"],
            adapters=lambda model: [
                SimpleNamespace(name=name, adapter_id=f"id of {name}", rank=8, num_bytes=1024) for name in self.adapters
            ],
            describe=self._describe,
            encode=lambda model, text, special: pack_tokens(self.encode(text, special)),
            decode=lambda model, tokens, skip: self.decode(unpack_tokens(tokens), skip),
            render_chat=self._render_chat,
        )
        self.context = self._interface(
            "context",
            create=self._create,
            append=lambda ctx, tokens: self._tokens_of(ctx).extend(tokens),
            append_packed=lambda ctx, tokens: self._tokens_of(ctx).extend(unpack_tokens(tokens)),
            append_text=self._append_text,
            encode=lambda ctx, text: pack_tokens(self.encode(text)),
            flush=lambda ctx: self._new_handle(is_ready=True),
            finish_flush=lambda handle: None,
            fork=self._fork,
            truncate=self._truncate,
            drop=self._drop,
            slide=self._slide,
            place=self._place,
            release=lambda ctx: self.contexts.pop(ctx, None) and None,
            save=self._save,
            finish_save=lambda handle: None,
            open=self._open,
            delete=self._delete,
            list_saved=lambda model: [
                SimpleNamespace(name=name, num_tokens=len(tokens), num_bytes=0, saved_at=0.0)
                for name, (tokens, _, _) in sorted(self.saved.items())
            ],
            length=lambda ctx: len(self._tokens_of(ctx)),
            tokens=lambda ctx, start, end: pack_tokens(self._tokens_of(ctx)[start:end]),
        )
        self.generate = self._interface(
            "generate", start=self._start, next=self._next, stop=self._stop, rewind=self._rewind, inject=self._inject,
            pipe=self._pipe, draft=lambda stream, index, tokens: self.drafts.append((index, tokens)),
            search=self._search, finish_search=lambda handle: self._searches.pop(handle),
        )  # fmt: skip
        self.generate.Plan, self.generate.Sampler = _Plan, _Sampler
        self.generate.SamplerOptions = _SamplerOptions
        self.generate.Grammar, self.generate.GrammarKind = _Grammar, _GrammarKind
        self.generate.BeamPlan, self.generate.EarlyStopping = _BeamPlan, _EarlyStopping
        self.generate.Speculation, self.generate.SpeculationKind = _Speculation, _SpeculationKind
        self.forward = self._interface("forward", start=self._start_pass, finish=self._finish_pass)
        self.forward.Probes = _Probes
        self.context.Placement = _Placement
        self.matcher = self._interface(
            "matcher", create=self._create_matcher, fork=self._fork_matcher, advance=self._advance,
            rollback=self._roll_back, look=self._look, finish_look=lambda handle: self._looks.pop(handle),
            release=lambda matcher: self._matchers.pop(matcher, None) and None,
        )  # fmt: skip
        self.session = self._interface(
            "session",
            send=lambda value: self.messages.append(json.loads(value)),
            receive=self._receive,
            finish_receive=lambda handle: self._promised.pop(handle),
            drain=lambda: self._new_handle(is_ready=True),
            finish_drain=lambda handle: None,
        )
        self.runtime = self._interface(
            "runtime",
            process_id=lambda: "test-0001",
            program=lambda: "test",
            version=lambda: "0.0.0",
            store_code=lambda path, code: self.stored_code.update({path: code}),
        )
        self.log = self._interface("log", emit=self._emit, write=self._write)
        self.log.Level, self.log.Output = _Level, _Output

    def _interface(self, name: str, /, **functions: Callable[..., Any]) -> SimpleNamespace:
        return SimpleNamespace(**{key: self._counted(f"{name}.{key}", f) for key, f in functions.items()})

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            return function(*args)

        return call

    def _new_handle(self, *, is_ready: bool = False) -> int:
        handle = next(_handles)
        if is_ready:
            self._ready.append(handle)
        return handle

    def _wait_any(self, timeout_us: int | None) -> list[int]:
        if not self._ready:
            if timeout_us is None:
                raise errors.InvalidInput("nothing that is under way can wake the program")
            _sleep(timeout_us / 1e6)
        ready, self._ready = self._ready, []
        return ready

    def _describe(self, model: str) -> SimpleNamespace:
        if model not in ("", "fake"):
            raise errors.NotFound(f"no model `{model}` is loaded; there is: fake")
        return SimpleNamespace(name="fake", vocab_size=256, max_context_tokens=65536, page_size=16, stop_tokens=[3])

    def _render_chat(self, model: str, messages: str, tools: str | None, add_generation_prompt: bool) -> str:
        system = f"<|system|>Tools: {tools}<|end|>" if tools else ""
        turns = "".join(f"<|{turn['role']}|>{turn['content']}<|end|>" for turn in json.loads(messages))
        return f"<|begin|>{system}{turns}" + ("<|assistant|>" if add_generation_prompt else "")

    def _create(self, model: str, seed: int | None, adapter: str = "") -> int:
        self._describe(model)
        if adapter and adapter not in self.adapters:
            raise errors.NotFound(f"fake has no adapter called `{adapter}`")
        ctx = self._new_handle()
        self.contexts[ctx] = []
        self.adapter_of[ctx] = adapter
        return ctx

    def _tokens_of(self, ctx: int) -> list[int]:
        if ctx not in self.contexts:
            raise errors.NotFound(f"no context {ctx}")
        return self.contexts[ctx]

    def _append_text(self, ctx: int, text: str, special: bool) -> int:
        tokens = self.encode(text, special)
        self._tokens_of(ctx).extend(tokens)
        return len(tokens)

    def _fork(self, ctx: int) -> int:
        child = self._create("", None, self.adapter_of[ctx])
        self.contexts[child] = list(self._tokens_of(ctx))
        return child

    def _save(self, ctx: int, name: str, meta: str, durable: bool) -> int:
        self.saved[name] = (list(self._tokens_of(ctx)), meta, self.adapter_of[ctx])
        return self._new_handle(is_ready=True)

    def _open(self, model: str, name: str, seed: int | None) -> SimpleNamespace:
        self._find_saved(name)
        tokens, meta, adapter = self.saved[name]
        ctx = self._create(model, seed, adapter)
        self.contexts[ctx] = list(tokens)
        return SimpleNamespace(ctx=ctx, meta=meta, adapter=adapter)

    def _delete(self, model: str, name: str) -> None:
        self._find_saved(name)
        del self.saved[name]

    def _find_saved(self, name: str) -> None:
        if name not in self.saved:
            raise errors.NotFound(f"no context is saved as `{name}` with model fake")

    def _place(self, ctx: int, tokens: list[int], placement: _Placement) -> None:
        self._tokens_of(ctx).extend(tokens)

    def _drop(self, ctx: int, first: int, end: int) -> None:
        """The tokens stay: this model does not look at them."""
        there = len(self._tokens_of(ctx))
        if not first < end <= there:
            raise errors.InvalidInput(f"cannot drop tokens {first} … {end - 1} of context {ctx}: it has {there}")

    def _slide(self, ctx: int, window: int, sinks: int) -> None:
        """This model looks at nothing, so at no less."""
        self._tokens_of(ctx)

    def _truncate(self, ctx: int, length: int) -> None:
        del self._tokens_of(ctx)[length:]

    def _start(self, ctx: int, plan: _Plan) -> int:
        self.prompts.append(self.text_of(ctx))
        whole = self._next_reply(self.prompts[-1])
        if plan.grammar is not None:
            check_reply(whole, plan.grammar.kind.name, plan.grammar.text)
        reply, finish = self._cut(whole, plan.stop)
        coming = self.encode(reply)
        if plan.max_tokens is not None and len(coming) > plan.max_tokens:
            del coming[plan.max_tokens :]
            finish = _Finish.LENGTH
        handle = self._new_handle(is_ready=True)
        self._streams[handle] = _Stream(ctx, plan, coming, len(self.contexts[ctx]), finish=finish)
        return handle

    def _search(self, ctx: int, plan: _BeamPlan) -> int:
        """A reply for each hypothesis, best first; the scores are the fake's own."""
        self.prompts.append(self.text_of(ctx))
        found, count = [], 0
        for place in range(plan.num_returned):
            whole = self._next_reply(self.prompts[-1])
            if plan.grammar is not None:
                check_reply(whole, plan.grammar.kind.name, plan.grammar.text)
            text, finish = self._cut(whole, plan.stop)
            ids = self.encode(text)
            if plan.max_tokens is not None and len(ids) > plan.max_tokens:
                del ids[plan.max_tokens :]
                text, finish = self.decode(ids, skip_special=True), _Finish.LENGTH
            count += len(ids)
            found.append(SimpleNamespace(ids=pack_tokens(ids), text=text, score=LOGPROB * (place + 1), finish=finish))
        usage = _usage_of(len(self._tokens_of(ctx)), count)
        handle = self._new_handle(is_ready=True)
        self._searches[handle] = SimpleNamespace(hypotheses=found, usage=usage)
        return handle

    def _next_reply(self, prompt: str) -> str:
        if not self.replies:
            raise errors.InvalidInput("the test has no reply for this `generate`; give more with `replies=`")
        reply = self.replies.popleft()
        return reply if isinstance(reply, str) else reply(prompt)

    def _cut(self, reply: str, stops: list[str]) -> tuple[str, _Finish]:
        ends = [reply.find(stop) for stop in stops if stop in reply]
        return (reply[: min(ends)] if ends else reply), _Finish.STOP

    def _stream_of(self, handle: int) -> _Stream:
        if handle not in self._streams:
            raise errors.NotFound("this stream has ended")
        return self._streams[handle]

    def _next(self, handle: int) -> SimpleNamespace | None:
        stream = self._stream_of(handle)
        if stream.is_piped:
            return self._last_piped(handle, stream)
        ids = stream.coming[: self.tokens_per_chunk]
        del stream.coming[: self.tokens_per_chunk]
        return self._chunk(handle, stream, ids, self.decode(ids, skip_special=True))

    def _chunk(self, handle: int, stream: _Stream, ids: list[int], text: str) -> SimpleNamespace:
        index = len(stream.delivered)
        stream.delivered += ids
        self.contexts[stream.ctx] += ids
        logprobs = [LOGPROB] * len(ids) if stream.plan.logprobs else []
        top = [_packed_top(token, stream.plan.top_logprobs) for token in ids] if stream.plan.top_logprobs else []
        entropies = [ENTROPY] * len(ids) if stream.plan.entropy else []
        chunk = SimpleNamespace(
            ids=ids, text=text, logprobs=logprobs, top=top, entropies=entropies, index=index, finish=None, usage=None
        )
        if stream.coming:
            self._ready.append(handle)
        else:
            del self._streams[handle]
            chunk.finish = stream.finish
            chunk.usage = _usage(stream)
        return chunk

    def _last_piped(self, handle: int, stream: _Stream) -> SimpleNamespace:
        text = self.decode(stream.coming, skip_special=True)
        self.contexts[stream.ctx] += stream.coming
        self.messages.append(text)
        stream.delivered += stream.coming
        stream.coming = []
        return self._chunk(handle, stream, [], text)

    def _stop(self, handle: int) -> SimpleNamespace:
        return _usage(self._streams.pop(handle, None) or self._stream_of(handle))

    def _rewind(self, handle: int, count: int) -> None:
        stream = self._stream_of(handle)
        if count:
            stream.coming[:0] = stream.delivered[-count:]
            del stream.delivered[-count:], self.contexts[stream.ctx][-count:]
        self._ready.append(handle)

    def _inject(self, handle: int, tokens: list[int]) -> None:
        self._stream_of(handle).coming[:0] = tokens
        self._ready.append(handle)

    def _pipe(self, handle: int) -> None:
        self._stream_of(handle).is_piped = True
        self._ready.append(handle)

    def _start_pass(
        self,
        ctx: int,
        tokens: list[int],
        sampler: _Sampler | None,
        probes: _Probes | None,
        prompt_length: int,
        matcher: int | None,
        placement: _Placement | None,
    ) -> int:
        self._tokens_of(ctx).extend(tokens)
        handle = self._new_handle(is_ready=True)
        self._passes[handle] = (ctx, sampler, probes, matcher)
        return handle

    def _create_matcher(self, ctx: int, grammar: _Grammar) -> int:
        """It lets in one reply of the script and nothing else, token by token."""
        whole = self._next_reply(self.text_of(ctx))
        check_reply(whole, grammar.kind.name, grammar.text)
        handle = self._new_handle()
        self._matchers[handle] = (self.encode(whole), [])
        return handle

    def _fork_matcher(self, matcher: int, ctx: int) -> int:
        self._tokens_of(ctx)
        reply, taken = self._matchers[matcher]
        handle = self._new_handle()
        self._matchers[handle] = (reply, taken.copy())
        return handle

    def _advance(self, matcher: int, tokens: list[int]) -> None:
        self._matchers[matcher][1].extend(tokens)

    def _roll_back(self, matcher: int, count: int) -> None:
        taken = self._matchers[matcher][1]
        if count > len(taken):
            raise errors.InvalidInput(f"cannot roll {count} tokens back: the matcher has taken {len(taken)}")
        del taken[len(taken) - count :]

    def _look(self, matcher: int, tokens: list[int]) -> int:
        reply, taken = self._matchers[matcher]
        coming = reply[len(taken) :]
        lengths = range(len(tokens), -1, -1)
        num_fitting = next(length for length in lengths if tokens[:length] == coming[:length])
        handle = self._new_handle(is_ready=True)
        self._looks[handle] = SimpleNamespace(
            num_fitting=num_fitting, may_end=not coming, is_complete=not coming, forced=[]
        )
        return handle

    def _finish_pass(self, handle: int) -> SimpleNamespace:
        """The next token is always the next letter of the alphabet after the last one; with a matcher, of its reply.

        Logits are 0 but for that one, and the hidden state is the last token.
        """
        ctx, sampler, probes, matcher = self._passes.pop(handle)
        last = self.contexts[ctx][-1]
        best = last + 1
        if matcher is not None:
            reply, taken = self._matchers[matcher]
            best, sampler = (reply[len(taken)], sampler) if len(taken) < len(reply) else (best, None)
        token, logprob = (best, math.log(0.5)) if sampler is not None else (None, None)
        seen = SimpleNamespace(token=token, logprob=logprob, top="", logprobs=[], entropy=None, logits="", hidden="")
        if probes is not None:
            seen.top = _packed_top(best, probes.top_k)
            seen.logprobs = [math.log(0.5) * (1 + abs(token - best)) for token in probes.logprobs_of]
            seen.entropy = ENTROPY if probes.entropy else None
            seen.logits = _packed_floats(float(token == best) for token in range(256)) if probes.logits else ""
            seen.hidden = _packed_floats([float(last)]) if probes.hidden else ""
        return seen

    def _receive(self) -> int:
        handle = self._new_handle()
        self._receives.append(handle)
        self._match_receives()
        return handle

    def _match_receives(self) -> None:
        """Promise each waiting message to the longest waiting `receive`."""
        while self._receives and self.inbox:
            handle = self._receives.popleft()
            self._promised[handle] = self.inbox.popleft()
            self._ready.append(handle)

    def _emit(self, level: _Level, message: str) -> None:
        self.logs.append((level.name.lower(), message))

    def _write(self, output: _Output, text: str) -> None:
        self.printed.append((output.name.lower(), text))


def _usage(stream: _Stream) -> SimpleNamespace:
    return _usage_of(stream.num_prompt, len(stream.delivered))


def _usage_of(num_prompt: int, num_written: int) -> SimpleNamespace:
    return SimpleNamespace(
        prompt_tokens=num_prompt, cached_tokens=0, completion_tokens=num_written, drafted_tokens=0, accepted_tokens=0
    )


def _characters(text: str) -> list[int]:
    return [ord(character) + _FIRST_CHARACTER for character in text]


def _packed_top(best: int, count: int) -> str:
    """`best` and the tokens after it, each half as likely as the one before."""
    return pack_pairs((best + i, math.log(0.5) * (i + 1)) for i in range(count))


def _packed_floats(values: Iterable[float]) -> str:
    numbers = list(values)
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode("ascii")
