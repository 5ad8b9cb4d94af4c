"""The forward pass as one program of compiled kernels: no operation is dispatched from Python, and weights stay bf16.

The same description and the same tensors as `decoder.Decoder`, which is the oracle for this path and runs whatever it
does not (`kernels.support`). Activations are fp32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pie_engine.model.attention import HeadShape, KvCache, Span
from pie_engine.model.blocks import Block, BlockReader
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.description import Kernels
from pie_engine.model.experts import Mlp
from pie_engine.model.kernels import attention, codes
from pie_engine.model.kernels.packed import PackedLinear
from pie_engine.model.kernels.program import Program, row_bytes
from pie_engine.model.kernels.team import Team
from pie_engine.model.layers import AnyLinear, Linear, RMSNorm
from pie_engine.model.rope import Rope
from pie_engine.model.weights import WeightReader

_GATES = {"silu": codes.GATE_SILU, "gelu_tanh": codes.GATE_GELU}


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """`blocks.Block` in the layout of the kernels."""

    attention_norm: RMSNorm | None
    qkv: PackedLinear
    qk_norms: tuple[RMSNorm, ...]
    rope: int
    window: int | None
    attention_out: PackedLinear
    attention_post_norm: RMSNorm | None
    mlp_norm: RMSNorm | None
    gate_up: PackedLinear
    down: PackedLinear
    mlp_post_norm: RMSNorm | None

    @classmethod
    def of(cls, block: Block) -> PackedBlock:
        mlp = block.mlp
        assert isinstance(mlp, Mlp), "`why_not` has said so"
        return cls(
            attention_norm=block.attention_norm,
            qkv=_packed(block.qkv),
            qk_norms=block.qk_norms,
            rope=block.rope,
            window=block.window,
            attention_out=_packed(block.attention_out),
            attention_post_norm=block.attention_post_norm,
            mlp_norm=block.mlp_norm,
            gate_up=_packed(mlp.gate_up),
            down=_packed(mlp.down),
            mlp_post_norm=block.mlp_post_norm,
        )


class CompiledDecoder:
    """The weights, and the forward pass over the rows of a step. The interface of `Decoder`."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, num_threads: int = 1) -> None:
        """`dtype` is that of the weights: bf16 or fp32."""
        config = checkpoint.config
        self.config, self.dtype, self.kv_dtype = config, dtype, dtype
        self._kind = str(dtype).removeprefix("torch.")
        self.heads = HeadShape(config.num_heads, config.num_kv_heads, config.head_dim)
        reader = WeightReader(checkpoint, dtype)
        blocks = BlockReader(reader, config)
        self._ropes = [Rope(rope, config.head_dim) for rope in blocks.ropes]
        self._blocks = [PackedBlock.of(blocks.block(layer)) for layer in range(config.num_layers)]
        self._norm = blocks.norm(config.names.final_norm)
        names = config.names
        self._head = PackedLinear.of_rows(
            reader.tensor(f"{names.embedding if config.tie_embeddings else names.head}.weight")
        )
        self._embedding = None if config.tie_embeddings else reader.tensor(f"{names.embedding}.weight")
        # Rounded as `Decoder` rounds it.
        self._embedding_scale = torch.tensor(config.embedding_scale, dtype=dtype).float()
        self._team = Team(1, self._kind)
        self.set_num_threads(num_threads)

    kernels: Kernels = "compiled"

    def set_num_threads(self, num_threads: int) -> None:
        """Threads of the steps from here on. What torch does beside them is too small for more than one."""
        torch.set_num_threads(1)
        self._team.close()
        self._team = Team(num_threads, self._kind)
        self._step: _Step | None = None
        self._last: _LastRows | None = None

    def new_cache(self, num_pages: int, page_size: int) -> KvCache:
        return KvCache(self.config.num_layers, num_pages, page_size, self.heads, self.kv_dtype)

    @torch.inference_mode()
    def forward(
        self,
        spans: Sequence[Span],
        tokens: Sequence[int],
        cache: KvCache,
        wanted: Sequence[int],
        states: Tensor | None = None,
    ) -> Tensor:
        """As `Decoder.forward`. What a row gets is the same bit for bit in any batch and any chunk."""
        step = self._step_for(len(tokens), cache)
        positions = [position for span in spans for position in range(span.start, span.end)]
        hidden = step.hidden[: len(tokens)]
        ids = torch.tensor(tokens)
        hidden.copy_(self._head.rows(ids) if self._embedding is None else self._embedding[ids])
        if self.config.embedding_scale != 1.0:
            hidden.mul_(self._embedding_scale)
        for rope, turns in zip(self._ropes, step.turns, strict=True):
            turns[: len(tokens)] = torch.view_as_real(rope.rotations(positions)).flatten(1)
        step.run(self._team, spans)
        return self._logits(hidden[torch.tensor(wanted, dtype=torch.int64)], states)

    def _logits(self, last: Tensor, states: Tensor | None) -> Tensor:
        config = self.config
        if not len(last):
            return torch.empty(0, config.vocab_size)
        if self._last is None or self._last.capacity < len(last):
            self._last = _LastRows(self, max(len(last), 16))
        logits = self._last.run(self._team, last)
        if states is not None:
            states.copy_(self._last.normed[: len(last)])
        if config.logit_scale != 1.0:
            logits = logits * config.logit_scale
        if config.logit_softcap is not None:
            logits = torch.tanh(logits / config.logit_softcap) * config.logit_softcap
        return logits

    def _step_for(self, num_tokens: int, cache: KvCache) -> _Step:
        if self._step is None or self._step.capacity < num_tokens or self._step.cache is not cache:
            self._step = _Step(self, max(num_tokens, 16), cache)
        return self._step


