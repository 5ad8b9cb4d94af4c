"""A second, smaller model that guesses for the plans of a core (Leviathan et al. 2023, Chen et al. 2023).

It has KV pages of its own, and writes for all plans in one batch: first what each of them has got since its last guess,
then token after token. A token of a guess is drawn as the plan will draw it, with the random number of its position, so
the more alike the two distributions are, the likelier the two tokens are the same. What it guesses is checked as any
guess is (`core.drafting`): it decides how fast a reply comes and nothing else, and what goes wrong here only ends it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from pie_engine.core.drafting import Guide
from pie_engine.core.pace import MIN_CHUNK, Allowance, Pace, Part
from pie_engine.driver.base import Driver, Row
from pie_engine.errors import InvalidConfig
from pie_engine.grammar.mask import Masks
from pie_engine.kv.address import Sharers, Sharing
from pie_engine.kv.context import KvContext
from pie_engine.kv.integrity import violations
from pie_engine.kv.pool import PagePool
from pie_engine.protocol.sampling import Sampler

log = logging.getLogger(__name__)


class Writer(Protocol):
    """A plan, as far as the draft model knows it."""

    @property
    def user(self) -> str:
        """Whose plan it is."""

    @property
    def tokens(self) -> Sequence[int]:
        """The prompt and the reply so far."""

    @property
    def sampler(self) -> Sampler: ...

    @property
    def num_unchanged(self) -> int:
        """How many of `tokens` have not been taken back since the last `propose`."""

    def draw(self, position: int) -> float:
        """The random number of the token at `position`."""

    def guide(self) -> Guide | None:
        """Where it stands in its grammar; None: it has none."""

    def propose(self, guess: list[int]) -> None:
        """What it may write next."""


class Tokens(Protocol):
    """What is compared of two tokenizers."""

    @property
    def vocab_size(self) -> int: ...

    def token_bytes(self, token_id: int) -> bytes: ...


def check_same_tokens(model: str, ours: Tokens, draft: str, theirs: Tokens) -> None:
    """Raises `InvalidConfig` when the draft model reads other tokens than the model that it is to guess for."""
    hint = "a draft model needs the tokenizer of its model; most families have a small member with the same one"
    if ours.vocab_size != theirs.vocab_size:
        raise InvalidConfig(
            f"{draft} cannot be the draft model of {model}: its tokenizer has {theirs.vocab_size} tokens, that of "
            f"{model} {ours.vocab_size}",
            hint=hint,
        )
    for token in range(ours.vocab_size):
        mine, other = ours.token_bytes(token), theirs.token_bytes(token)
        if mine != other:
            raise InvalidConfig(
                f"{draft} cannot be the draft model of {model}: token {token} is {_spelled(other)} there and "
                f"{_spelled(mine)} here",
                hint=hint,
            )


def _spelled(token: bytes) -> str:
    return repr(token.decode("utf-8", "replace"))


class _Draft:
    """What it has read for one plan."""

    __slots__ = ("guide", "kv", "last_used", "max_tokens", "num_same", "tokens")

    def __init__(self, kv: KvContext) -> None:
        self.kv = kv
        self.num_same = 0
        """Its first tokens, which were the plan's at the last guess."""
        self.last_used = 0
        self.tokens: list[int] = []
        """The guess that is being made."""
        self.max_tokens = 0
        """It ends with so many."""
        self.guide: Guide | None = None

    def take(self, token: int) -> None:
        """The next token of the guess, which may be its last."""
        self.tokens.append(token)
        if self.guide is not None and not self.guide.take(token):
            self.max_tokens = 0

    def follow(self, writer: Writer) -> None:
        """Take over what the plan has written, and forget what was guessed wrongly."""
        kv, same, tokens = self.kv, min(self.num_same, writer.num_unchanged), writer.tokens
        same += _num_common(kv.tokens[same:], tokens[same : kv.num_tokens])
        kv.truncate(same)
        kv.extend(tokens[same:])
        self.num_same = len(tokens)
        if not kv.num_uncomputed:
            kv.uncompute(kv.num_tokens - 1)


