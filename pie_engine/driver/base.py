"""The driver protocol: what the core asks of whatever runs the model.

A driver owns the weights and the KV memory and nothing else. It knows no programs, contexts or queues: a step is a
list of rows, each a slice of one sequence with the page table that it reads and writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from pie_engine.errors import ErrorInfo
from pie_engine.kv.layout import Layout
from pie_engine.model.lora.files import AdapterFiles
from pie_engine.protocol.sampling import NO_PROBES, NOTHING_PROBED, Probed, Probes, Sampler
from pie_engine.sampling.draw import Draw

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this driver can do with the model that it has loaded."""

    driver: str
    """`cpu`, `cuda`, `fake`."""
    device: str
    dtype: str
    model_id: str
    """Digest of configuration and weights; part of every KV hash."""
    vocab_size: int
    max_context_tokens: int
    page_size: int
    """Tokens in a KV page."""
    page_bytes: int
    """Memory of one KV page over all layers."""
    hidden_size: int
    """Numbers in a hidden state."""
    max_top_k: int
    """Largest distribution that a probe may ask for."""
    num_threads: int = 0
    weight_bytes: int = 0
    """Memory of the weights."""
    kernels: str = ""
    """What runs the model on the CPU: `compiled` or `torch`."""
    is_deterministic: bool = False
    """What a row gets depends, bit for bit, on its sequence and on what it asks for alone: not on the other rows, the
    steps in which its KV was computed, or the pages that it lies in. For one build, CPU and number of threads."""
    one_by_one: str = ""
    """Why tokens go through the model one at a time, for the sake of that; empty: all of a step go at once."""
    window: int | None = None
    """No layer lets a token see more than this many positions, itself included; None: some layer does."""
    has_layouts: bool = True
    """Whether rows may have a `layout`."""


# Structs, since one of each is made for every token.
class Row(msgspec.Struct, gc=False):
    """One sequence in a step: run `tokens` in the slots `start`, `start + 1`, … and write their KV.

    `page_ids[i]` holds slots `i * page_size … (i + 1) * page_size - 1`; the table covers at least
    `start + len(tokens)` slots and every slot before `start` is already written. Slots are positions, and a token sees
    everything up to its own, unless there is a `layout`.
    """

    tokens: Sequence[int]
    start: int
    page_ids: Sequence[int]
    """If it is an array, one of 64-bit integers (`"q"`): these are read fastest."""
    sampler: Sampler | None = None
    """None: no logits are needed (a prefill chunk that is not the last one)."""
    uniform: float = 0.0
    """The random number in [0, 1) of this draw; counter-based, so it does not depend on the batch."""
    probes: Probes = NO_PROBES
    """What else to return of the last position."""
    want_logprob: bool = False
    """Also return the log-probability of the sampled token."""
    mask: bytes | Callable[[], bytes] | None = None
    """Tokens that may be chosen, None: all. One bit for each, little-endian within the bytes, 1 = allowed; tokens past
    its end are not. It comes before everything else that the sampler does, greedy or not; probes do not see it.
    One that is still being computed is a function that waits for it: to be called when the model has run."""

    history: Sequence[int] = ()
    """All tokens up to the end of the row, filled where `sampler.reads_history`; an array (`"i"`) is read fastest."""
    prompt_length: int = 0
    """How many of `history` were not generated."""
    xtc_uniform: float = 0.0
    """A second random number of this draw."""
    mirostat_mu: float | None = None
    """Mirostat's bound for this draw, in bits; None: its start."""
    adapter: str = ""
    """The id of a loaded adapter; empty: the model as it is. The pages of a sequence are all of the same one."""
    draft_uniforms: Sequence[float] = ()
    """The last `len(draft_uniforms)` tokens are drafts: sample before each of them, too, with these random numbers."""
    draft_masks: Sequence[bytes | Callable[[], bytes]] = ()
    """What may be chosen in the place of each draft, as `mask` has it for what follows; given where `mask` is."""
    layout: Layout | None = None
    """At which positions its slots stand and what its tokens see; see `kv.layout`."""

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    def allowed(self) -> bytes | None:
        """The mask as it is in the end."""
        return self.mask() if callable(self.mask) else self.mask

    def draws(self) -> list[Draw]:
        """What is asked of the sampler: in the place of each draft, and after the last token. Waits for the masks."""
        assert self.sampler is not None
        allowed = None if self.mask is None else self.allowed()
        last = Draw(
            self.sampler, self.uniform, allowed, self.history, self.prompt_length, self.xtc_uniform, self.mirostat_mu
        )
        if not self.draft_uniforms:
            return [last]
        masks = [mask() if callable(mask) else mask for mask in self.draft_masks]
        before = zip_longest(self.draft_uniforms, masks)
        return [*(replace(last, uniform=uniform, mask=mask) for uniform, mask in before), last]


class Sample(NamedTuple):
    """A token, its log-probability where it was wanted, and what was looked at beside it."""

    token: int
    logprob: float | None
    probed: Probed


class RowResult(msgspec.Struct, gc=False):
    """What came out of the last position of a row; all None or empty when no logits were asked for."""

    token: int | None = None
    logprob: float | None = None
    probed: Probed = NOTHING_PROBED
    mirostat_mu: float | None = None
    """The bound for the next draw, where mirostat chose."""
    before_drafts: Sequence[Sample] = ()
    """What was sampled in the place of each draft. What follows the first that is another token may be anything."""
    error: ErrorInfo | None = None
    """This row failed (the model gave NaN, say); the others of the step did not."""


KvPages = Mapping[str, "np.ndarray[Any, Any]"]
"""Content of KV pages for who keeps it elsewhere: arrays that only the driver understands; the first axis are pages."""


class Driver(Protocol):
    """The seam between the core and a device. Not thread-safe; the core is its only caller.

    `execute` runs one step and returns one result per row, in order. Rows of one step never write the same page.
    It raises only when the device itself has failed; a fault of one row is that row's `error`.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def kv_regions(self) -> Sequence[tuple[int, int]]:
        """Address and bytes of the process's memory that holds the KV, once it is allocated; none for a device's."""

    def allocate_kv(self, num_pages: int) -> None:
        """Reserve `num_pages` pages, once. Raises `OutOfPages` when the memory is not there, with the numbers."""

    def execute(self, rows: Sequence[Row]) -> list[RowResult]: ...

    def copy_pages(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole pages `(source, destination)`, in order, before the next `execute`."""

    def read_pages(self, page_ids: Sequence[int]) -> KvPages:
        """A copy of the content of these pages."""

    def write_pages(self, page_ids: Sequence[int], pages: KvPages) -> None:
        """Put back what `read_pages` gave, here or in another process with the same model id and page size."""

    def adapter_bytes(self, files: AdapterFiles) -> int:
        """Memory that the adapter takes once it is loaded. Raises `ModelError` or `Unsupported` if it cannot be."""

    def load_adapter(self, files: AdapterFiles) -> None:
        """From here on rows may name its id. Nothing happens if it is loaded. Raises as `adapter_bytes` does."""

    def unload_adapter(self, adapter_id: str) -> None:
        """Give its memory back; no row names it any more."""

    def close(self) -> None: ...