class _LastRows:
    """The end of a step: the final norm and the head, over the rows whose logits are wanted."""

    def __init__(self, model: CompiledDecoder, capacity: int) -> None:
        self.capacity = capacity
        config = model.config
        self._vocab_size = config.vocab_size
        self._rows = self.normed = torch.empty(capacity, config.hidden_size)
        self._logits = torch.empty(capacity, model._head.padded_outputs)
        self._program = Program(model._team.num_threads)
        _norm(self._program, self._rows, model._norm, self._rows)
        model._head.into(self._program, self._rows, self._logits)
        self._program.seal()

    def run(self, team: Team, rows: Tensor) -> Tensor:
        self._rows[: len(rows)] = rows
        self._program.set_num_rows(len(rows))
        team.run(self._program)
        return self._logits[: len(rows), : self._vocab_size].clone()


class _Step:
    """The layers' program over buffers for up to `capacity` tokens, and one cache."""

    def __init__(self, model: CompiledDecoder, capacity: int, cache: KvCache) -> None:
        config = model.config
        self.capacity, self.cache = capacity, cache
        self._config = config
        self._num_threads = model._team.num_threads
        self._scratch = torch.empty(0)
        num_all = config.num_heads + 2 * config.num_kv_heads
        num_rotated = config.num_heads + config.num_kv_heads
        self.hidden = torch.empty(capacity, config.hidden_size)
        self.turns = [torch.empty(capacity, config.head_dim) for _ in model._ropes]
        self._normed = torch.empty(capacity, config.hidden_size)
        self._added = torch.empty(capacity, config.hidden_size)
        self._qkv = torch.empty(capacity, num_all * config.head_dim)
        self._rotated = torch.empty(capacity, num_rotated * config.head_dim)
        self._attended = torch.empty(capacity, config.num_heads * config.head_dim)
        self._gate_up = torch.empty(capacity, 2 * config.intermediate_size)
        self._inner = torch.empty(capacity, config.intermediate_size)
        self._program = Program(self._num_threads)
        for index, block in enumerate(model._blocks):
            self._add_block(index, block)
        self._program.seal()

    def run(self, team: Team, spans: Sequence[Span]) -> None:
        page_size, config = self.cache.page_size, self._config
        rows: list[tuple[int, ...]] = []
        tables: list[int] = []
        slots: list[int] = []
        for span in spans:
            rows.append((span.first, span.length, span.start, len(tables)))
            tables.extend(span.page_ids[: -(-span.end // page_size)])
            for position in range(span.start, span.end):
                slots.append(span.page_ids[position // page_size] * page_size + position % page_size)
        max_pages = max(-(-span.end // page_size) for span in spans)
        numbers = attention.scratch_numbers(config.head_dim, max_pages)
        if self._scratch.numel() < numbers * self._num_threads:
            self._scratch = torch.empty(2 * numbers * self._num_threads)
        self._program.set_num_rows(len(slots))
        self._program.set_attention(len(spans) * config.num_kv_heads, self._scratch, numbers, max_pages)
        team.run(self._program, *(np.array(part, np.int64) for part in (rows, tables, slots)))

    def _add_block(self, index: int, block: PackedBlock) -> None:
        steps, config = self._program, self._config
        _norm(steps, self.hidden, block.attention_norm, self._normed)
        block.qkv.into(steps, self._normed if block.attention_norm else self.hidden, self._qkv)
        self._add_qk_norms(block)
        rotated = self._rotated
        steps.add(
            codes.ROTATE, self._qkv, config.head_dim, self.turns[block.rope], rotated, row_bytes(rotated),
            config.num_heads + config.num_kv_heads, config.num_heads, factors=(config.score_scale, 1.0),
        )  # fmt: skip
        self._add_attention(index, block)
        self._add_to_hidden(block.attention_out, self._attended, block.attention_post_norm)
        _norm(steps, self.hidden, block.mlp_norm, self._normed)
        block.gate_up.into(steps, self._normed if block.mlp_norm else self.hidden, self._gate_up)
        inner, size = self._inner, config.intermediate_size
        steps.add(
            _GATES[config.activation], self._gate_up, self._gate_up[:, size:], size, inner, row_bytes(inner),
        )  # fmt: skip
        self._add_to_hidden(block.down, inner, block.mlp_post_norm)

    def _add_qk_norms(self, block: PackedBlock) -> None:
        config, qkv = self._config, self._qkv
        num_queries = config.num_heads * config.head_dim
        if config.norms_whole_projection:
            for norm, part in zip(block.qk_norms, (qkv[:, :num_queries], qkv[:, num_queries:]), strict=False):
                _norm(self._program, part, norm, part)
        else:
            for norm in block.qk_norms:
                scale = _unscaled(norm)
                self._program.add(
                    codes.HEAD_NORM, qkv, config.head_dim, scale, len(scale), factors=(_eps(norm),)
                )  # fmt: skip

    def _add_attention(self, index: int, block: PackedBlock) -> None:
        config, steps, kv = self._config, self._program, self.cache.layer(index)
        num_queries = config.num_heads * config.head_dim
        keys = self._rotated[:, num_queries:]
        values = self._qkv[:, num_queries + self.heads_size :]
        steps.add(codes.WRITE_KV, keys, values, row_bytes(values), kv.keys, kv.values, self.heads_size)
        steps.add(
            codes.ATTEND, self._rotated, kv.keys, kv.values, config.num_heads // config.num_kv_heads,
            config.num_kv_heads, config.head_dim, block.window or attention.NO_WINDOW,
            self._attended, row_bytes(self._attended), factors=(config.score_softcap or 0.0,),
        )  # fmt: skip

    @property
    def heads_size(self) -> int:
        return self._config.num_kv_heads * self._config.head_dim

    def _add_to_hidden(self, linear: PackedLinear, x: Tensor, post_norm: RMSNorm | None) -> None:
        """Add what attention or the MLP gives to the residual stream."""
        steps, scale = self._program, self._config.residual_scale
        if post_norm is None and scale == 1.0 and linear.is_whole:
            linear.add_to(steps, x, self.hidden)
            return
        linear.into(steps, x, self._added)
        _norm(steps, self._added, post_norm, self._added)
        steps.add(
            codes.ADD, self._added, self._config.hidden_size, self.hidden, row_bytes(self.hidden), factors=(scale,)
        )


def _packed(linear: AnyLinear) -> PackedLinear:
    assert isinstance(linear, Linear), "quantized weights run on torch"
    return PackedLinear.of_rows(linear.weight.t(), linear.bias)


def _norm(steps: Program, x: Tensor, norm: RMSNorm | None, out: Tensor) -> None:
    if norm is not None:
        scale = _unscaled(norm)
        steps.add(codes.RMS_NORM, x, scale.shape[-1], scale, out, row_bytes(out), factors=(_eps(norm),))


def _unscaled(norm: RMSNorm) -> Tensor:
    """The weights as the checkpoint has them."""
    return norm.scale / math.sqrt(norm.scale.shape[-1])


def _eps(norm: RMSNorm) -> float:
    return float(norm.eps_sum) / norm.scale.shape[-1]
