"""The program of a model's layers, and the buffers that it works in."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pie_engine.kv.table import joined
from pie_engine.model.base import Inputs
from pie_engine.model.compiled_lora import PackedAdapter, segments_of, site_of
from pie_engine.model.compiled_weights import Norm, PackedBlock, PackedMixture, PackedMlp
from pie_engine.model.description import ModelConfig
from pie_engine.model.kernels import attention, codes
from pie_engine.model.kernels.blocks import WIDTH
from pie_engine.model.kernels.packed import AnyPacked
from pie_engine.model.kernels.program import Program, row_bytes
from pie_engine.model.kernels.start import FAULTS, lay_out
from pie_engine.model.kernels.team import Team
from pie_engine.model.kv_cache import KvCache
from pie_engine.model.lora.layout import Projection
from pie_engine.model.sight import words_of
from pie_engine.model.span import Span

NO_ADAPTERS: Mapping[str, PackedAdapter] = {}
_GATES = {
    "silu": codes.GATE_SILU,
    "gelu": codes.GATE_GELU,
    "gelu_tanh": codes.GATE_GELU_TANH,
    "clamped_swiglu": codes.GATE_CLAMPED,
}


_SLOTS, _POSITIONS, _IDS, _WANTED = range(4)


def padded_rows(num_rows: int, size: int) -> Tensor:
    """A buffer of rows of `size` numbers, and beside them zeros up to whole panels."""
    return torch.zeros(num_rows, -(-size // WIDTH) * WIDTH)


class Step:
    """The layers' program over buffers for up to `capacity` tokens, and one cache."""

    def __init__(
        self,
        config: ModelConfig,
        blocks: Sequence[PackedBlock],
        ropes: Sequence[Tensor],
        cache: KvCache,
        capacity: int,
        num_threads: int,
    ) -> None:
        """`config` as the kernels run it (`support.padded`). `ropes` [positions, head_dim]: the rotations of each."""
        self.capacity, self.cache = capacity, cache
        self.num_positions = min(map(len, ropes))
        """Tokens may stand at those below."""
        self._config, self._num_threads = config, num_threads
        self._scratch = torch.empty(0)
        num_all = config.num_heads + 2 * config.num_kv_heads
        num_rotated = config.num_heads + config.num_kv_heads
        self._ropes = ropes
        self._turns = [torch.zeros(capacity, config.head_dim) for _ in ropes]
        self._numbers = np.zeros((4, capacity), np.int64)
        """Slots, positions and ids of the tokens, and which of them are wanted: see `lay_out`."""
        self.hidden = padded_rows(capacity, config.hidden_size)
        """The residual stream, and zeros up to whole panels."""
        self._start = self.hidden.numpy()
        self._normed = padded_rows(capacity, config.hidden_size)
        self._added = padded_rows(capacity, config.hidden_size)
        self._qkv = padded_rows(capacity, num_all * config.head_dim)
        self._rotated = torch.empty(capacity, num_rotated * config.head_dim)
        self._attended = torch.empty(capacity, config.num_heads * config.head_dim)
        self._windows = list(dict.fromkeys(block.window for block in blocks))
        num_columns = attention.FIRST_SIGHT + attention.SIGHT_COLUMNS * len(self._windows)
        self._spans = np.zeros((capacity, num_columns), np.int64)
        self._writers = np.zeros(cache.num_pages + 1, np.int64)
        self._blocks = blocks
        self._mlp = _MlpSteps(config, capacity)
        self._reduced = torch.empty(0)
        self._plain = self._written()
        self._adapted: Program | None = None
        """With what adapters add; written when they are first used."""

    def _written(self) -> Program:
        self._program = self._mlp.steps = Program(self._num_threads)
        for rope, turns in zip(self._ropes, self._turns, strict=True):
            positions, size = self._numbers[_POSITIONS].ctypes.data, turns.shape[1]
            self._program.add(codes.GATHER, rope, positions, size, turns, row_bytes(turns))
        for index, block in enumerate(self._blocks):
            self._add_block(index, block)
        self._program.seal()
        return self._program

    def _adapted_for(self, num_ranks: int) -> Program:
        """The program for adapters of up to `num_ranks` ranks in one place."""
        if self._adapted is None or self._reduced.shape[1] < num_ranks:
            self._reduced = torch.empty(self.capacity, num_ranks)
            self._adapted = self._written()
        return self._adapted

    def hidden_of(self, num_tokens: int) -> np.ndarray:
        """The residual stream [tokens, hidden size], to be filled in."""
        self.clear_padding(num_tokens)
        return self._start[:num_tokens, : self._config.hidden_size]

    def clear_padding(self, num_tokens: int) -> None:
        """The layers may have left NaN beside the residual stream."""
        size = self._config.hidden_size
        if size < self._start.shape[1]:
            self._start[:num_tokens, size:] = 0.0

    def ids(self, num_tokens: int) -> np.ndarray:
        """The tokens that were placed last."""
        return self._numbers[_IDS, :num_tokens]

    @property
    def wanted(self) -> int:
        """The address of the indices of those that are wanted."""
        return int(self._numbers[_WANTED].ctypes.data)

    def place(self, inputs: Inputs) -> None:
        """Say what the next `run` works on. A fault in it is our bug and must never become wrong text: see `FAULTS`."""
        lengths, starts, tables, tokens = inputs.lengths, inputs.starts, inputs.tables, inputs.tokens
        # One array for all, since each costs more than what is in it.
        numbers = array("q", [*lengths, *starts, *map(len, tables), *tokens, *inputs.wanted])
        self._tables, page_size = np.frombuffer(joined(tables), np.int64), self.cache.page_size
        fault = lay_out(
            np.frombuffer(numbers, np.int64), len(lengths), len(tokens), self._config.vocab_size, page_size,
            self._tables, self._writers, self._spans, self._numbers,
        )  # fmt: skip
        assert not fault, f"{FAULTS[fault]}: tokens {tokens}, lengths {lengths}, positions {starts}, pages {tables}"
        self._kept: list[np.ndarray] = []
        if any(inputs.layouts):
            for row, span in enumerate(inputs.spans):
                if span.layout is not None:
                    self._place_by_layout(row, span)

    def _place_by_layout(self, row: int, span: Span) -> None:
        """What the kernels need besides of a span with a layout, for each window."""
        self._numbers[_POSITIONS, span.first : span.first + span.length] = span.positions
        numbers: list[int] = []
        for window in self._windows:
            sight = span.sight(window, self.cache.page_size)
            words = words_of(sight.is_seen)
            self._kept.append(words)
            numbers += (words.ctypes.data, sight.is_seen.shape[1], len(self._tables))
            self._tables = np.concatenate([self._tables, np.array(sight.page_ids, np.int64)])
        self._spans[row, attention.FIRST_SIGHT :] = numbers

    def run(self, team: Team, inputs: Inputs, adapters: Mapping[str, PackedAdapter] = NO_ADAPTERS) -> None:
        """What was placed goes through the layers."""
        config, num_spans = self._config, len(inputs.lengths)
        max_pages = -(-inputs.num_slots // self.cache.page_size)
        numbers = attention.scratch_numbers(config.head_dim, max_pages)
        if self._scratch.numel() < numbers * self._num_threads:
            self._scratch = torch.empty(2 * numbers * self._num_threads)
        program, segments = self._plain, segments_of(inputs.spans, adapters) if any(inputs.adapters) else None
        if segments is not None:
            program = self._adapted_for(max(adapter.num_ranks for adapter in adapters.values()))
        program.set_num_rows(len(inputs.tokens))
        program.set_attention(num_spans * config.num_kv_heads, self._scratch, numbers, max_pages)
        if segments is not None:
            program.set_adapters(segments)
        team.run(program, self._spans[:num_spans], self._tables, self._numbers[_SLOTS])

    def _add_block(self, index: int, block: PackedBlock) -> None:
        steps, config, rotated = self._program, self._config, self._rotated
        x = self._normed_by(block.attention_norm)
        block.qkv.into(steps, x, self._qkv)
        self._adapt(index, "qkv", x, self._qkv)
        self._add_qk_norms(block)
        steps.add(
            codes.ROTATE, self._qkv, config.head_dim, self._turns[block.rope], rotated, row_bytes(rotated),
            config.num_heads + config.num_kv_heads, config.num_heads, factors=(config.score_scale, 1.0),
        )  # fmt: skip
        self._add_attention(index, block)
        if config.is_parallel:
            # The MLP works on what attention works on, and may share its norm.
            x = self._normed if block.mlp_norm is None else self._normed_by(block.mlp_norm)
        self._add_to_hidden(index, "attention_out", block.attention_out, self._attended, block.attention_post_norm)
        if not config.is_parallel:
            x = self._normed_by(block.mlp_norm)
        if isinstance(block.mlp, PackedMlp):
            gate_up = self._mlp.add_gate_up(block.mlp, x)
            self._adapt(index, "gate_up", x, gate_up)
            self._add_to_hidden(index, "down", block.mlp.down, self._mlp.add_gated(), block.mlp_post_norm)
        else:
            self._mlp.add_mixture(block.mlp, x, self._added)
            self._add_added(block.mlp_post_norm)

    def _normed_by(self, norm: Norm | None) -> Tensor:
        """The residual stream, through the norm if there is one."""
        if norm is None:
            return self.hidden
        norm.into(self._program, self.hidden, self._normed)
        return self._normed

    def _add_qk_norms(self, block: PackedBlock) -> None:
        num_queries = self._config.num_heads * self._config.head_dim
        parts = (self._qkv[:, :num_queries], self._qkv[:, num_queries:])
        for norm, part in zip(block.qk_norms, parts, strict=False):
            norm.into(self._program, part, part)

    def _add_attention(self, index: int, block: PackedBlock) -> None:
        config, steps, kv = self._config, self._program, self.cache.layer(index)
        num_queries, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        keys, values = self._rotated[:, num_queries:], self._qkv[:, num_queries + kv_size :]
        steps.add(codes.WRITE_KV, keys, values, row_bytes(values), kv.keys, kv.values, kv_size)
        steps.add(
            codes.ATTEND, self._rotated, kv.keys, kv.values, config.num_heads // config.num_kv_heads,
            config.num_kv_heads, config.head_dim, block.window or attention.NO_WINDOW,
            self._attended, row_bytes(self._attended), 0, 0, 0, 0 if block.sinks is None else block.sinks,
            attention.FIRST_SIGHT + attention.SIGHT_COLUMNS * self._windows.index(block.window),
            factors=(config.score_softcap or 0.0,),
        )  # fmt: skip

    def _add_to_hidden(
        self, index: int, projection: Projection, linear: AnyPacked, x: Tensor, post_norm: Norm | None
    ) -> None:
        """Add what attention or the MLP gives to the residual stream."""
        if post_norm is None and self._config.residual_scale == 1.0:
            linear.add_to(self._program, x, self.hidden)
            self._adapt(index, projection, x, self.hidden)
            return
        linear.into(self._program, x, self._added)
        self._adapt(index, projection, x, self._added)
        self._add_added(post_norm)

    def _adapt(self, layer: int, projection: Projection, x: Tensor, y: Tensor) -> None:
        """Append what adapters add to the product of a projection, if this program is for them."""
        reduced = self._reduced
        if len(reduced):
            site = site_of(layer, projection)
            self._program.add(codes.ADAPT, x, site, y, row_bytes(y), reduced, row_bytes(reduced))

    def _add_added(self, post_norm: Norm | None) -> None:
        steps, hidden = self._program, self.hidden
        if post_norm is not None:
            post_norm.into(steps, self._added, self._added)
        steps.add(
            codes.ADD, self._added, self._config.hidden_size, hidden, row_bytes(hidden),
            factors=(self._config.residual_scale,),
        )  # fmt: skip


class _MlpSteps:
    """Appends MLPs and mixtures of experts to a program, over buffers that all layers share."""

    steps: Program

    def __init__(self, config: ModelConfig, capacity: int) -> None:
        self._config = config
        if not all(layer.has_experts for layer in config.layers):
            self._gate_up = padded_rows(capacity, 2 * config.intermediate_size)
            self._up = self._gate_up[:, config.intermediate_size :]
            if not config.is_gated:
                # What is activated is multiplied by ones that nobody writes to.
                self._gate_up = padded_rows(capacity, config.intermediate_size)
                self._up = torch.ones_like(self._gate_up)
            self._inner = padded_rows(capacity, config.intermediate_size)
        if config.experts is not None:
            num_experts, num_pairs = config.experts.num_experts, capacity * config.experts.num_active
            self._logits = padded_rows(capacity, num_experts)
            self._shares = torch.zeros(num_pairs)
            self._chosen, self._sources, self._places = torch.zeros(3, num_pairs, dtype=torch.int64)
            self._starts = torch.zeros(num_experts + 1, dtype=torch.int64)
            self._pairs = padded_rows(num_pairs, config.hidden_size)
            self._expert_gate_up = padded_rows(num_pairs, 2 * config.experts.intermediate_size)
            self._expert_inner = padded_rows(num_pairs, config.experts.intermediate_size)

    def add_gate_up(self, mlp: PackedMlp, x: Tensor) -> Tensor:
        """Where the gate and up projections will be."""
        mlp.gate_up.into(self.steps, x, self._gate_up)
        return self._gate_up

    def add_gated(self) -> Tensor:
        """Where the input of the down projection will be."""
        self._add_gate(self._gate_up, self._up, self._inner, self._config.intermediate_size)
        return self._inner

    def add_mixture(self, mixture: PackedMixture, x: Tensor, out: Tensor) -> None:
        """Append out = the weighted sum of what the chosen experts make of x."""
        steps, experts, hidden_size = self.steps, self._config.experts, self._config.hidden_size
        assert experts is not None
        num_experts, times = experts.num_experts, mixture.num_active
        mixture.router.into(steps, x, self._logits)
        steps.add(
            codes.ROUTE, self._logits, num_experts, times, self._chosen, self._shares, int(mixture.normalize),
            factors=(1.0,),
        )  # fmt: skip
        steps.add(codes.GROUP, self._chosen, num_experts, times, self._sources, self._places, self._starts)
        pairs = self._pairs
        steps.add(codes.GATHER, x, self._sources, hidden_size, pairs, row_bytes(pairs), times=times)
        mixture.gate_up.into(steps, pairs, self._expert_gate_up, self._starts, times)
        up = self._expert_gate_up[:, experts.intermediate_size :]
        self._add_gate(self._expert_gate_up, up, self._expert_inner, experts.intermediate_size, times)
        mixture.down.into(steps, self._expert_inner, pairs, self._starts, times)
        steps.add(codes.COMBINE, pairs, self._places, self._shares, times, hidden_size, out, row_bytes(out))

    def _add_gate(self, gate: Tensor, up: Tensor, inner: Tensor, size: int, times: int = 1) -> None:
        config = self._config
        self.steps.add(
            _GATES[config.activation], gate, up, size, inner, row_bytes(inner),
            factors=(config.swiglu_alpha, config.swiglu_limit), times=times,
        )  # fmt: skip