def _num_common(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest beginning of both."""
    if left == right:
        return len(left)
    pairs = enumerate(zip(left, right, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(left), len(right)))


class DraftModel:
    """Guesses for plans. Ids of tokens that it does not have are never given to it."""

    def __init__(
        self,
        driver: Driver,
        *,
        num_pages: int,
        max_batch_tokens: int,
        sharing: Sharing = "user",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reserves its KV memory. Raises `OutOfPages` when it is not there."""
        driver.allocate_kv(num_pages)
        self.driver = driver
        capabilities = driver.capabilities
        self.pool = PagePool(num_pages, capabilities.page_size)
        self._sharers = Sharers(sharing, capabilities.model_id, capabilities.page_size)
        self._max_batch_tokens = max_batch_tokens
        self._clock = clock
        self._pace = Pace(0.0)
        self._drafts: dict[Writer, _Draft] = {}
        self._num_turns = 0
        self._masks = Masks()
        self._is_broken = False

    def pass_s(self, num_plans: int) -> float:
        """What a pass for so many plans takes; 0: that is not known yet."""
        return self._pace.decodes_s(num_plans)

    def guess(self, wanted: Sequence[tuple[Writer, int]], read_s: float | None = None) -> None:
        """`propose` to each plan at most so many tokens; nothing to one whose context it has not read to the end.

        `read_s`: how long it may read prompts now; None: as long as it takes.
        """
        if self._is_broken:
            return
        self._num_turns += 1
        try:
            self._write(self._read(wanted, None if read_s is None else self._pace.within(read_s)))
        except Exception:  # a guess is only ever a help: whatever breaks it must not end the replies that it is for
            log.exception("the draft model has failed; there are no more guesses of it")
            self._is_broken = True
            self.keep(())

    def keep(self, writers: Iterable[Writer]) -> None:
        """Let go of all plans but these."""
        if self._drafts:
            kept = {*writers}
            for writer in [each for each in self._drafts if each not in kept]:
                self._drafts.pop(writer).kv.release()

    def violations(self) -> list[str]:
        """What does not add up in its pages."""
        return violations(self.pool, [draft.kv for draft in self._drafts.values()])

    def _read(self, wanted: Sequence[tuple[Writer, int]], allowance: Allowance | None) -> list[tuple[Writer, _Draft]]:
        """One batch over what is new to it, with the first token of each guess."""
        tokens_left = self._max_batch_tokens
        rows: list[Row] = []
        asked: list[tuple[Writer, _Draft]] = []
        for writer, most in wanted:
            if not self._takes(len(writer.tokens)):
                continue
            draft = self._follow(writer)
            count = self._num_possible(draft, writer, most)
            num_tokens = min(draft.kv.num_uncomputed, tokens_left)
            if num_tokens > MIN_CHUNK and allowance is not None:
                num_tokens = allowance.take(draft.kv.num_computed, num_tokens)
            is_whole = num_tokens == draft.kv.num_uncomputed
            end = draft.kv.num_computed + num_tokens
            if count > 0 and num_tokens and self._reserve(draft, end + (count - 1 if is_whole else 0)):
                tokens_left -= num_tokens
                asked.append((writer, draft))
                if is_whole:
                    draft.max_tokens, draft.guide = count, writer.guide()
                rows.append(self._row(writer, draft, num_tokens))
        self._run(asked, rows)
        return [each for each in asked if each[1].tokens]

    def _write(self, asked: list[tuple[Writer, _Draft]]) -> None:
        """The other tokens of the guesses, all plans in one batch."""
        going = asked
        while going := [each for each in going if len(each[1].tokens) < each[1].max_tokens]:
            for _, draft in going:
                draft.kv.append(draft.tokens[-1])
            self._run(going, [self._row(writer, draft, 1) for writer, draft in going])
        for writer, draft in asked:
            writer.propose(draft.tokens)

    def _run(self, asked: list[tuple[Writer, _Draft]], rows: list[Row]) -> None:
        if not rows:
            return
        began_at = self._clock()
        self._masks.start()
        try:
            results = self.driver.execute(rows)
        finally:
            self._masks.finish()
        parts = [Part(row.start, len(row.tokens)) for row in rows if len(row.tokens) > 1]
        self._pace.learn(len(rows) - len(parts), parts, self._clock() - began_at)
        for (_, draft), row, result in zip(asked, rows, results, strict=True):
            if result.error is not None:
                draft.max_tokens = 0
                continue
            draft.kv.advance(row.end)
            if result.token is not None:
                draft.take(result.token)

    def _row(self, writer: Writer, draft: _Draft, num_tokens: int) -> Row:
        kv = draft.kv
        start = kv.num_computed
        row = Row(kv.tokens[start : start + num_tokens], start, kv.page_ids)
        if row.end == kv.num_tokens:
            row.sampler = writer.sampler
            row.uniform = 0.0 if row.sampler.is_greedy else writer.draw(row.end)
            row.mask = None if draft.guide is None else draft.guide.ask(self._masks)
        return row

    def _follow(self, writer: Writer) -> _Draft:
        draft = self._drafts.get(writer)
        if draft is None:
            draft = self._drafts[writer] = _Draft(KvContext(self.pool, self._sharers.root_of(writer.user)))
        draft.last_used, draft.tokens, draft.max_tokens, draft.guide = self._num_turns, [], 0, None
        draft.follow(writer)
        if draft.kv.num_uncomputed > self.pool.page_size:
            pages = self.pool.index.run(list(draft.kv.coming_keys()))
            if pages:
                draft.kv.adopt(pages)
        return draft

    def _takes(self, num_tokens: int) -> bool:
        """Whether a context of so many tokens leaves room for a guess."""
        pool = self.pool
        return num_tokens < min(self.driver.capabilities.max_context_tokens, pool.num_pages * pool.page_size)

    def _num_possible(self, draft: _Draft, writer: Writer, most: int) -> int:
        """How many tokens of its own it can write behind the plan's."""
        capabilities = self.driver.capabilities
        lists = (writer.sampler.logit_bias, writer.sampler.allowed_tokens or (), writer.sampler.banned_tokens)
        named = max((token for each in lists for token in each), default=0)
        new = max(draft.kv.tokens[draft.kv.num_computed :])
        if max(named, new) >= capabilities.vocab_size:
            return 0
        return min(most, capabilities.max_context_tokens - draft.kv.num_tokens)

    def _reserve(self, draft: _Draft, end: int) -> bool:
        """Pages up to `end`, from plans that have not guessed for the longest time if need be."""
        others = sorted(self._drafts.values(), key=lambda each: each.last_used)
        for other in others:
            if draft.kv.num_new_pages(end) <= self.pool.num_free or other.last_used == self._num_turns:
                break
            other.kv.uncompute(0)
        if draft.kv.num_new_pages(end) > self.pool.num_free:
            return False
        copy = draft.kv.reserve(end)
        if copy is not None:
            self.driver.copy_pages([copy])
        return True
