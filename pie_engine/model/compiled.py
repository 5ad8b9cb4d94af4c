"""The forward pass as one program of compiled kernels: no operation is dispatched from Python, and weights stay bf16.

The same description and the same tensors as `decoder.Decoder`, which is the oracle for this path and runs whatever it
does not (`kernels.support`). Activations are fp32.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor

from pie_engine.model.base import Inputs, Model
from pie_engine.model.blocks import BlockReader
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.compiled_choice import Choice
from pie_engine.model.compiled_lora import PackedAdapter
from pie_engine.model.compiled_step import Step, padded_rows
from pie_engine.model.compiled_weights import PackedBlock, norm_of
from pie_engine.model.description import Kernels
from pie_engine.model.embedding import Embedding
from pie_engine.model.kernels import codes
from pie_engine.model.kernels.packed import PackedLinear
from pie_engine.model.kernels.program import Program, row_bytes
from pie_engine.model.kernels.support import padded
from pie_engine.model.kernels.team import Team
from pie_engine.model.kv_cache import HeadShape, KvCache
from pie_engine.model.lora.weights import Adapter
from pie_engine.model.quantization import Quantization
from pie_engine.model.quants import Quants
from pie_engine.model.rope import Rope
from pie_engine.model.weights import WeightReader
from pie_engine.sampling.sampler import Choose

_NOT_KEPT = 2
"""References to an array of which only its attribute and the question itself know; a tensor over it is one more."""


class CompiledDecoder(Model):
    """The weights, and the forward pass over the rows of a step. The interface of `Decoder`."""

    def __init__(
        self, checkpoint: Checkpoint, dtype: torch.dtype, num_threads: int = 1, quantize: Quantization = "none"
    ) -> None:
        """`dtype` is that of keys, values and those weights that are not quantized: bf16 or fp32."""
        config = checkpoint.config
        self.config, self.dtype, self.kv_dtype = padded(config), dtype, dtype
        self._stored = config
        self._adapters: dict[str, PackedAdapter] = {}
        self._kind = str(dtype).removeprefix("torch.")
        self.heads = HeadShape(config.num_heads, config.num_kv_heads, self.config.head_dim)
        reader = WeightReader(checkpoint, dtype, quantize, keeps_quants=True)
        blocks = BlockReader(reader, config)
        self._ropes = [Rope(rope, config.head_dim) for rope in blocks.ropes]
        self._blocks = [PackedBlock.of(blocks.block(layer), config) for layer in range(config.num_layers)]
        self._norm = norm_of(blocks.norm(config.names.final_norm))
        names = config.names
        self._head = PackedLinear.of_table(
            reader.head(f"{names.embedding if config.tie_embeddings else names.head}.weight"),
            reader.tensor(f"{names.head}.bias", torch.float32) if config.head_bias else None,
        )
        # Its scale is rounded as `Decoder` rounds it.
        self._embedding = Embedding(
            self._head if config.tie_embeddings else _table(reader.table(f"{names.embedding}.weight")),
            float(torch.tensor(config.embedding_scale, dtype=dtype)),
        )
        self.choose: Choose | None = Choice(config.vocab_size)
        self._team = Team(1, self._kind)
        self.set_num_threads(num_threads)

    kernels: Kernels = "compiled"

    def set_num_threads(self, num_threads: int) -> None:
        """Threads of the steps from here on. What torch does beside them is too small for more than one."""
        torch.set_num_threads(1)
        self._team.close()
        self._team = Team(num_threads, self._kind)
        self._step: Step | None = None
        self._last: _LastRows | None = None

    def add_adapter(self, adapter: Adapter) -> None:
        self._adapters[adapter.adapter_id] = PackedAdapter.of(adapter, self._stored)

    def remove_adapter(self, adapter_id: str) -> None:
        del self._adapters[adapter_id]

    def new_cache(self, num_pages: int, page_size: int) -> KvCache:
        return KvCache(self.config.num_layers, num_pages, page_size, self.heads, self.kv_dtype)

    def compute(self, inputs: Inputs) -> Tensor:
        return torch.from_numpy(self.logits(inputs))

    def logits(self, inputs: Inputs) -> np.ndarray:
        """What a row gets is the same bit for bit in any batch and any chunk."""
        num_tokens = len(inputs.tokens)
        step = self._step_for(num_tokens, inputs.num_positions, inputs.cache)
        step.place(inputs)
        self._embedding.into(step.ids(num_tokens), step.hidden_of(num_tokens))
        step.run(self._team, inputs, self._adapters)
        return self._end(step, num_tokens, len(inputs.wanted), inputs.states)

    def _end(self, step: Step, num_tokens: int, num_wanted: int, states: Tensor | None) -> np.ndarray:
        config = self.config
        if not num_wanted:
            return np.empty((0, config.vocab_size), np.float32)
        if self._last is None or self._last.capacity < num_wanted or self._last.step is not step:
            self._last = _LastRows(self, step, max(num_wanted, 16))
        step.clear_padding(num_tokens)
        logits = self._last.run(self._team, num_wanted)
        if states is not None:
            states.copy_(self._last.normed[:num_wanted, : config.hidden_size])
        if config.logit_scale != 1.0:
            logits = logits * np.float32(config.logit_scale)
        if config.logit_softcap is not None:
            capped = torch.tanh(torch.from_numpy(logits) / config.logit_softcap) * config.logit_softcap
            logits = capped.numpy()
        return logits

    def _step_for(self, num_tokens: int, num_positions: int, cache: KvCache) -> Step:
        step = self._step
        assert num_positions <= self.config.max_context_tokens, f"{num_positions} positions"
        if step is None or step.capacity < num_tokens or step.num_positions < num_positions or step.cache is not cache:
            ropes = [self._turns_of(rope, num_positions) for rope in self._ropes]
            capacity = max(num_tokens, 16 if step is None else step.capacity)
            step = self._step = Step(self.config, self._blocks, ropes, cache, capacity, self._team.num_threads)
        return step

    def _turns_of(self, rope: Rope, num_positions: int) -> Tensor:
        """Rotations for padded heads."""
        pairs = torch.from_numpy(rope.pairs(num_positions))
        num_missing = self.config.head_dim - pairs.shape[1]
        return torch.nn.functional.pad(pairs, (0, num_missing)) if num_missing else pairs


class _LastRows:
    """The end of a step: the final norm and the head, over the rows whose logits are wanted."""

    def __init__(self, model: CompiledDecoder, step: Step, capacity: int) -> None:
        self.capacity, self.step = capacity, step
        config = model.config
        self._vocab_size, self._hidden_size = config.vocab_size, config.hidden_size
        self._num_columns = model._head.padded_outputs
        self.normed = padded_rows(capacity, config.hidden_size)
        self._rows = self.normed.numpy()
        logits = torch.empty(capacity, self._num_columns)
        self._program = Program(model._team.num_threads)
        self._program.add(
            codes.GATHER, step.hidden, step.wanted, self._hidden_size, self.normed, row_bytes(self.normed)
        )
        model._norm.into(self._program, self.normed, self.normed)
        model._head.into(self._program, self.normed, logits)
        self._program.seal()
        self._logits = np.empty(logits.shape, np.float32)
        self._program.move(logits.data_ptr(), self._logits.ctypes.data)

    def run(self, team: Team, num_rows: int) -> np.ndarray:
        """The logits of the tokens of the step that are wanted."""
        if self._hidden_size < self._rows.shape[1]:
            self._rows[:num_rows, self._hidden_size :] = 0.0  # a norm may have left NaN there
        self._program.set_num_rows(num_rows)
        # They are the caller's: new memory costs less than a copy, and none if nobody has kept those of the last run.
        if len(self._logits) != num_rows or sys.getrefcount(self._logits) > _NOT_KEPT:
            logits = np.empty((num_rows, self._num_columns), np.float32)
            self._program.move(self._logits.ctypes.data, logits.ctypes.data)
            self._logits = logits
        team.run(self._program)
        return self._logits[:, : self._vocab_size]


def _table(weight: Quants | Tensor) -> PackedLinear | Tensor:
    """Rows to be looked up: quants only know how to be packed."""
    return PackedLinear.of_quants(weight) if isinstance(weight, Quants) else weight
