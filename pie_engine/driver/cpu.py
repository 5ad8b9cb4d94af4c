"""The CPU driver: PyTorch, continuous batches of prefill chunks and decode rows over a paged KV cache."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pie_engine.driver.base import Capabilities, KvPages, Row, RowResult
from pie_engine.driver.checks import check_pages, check_pairs, check_rows, check_wishes, special
from pie_engine.driver.cpu_choice import choose
from pie_engine.driver.cpu_sampling import look, sample_rows
from pie_engine.driver.cpu_tuning import choose_num_threads
from pie_engine.errors import OutOfPages
from pie_engine.hub.memory import WORK_BYTES, available_bytes
from pie_engine.model.base import Inputs, Model
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.compile_kernels import compile_apart
from pie_engine.model.kernels.cache import are_compiled, matmul_name
from pie_engine.model.kv_cache import KvCache
from pie_engine.model.load import load_model
from pie_engine.model.lora import layout
from pie_engine.model.lora.files import AdapterFiles
from pie_engine.model.lora.weights import read_adapter
from pie_engine.model.one_by_one import OneByOne
from pie_engine.model.quantization import Quantization
from pie_engine.model.span import row_order
from pie_engine.model.steady import Steady
from pie_engine.model.steady import deterministic as make_deterministic

log = logging.getLogger(__name__)


class CpuDriver:
    """Implements `driver.base.Driver`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: Model,
        *,
        page_size: int,
        num_threads: int,
        quantize: Quantization = "none",
    ) -> None:
        self._model, self._page_size = model, page_size
        steadiness = "-1" if isinstance(model, OneByOne) else "-steady" if isinstance(model, Steady) else ""
        how = f"{model.kernels}{steadiness}{'' if quantize == 'none' else f'-{quantize}'}"
        self._cache: KvCache | None = None
        self._stored = checkpoint.config
        self._adapters: set[str] = set()
        config, dtype = model.config, str(model.dtype).removeprefix("torch.")
        self._capabilities = Capabilities(
            driver="cpu",
            device="cpu",
            dtype=dtype,
            # Of the kernels too: they round differently, and what one has computed is not for the other.
            model_id=f"{checkpoint.model_id}-{dtype}-{how}",
            vocab_size=config.vocab_size,
            max_context_tokens=config.max_context_tokens,
            page_size=page_size,
            page_bytes=page_size * config.kv_numbers_per_token * model.kv_dtype.itemsize,
            hidden_size=config.hidden_size,
            max_top_k=config.vocab_size,
            num_threads=num_threads,
            weight_bytes=checkpoint.weight_bytes(dtype, quantize, kernels=model.kernels),
            kernels=model.kernels,
            is_deterministic=bool(steadiness) or model.kernels == "compiled",
            one_by_one=model.reason if isinstance(model, OneByOne) else "",
            window=config.window,
            has_layouts=not config.has_own_attention,
        )

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        dtype: str = "auto",
        num_threads: int = 0,
        deterministic: bool = False,
        page_size: int = 16,
        max_context_tokens: int = 0,
        kv_bytes: int = 0,
        num_pages: int = 0,
        kernels: Literal["auto", "compiled", "torch"] = "auto",
        quantize: Quantization = "none",
        progress: Callable[[str], None] = lambda stage: None,
    ) -> CpuDriver:
        """Load the checkpoint in `folder`, if there is memory for its weights and for `num_pages` or `kv_bytes` of KV.

        `dtype` is `float32`, `bfloat16` or `auto`: the checkpoint's own where that is fast, fp32 otherwise.
        `num_threads=0` means one, unless all cores decode more than 1.15 times as fast. `kernels` is `compiled`,
        `torch` or `auto`: compiled where they can run the model. `quantize` is `none`, or what the linears' weights
        become: `int8` or `int4`. `deterministic`: see `model.steady`; the compiled kernels give the same bits
        anyway. `max_context_tokens=0` means the model's own. Raises
        `NotFound`, `ModelError` or `Unsupported`, and `InvalidConfig` when the model takes no context of that length.
        """
        choice = choose(
            folder,
            dtype=dtype,
            page_size=page_size,
            max_context_tokens=max_context_tokens,
            kv_bytes=kv_bytes,
            num_pages=num_pages,
            kernels=kernels,
            quantize=quantize,
        )
        choice.check_fits()
        checkpoint = choice.checkpoint
        kinds = checkpoint.weight_kinds(choice.dtype_name, quantize, kernels=choice.kernels)
        if choice.kernels == "compiled" and not all(map(are_compiled, [choice.dtype_name, *map(matmul_name, kinds)])):
            progress("compiling kernels for this processor (once per version)")
            compile_apart(choice.dtype_name, kinds)
        model = load_model(checkpoint, choice.dtype, choice.kernels, quantize)
        if deterministic and model.kernels == "torch":
            # A measurement may end otherwise the next time, and the number of threads changes the bits.
            num_threads = num_threads or 1
            progress("trying whether rows keep their bits in any company")
            model = make_deterministic(model, num_threads, page_size)
        num_threads = choose_num_threads(num_threads, model)
        weights = " and ".join(kinds)
        log.info(
            "loaded %s: weights in %s, %s kernels, %d threads", checkpoint.folder, weights, model.kernels, num_threads
        )
        return cls(checkpoint, model, page_size=page_size, num_threads=num_threads, quantize=quantize)

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def kv_regions(self) -> Sequence[tuple[int, int]]:
        tensors = () if self._cache is None else (self._cache.keys, self._cache.values)
        return [(tensor.data_ptr(), tensor.nbytes) for tensor in tensors]

    def allocate_kv(self, num_pages: int) -> None:
        assert self._cache is None, "KV memory is allocated once"
        assert num_pages > 0, num_pages
        page_bytes = self._capabilities.page_bytes
        needed, available = (num_pages + 1) * page_bytes, max(available_bytes() - WORK_BYTES, 0)
        if needed > available:
            raise OutOfPages(
                f"{num_pages} KV pages of {page_bytes} bytes need {needed >> 20} MiB, {available >> 20} MiB are free",
                hint=f"at most {max(available // page_bytes - 1, 0)} pages fit now",
            )
        self._cache = self._model.new_cache(num_pages, self._page_size)

    def execute(self, rows: Sequence[Row]) -> list[RowResult]:
        cache, asking = self._allocated(), special(rows)
        check_wishes(asking, self._capabilities, self._adapters)
        if not rows:
            return []
        if self._capabilities.kernels == "compiled":
            return self._run(rows, cache, asking)  # its kernels check the rest
        check_rows(rows, self._capabilities, cache.num_pages)
        lengths = [len(row.tokens) for row in rows]
        order = row_order(lengths, [row.end for row in rows])
        results = dict(zip(order, self._run([rows[index] for index in order], cache, asking), strict=True))
        return [results[index] for index in range(len(rows))]

    def _run(self, rows: Sequence[Row], cache: KvCache, asking: Sequence[Row]) -> list[RowResult]:
        """`execute` in the order in which the model takes rows; `asking` are those that are `special`."""
        lengths, sampled = [len(row.tokens) for row in rows], [row for row in rows if row.sampler is not None]
        wanted = [end - 1 for row, end in zip(rows, accumulate(lengths), strict=True) if row.sampler is not None]
        if asking:
            # The last one, and the one before each draft.
            ends = zip(sampled, wanted, strict=True)
            wanted = [place for row, end in ends for place in range(end - len(row.draft_uniforms), end + 1)]
        states = self._new_states(asking, len(wanted))
        inputs = Inputs(
            lengths,
            [row.start for row in rows],
            [row.page_ids for row in rows],
            list(chain.from_iterable([row.tokens for row in rows])),
            cache,
            wanted,
            states,
            [row.layout for row in rows] if any(row.layout for row in asking) else (),
            [row.adapter for row in rows] if any(row.adapter for row in asking) else (),
        )
        logits = self._model.logits(inputs)
        results = sample_rows(logits, sampled, self._model.choose)
        if asking:
            results = look(logits, states, sampled, results)
        if len(sampled) == len(rows):
            return results
        rest = iter(results)
        return [RowResult() if row.sampler is None else next(rest) for row in rows]

    def _new_states(self, rows: Sequence[Row], count: int) -> Tensor | None:
        """Room for `count` hidden states, if one of `rows` asks for its."""
        if any(row.probes.hidden for row in rows):
            return torch.empty(count, self._capabilities.hidden_size)
        return None

    def copy_pages(self, pairs: Sequence[tuple[int, int]]) -> None:
        cache = self._allocated()
        check_pairs(pairs, cache.num_pages)
        cache.copy_pages(pairs)

    def read_pages(self, page_ids: Sequence[int]) -> KvPages:
        cache = self._allocated()
        check_pages(page_ids, cache.num_pages)
        return {name: _as_array(tensor) for name, tensor in cache.read_pages(page_ids).items()}

    def write_pages(self, page_ids: Sequence[int], pages: KvPages) -> None:
        cache = self._allocated()
        check_pages(page_ids, cache.num_pages, pages)
        dtype = cache.keys.dtype
        cache.write_pages(page_ids, {name: torch.from_numpy(array).view(dtype) for name, array in pages.items()})

    def adapter_bytes(self, files: AdapterFiles) -> int:
        matrices = layout.layout_of(files, self._stored)
        multiple = 1
        if self._capabilities.kernels == "compiled":
            from pie_engine.model.kernels.lora import RANKS  # loaded with the kernels, and not without

            multiple = RANKS
        return layout.num_bytes(matrices, self._capabilities.dtype, rank_multiple=multiple)

    def load_adapter(self, files: AdapterFiles) -> None:
        if files.adapter_id not in self._adapters:
            self._model.add_adapter(read_adapter(files, self._stored, self._model.dtype))
            self._adapters.add(files.adapter_id)

    def unload_adapter(self, adapter_id: str) -> None:
        self._adapters.remove(adapter_id)
        self._model.remove_adapter(adapter_id)

    def close(self) -> None:
        self._cache = None

    def _allocated(self) -> KvCache:
        assert self._cache is not None, "allocate_kv comes first"
        return self._cache


def _as_array(tensor: Tensor) -> np.ndarray:
    """numpy has no bf16: its bits, then."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
