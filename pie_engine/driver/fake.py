"""A driver without a model, for tests: deterministic, instant, scriptable, and strict about pages.

Its KV is the token ids themselves, written and read through the page tables, and of each a digest of all tokens before
it (`fake_kv`). The next token is a function of the sequence as it is read back, and a page that is wrong, stale or
shared by mistake is an assertion.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from pie_engine.driver.base import Capabilities, KvPages, Row, RowResult, Sample
from pie_engine.driver.checks import check_pages, check_pairs, check_rows, check_wishes, special
from pie_engine.driver.fake_kv import FakeKv, Seen
from pie_engine.driver.fake_replies import Place, Replies
from pie_engine.driver.fake_script import FakeScript
from pie_engine.driver.fake_text import HIDDEN_SIZE, NUM_CANDIDATES, FakeText
from pie_engine.errors import ErrorInfo, InvalidInput, OutOfPages
from pie_engine.model.lora.files import AdapterFiles
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.sampling import NOTHING_PROBED, Probed, Probes, TopToken
from pie_engine.sampling import plain
from pie_engine.sampling.draw import Draw
from pie_engine.sampling.plain import may_choose


class FakeDriver:
    """Implements `driver.base.Driver`."""

    def __init__(self, tokenizer: Tokenizer, script: FakeScript | None = None, *, page_size: int = 16) -> None:
        self._script = script or FakeScript()
        self._tokenizer = tokenizer
        self._file: Path | None = None
        self._stamp: tuple[int, int] | None = None
        self._replies = Replies(tokenizer, self._script.replies, is_strict=self._script.strict)
        self._writer = FakeText(tokenizer, self._script)
        self._writers = {"": self._writer}
        """By adapter."""
        self._kv: FakeKv | None = None
        self._num_steps = 0
        self._capabilities = Capabilities(
            driver="fake",
            device="none",
            dtype="int32",
            model_id=self._writer.digest,
            vocab_size=tokenizer.vocab_size,
            max_context_tokens=self._script.max_context_tokens,
            page_size=page_size,
            page_bytes=self._script.page_bytes,
            hidden_size=HIDDEN_SIZE,
            max_top_k=NUM_CANDIDATES,
            is_deterministic=True,
            window=self._script.window or None,
        )

    @classmethod
    def load(
        cls, folder: str | Path, *, page_size: int = 16, script: FakeScript | str | Path | None = None
    ) -> FakeDriver:
        """With the tokenizer in `folder`; `script` may be a JSON file, which is read again when it is replaced.

        Raises `ModelError` or `InvalidConfig`.
        """
        if not isinstance(script, str | Path):
            return cls(Tokenizer.load(folder), script, page_size=page_size)
        driver = cls(Tokenizer.load(folder), FakeScript.read(script), page_size=page_size)
        driver._file, driver._stamp = Path(script), _stamp_of(Path(script))
        return driver

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def _read_again(self) -> None:
        """The script, if its file is another one: what it says begins anew, and so does the count of steps."""
        if self._file is None or (stamp := _stamp_of(self._file)) == self._stamp:
            return
        self._stamp = stamp
        self._script, self._num_steps = FakeScript.read(self._file), 0
        self._replies = Replies(self._tokenizer, self._script.replies, is_strict=self._script.strict)
        for writer in self._writers.values():
            writer.follow(self._script)

    @property
    def replies(self) -> Replies:
        """What it says, and what it was asked."""
        return self._replies

    @property
    def kv_regions(self) -> Sequence[tuple[int, int]]:
        return ()

    def allocate_kv(self, num_pages: int) -> None:
        assert self._kv is None, "KV memory is allocated once"
        assert num_pages > 0, num_pages
        most, page_bytes = self._script.max_pages, self._capabilities.page_bytes
        if num_pages > most:
            raise OutOfPages(
                f"{num_pages} KV pages of {page_bytes} bytes need {num_pages * page_bytes >> 20} MiB, "
                f"{most * page_bytes >> 20} MiB are free",
                hint=f"at most {most} pages fit now",
            )
        self._kv = FakeKv(num_pages, self._capabilities.page_size, self._capabilities.window)

    def execute(self, rows: Sequence[Row]) -> list[RowResult]:
        kv = self._allocated()
        check_rows(rows, self._capabilities, kv.num_pages)
        check_wishes(special(rows), self._capabilities, self._writers)
        if not rows:
            return []
        self._read_again()
        self._wait(sum(len(row.tokens) for row in rows))
        faults = [fault for fault in self._script.faults if fault.step == self._num_steps]
        self._num_steps += 1
        for fault in faults:
            if fault.row is None:
                raise RuntimeError(fault.message)
        for row in rows:
            kv.take(row.page_ids, row.start, row.end, row.adapter)
            if row.layout is None:
                kv.write(row.page_ids, row.start, row.tokens)
            else:
                kv.write_row(row.page_ids, row.start, row.tokens, row.layout)
        failed = {fault.row: ErrorInfo(fault.code, fault.message) for fault in faults}
        return [
            RowResult(error=failed[index]) if index in failed else self._result(row, kv)
            for index, row in enumerate(rows)
        ]

    def copy_pages(self, pairs: Sequence[tuple[int, int]]) -> None:
        kv = self._allocated()
        check_pairs(pairs, kv.num_pages)
        for source, destination in pairs:
            kv.copy(source, destination)

    def read_pages(self, page_ids: Sequence[int]) -> KvPages:
        kv = self._allocated()
        check_pages(page_ids, kv.num_pages)
        return kv.read_pages(page_ids)

    def write_pages(self, page_ids: Sequence[int], pages: KvPages) -> None:
        kv = self._allocated()
        check_pages(page_ids, kv.num_pages, pages)
        kv.write_pages(page_ids, pages)

    def tokens_in(self, page_ids: Sequence[int], end: int) -> list[int]:
        """The first `end` tokens whose KV these pages hold, for tests. Asserts that it is KV of one sequence."""
        return self._allocated().read(page_ids, end).tolist()

    def adapter_bytes(self, files: AdapterFiles) -> int:
        return files.num_bytes

    def load_adapter(self, files: AdapterFiles) -> None:
        self._writers.setdefault(files.adapter_id, self._writer.adapted(files.adapter_id))

    def unload_adapter(self, adapter_id: str) -> None:
        del self._writers[adapter_id]

    def close(self) -> None:
        self._kv = None

    def _allocated(self) -> FakeKv:
        assert self._kv is not None, "allocate_kv comes first"
        return self._kv

    def _wait(self, num_tokens: int) -> None:
        delay_ms = self._script.step_delay_ms + num_tokens * self._script.token_delay_ms
        if delay_ms:
            time.sleep(delay_ms / 1000)

    def _result(self, row: Row, kv: FakeKv) -> RowResult:
        seen = self._seen(row, kv)
        if row.sampler is None:
            return RowResult()
        before_drafts: list[Sample] = []
        num_drafts = len(row.draft_uniforms)
        for index, (sequence, draw) in enumerate(zip(seen, row.draws(), strict=True)):
            result = self._drawn(row, sequence, draw, row.end - num_drafts + index)
            if result.token is None or index == num_drafts:
                break
            sample = Sample(result.token, result.logprob, result.probed)
            before_drafts.append(sample)
            if result.token != row.tokens[len(row.tokens) - num_drafts + index]:
                # What follows a wrong guess is nothing that anybody asks.
                before_drafts += [sample] * (num_drafts - len(before_drafts))
                break
        result.before_drafts = before_drafts
        return result

    def _seen(self, row: Row, kv: FakeKv) -> list[Seen]:
        """What the tokens see after which something is sampled: those before each draft, and the last one."""
        num_drafts, window = len(row.draft_uniforms), self._capabilities.window
        kv.check(row.page_ids[: -(-row.end // self._capabilities.page_size)], row.adapter)
        if row.layout is not None:
            positions = row.layout.positions(row.start, row.end)
            last = range(len(row.tokens) - 1 - num_drafts, len(row.tokens))
            return [kv.read_row(row.page_ids, row.layout, index, positions[index]) for index in last]
        sequence = kv.read(row.page_ids, row.end)
        ends = range(row.end - num_drafts, row.end + 1)
        return [Seen(sequence[max(end - (window or end), 0) : end]) for end in ends]

    def _drawn(self, row: Row, seen: Seen, draw: Draw, end: int) -> RowResult:
        """What comes after it; it ends before slot `end`."""
        sequence, writer = seen.tokens, self._writers[row.adapter]
        try:
            top = self._replies.ask(sequence, Place(row, end, self._capabilities.page_size), draw)
        except InvalidInput as error:
            if self._script.strict:
                return RowResult(error=error.info)
            top = None
        if top is None and self._script.strict:
            return RowResult(error=_no_reply(self._replies.prompts).info)
        top = top or writer.pseudo(sequence, seen.salt)
        logprobs = writer.logprobs(sequence, top, draw)
        drawn = plain.choose(logprobs, draw)
        if drawn.token is None:
            return RowResult(error=drawn.fault)
        self._replies.settle(sequence, drawn.token)
        logprob = logprobs[drawn.token] if row.want_logprob else None
        if row.probes.of_allowed:
            allowed = [TopToken(token, value) for token, value in logprobs.items() if may_choose(draw, token)]
            top = sorted(allowed, key=lambda entry: -entry.logprob)
        probed = self._probed(row.probes, writer.digest_of(sequence), top)
        return RowResult(drawn.token, logprob, probed, drawn.mirostat_mu)

    def _probed(self, wanted: Probes, digest: bytes, top: list[TopToken]) -> Probed:
        """The candidates have all of the probability; the hidden state is the digest of the sequence."""
        if wanted.is_empty:
            return NOTHING_PROBED
        logprobs = {entry.token: entry.logprob for entry in top}
        logits = [logprobs.get(token, -math.inf) for token in range(self._capabilities.vocab_size)]
        return Probed(
            top=top[: wanted.top_k],
            logprobs=[logprobs.get(token, -math.inf) for token in wanted.logprobs_of],
            entropy=-math.fsum(math.exp(each) * each for each in logprobs.values()) if wanted.entropy else None,
            logits=struct.pack(f"<{len(logits)}f", *logits) if wanted.logits else b"",
            hidden=struct.pack(f"<{HIDDEN_SIZE}f", *digest) if wanted.hidden else b"",
        )


def _stamp_of(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except OSError:  # it is being replaced
        return None
    return stat.st_mtime_ns, stat.st_ino


def _no_reply(prompts: list[str]) -> InvalidInput:
    said = f"the {len(prompts)} that it has are said" if prompts else "it has none"
    return InvalidInput(
        f"the fake model has no reply for this prompt: {said}",
        hint="give it as many as the program asks for, or one with a `match` that is found in the prompt",
    )
