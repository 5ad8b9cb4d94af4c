"""The forward pass of every family: what differs between them is in the description and in the weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pie_engine.model.attention import AttentionPlan, softcap_
from pie_engine.model.base import Inputs, Model
from pie_engine.model.blocks import Block, BlockReader
from pie_engine.model.buffers import Buffers, Views
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.description import Kernels, ModelConfig
from pie_engine.model.experts import Experts, Gated
from pie_engine.model.kv_cache import HeadShape, KvCache, LayerKv
from pie_engine.model.layers import AnyLinear, AnyNorm, Linear
from pie_engine.model.lora.batch import AdaptedLayer, AdaptedRows
from pie_engine.model.lora.layout import Projection
from pie_engine.model.lora.weights import Adapter
from pie_engine.model.quantization import Quantization
from pie_engine.model.rope import Rope
from pie_engine.model.steady_products import SteadyProducts, odd_width
from pie_engine.model.weights import WeightReader
from pie_engine.sampling.sampler import Choose

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": functools.partial(torch.nn.functional.gelu, approximate="tanh"),
}


class Decoder(Model):
    """The weights, and the forward pass over the rows of a step."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, quantize: Quantization = "none") -> None:
        config = checkpoint.config
        self.config, self.dtype = config, dtype
        self.heads = HeadShape(
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            config.score_softcap,
            has_sinks=config.names.sinks is not None,
        )
        reader = WeightReader(checkpoint, dtype, quantize)
        blocks = BlockReader(reader, config)
        self._ropes = [Rope(rope, config.head_dim) for rope in blocks.ropes]
        self._embedding = reader.tensor(f"{config.names.embedding}.weight")
        self._blocks = [blocks.block(layer) for layer in range(config.num_layers)]
        self._norm = blocks.norm(config.names.final_norm)
        head = self._embedding if config.tie_embeddings else reader.tensor(f"{config.names.head}.weight")
        self._head: AnyLinear = Linear(head.t())
        self._head_bias = reader.tensor(f"{config.names.head}.bias", torch.float32) if config.head_bias else None
        self._scales = _query_scales(self.heads, config.score_scale)
        # Rounded as it was in training: Gemma multiplies in the dtype of its weights.
        self._embedding_scale = torch.tensor(config.embedding_scale, dtype=dtype).float()
        self._gated = gated(config)
        self._buffers = Buffers(config, dtype, max_tokens=1)
        self._adapters: dict[str, Adapter] = {}
        self._loaded = self._blocks, self._head
        self._products: SteadyProducts | None = None

    kernels: Kernels = "torch"
    choose: Choose | None = None
    kv_dtype = torch.float32

    def set_num_threads(self, num_threads: int) -> None:
        """Of the whole process, for that is how torch has it."""
        torch.set_num_threads(num_threads)

    def new_cache(self, num_pages: int, page_size: int) -> KvCache:
        return KvCache(self.config.num_layers, num_pages, page_size, self.heads)

    def steady_obstacle(self) -> str | None:
        """Why its products cannot be kept steady, if so."""
        config = self.config
        if config.is_gated and config.activation != "clamped_swiglu":
            return None  # rows of gates do not lie side by side
        experts = [] if config.experts is None else [config.experts.intermediate_size]
        return odd_width([config.intermediate_size, *experts], self.dtype)

    def keep_steady(self, products: SteadyProducts | None) -> None:
        """Let `products` see to it that rows get the same bits in any company; None: not any longer."""
        assert not self._adapters, "there is an adapter already"
        self._products = products
        self._blocks, self._head = self._loaded
        if products is not None:
            self._blocks = [block.with_linears(products.linear) for block in self._blocks]
            self._head = products.linear(self._head)

    def add_adapter(self, adapter: Adapter) -> None:
        self._adapters[adapter.adapter_id] = adapter if self._products is None else self._products.adapter(adapter)

    def remove_adapter(self, adapter_id: str) -> None:
        del self._adapters[adapter_id]

    @torch.inference_mode()
    def compute(self, inputs: Inputs) -> Tensor:
        spans, tokens, cache = inputs.spans, inputs.tokens, inputs.cache
        views = self._buffers_for(len(tokens)).views(len(tokens))
        positions = [position for span in spans for position in span.positions]
        rotations = [rope.rotations(positions).unsqueeze(1) * self._scales for rope in self._ropes]
        plan = AttentionPlan(spans, views.attention, cache)
        hidden = torch.embedding(self._embedding, torch.tensor(tokens)).float()
        if self.config.embedding_scale != 1.0:
            hidden.mul_(self._embedding_scale)
        adapted = AdaptedRows.of(spans, self._adapters)
        for layer, block in enumerate(self._blocks):
            lora = None if adapted is None else adapted.layer(layer)
            self._run_block(block, hidden, views, rotations[block.rope], plan, cache.layer(layer), lora)
        return self._logits(hidden, inputs.wanted, inputs.states)

    def _run_block(
        self,
        block: Block,
        hidden: Tensor,
        views: Views,
        rotations: Tensor,
        plan: AttentionPlan,
        kv: LayerKv,
        lora: AdaptedLayer | None,
    ) -> None:
        _normed_into(views.normed, hidden, block.attention_norm)
        block.qkv.into(views.qkv, views.normed)
        if lora is not None:
            lora.add("qkv", views.normed, views.qkv)
        if views.qkv32 is not views.qkv:
            views.qkv32.copy_(views.qkv)
        for norm, rows in zip(block.qk_norms, views.qk_rows, strict=False):
            norm.into(rows, rows)
        torch.mul(views.pairs, rotations, out=views.rotated)
        attended = plan.attend(kv, block.window, block.sinks).to(self.dtype)
        if self.config.is_parallel and block.mlp_norm is not None:
            block.mlp_norm.into(views.normed, hidden)
        self._add_product(hidden, block.attention_out, attended, block.attention_post_norm, lora, "attention_out")
        if not self.config.is_parallel:
            _normed_into(views.normed, hidden, block.mlp_norm)
        if isinstance(block.mlp, Experts):
            self._add(hidden, block.mlp.of(views.normed, self._gated), block.mlp_post_norm)
            return
        block.mlp.gate_up.into(views.gate_up, views.normed)
        if lora is not None:
            lora.add("gate_up", views.normed, views.gate_up)
        self._gated(views.gate, views.up, out=views.inner)
        self._add_product(hidden, block.mlp.down, views.inner, block.mlp_post_norm, lora, "down")

    def _add_product(
        self,
        hidden: Tensor,
        linear: AnyLinear,
        x: Tensor,
        post_norm: AnyNorm | None,
        lora: AdaptedLayer | None,
        projection: Projection,
    ) -> None:
        if post_norm is None:
            linear.add_to(hidden, x, self.config.residual_scale)
            if lora is not None:
                lora.add(projection, x, hidden, self.config.residual_scale)
            return
        result = linear.of(x).float()
        if lora is not None:
            lora.add(projection, x, result)
        self._add(hidden, result, post_norm)

    def _add(self, hidden: Tensor, result: Tensor, post_norm: AnyNorm | None) -> None:
        """Add what attention or the MLP gave to the residual stream."""
        if post_norm is not None:
            post_norm.into(result, result)
        hidden.add_(result, alpha=self.config.residual_scale)

    def _logits(self, hidden: Tensor, wanted: Sequence[int], states: Tensor | None) -> Tensor:
        last = hidden[torch.tensor(wanted, dtype=torch.int64)]
        normed = torch.empty_like(last, dtype=self.dtype)
        self._norm.into(normed, last)
        if states is not None:
            states.copy_(normed)
        logits = self._head.of(normed).float()
        if self._head_bias is not None:
            logits.add_(self._head_bias)
        if self.config.logit_scale != 1.0:
            logits.mul_(self.config.logit_scale)
        if self.config.logit_softcap is not None:
            softcap_(logits, self.config.logit_softcap)
        return logits

    def _buffers_for(self, num_tokens: int) -> Buffers:
        if num_tokens > self._buffers.max_tokens:
            self._buffers = Buffers(self.config, self.dtype, num_tokens)
        return self._buffers


def gated(config: ModelConfig) -> Gated:
    """What the MLPs of a model make of their gate and up projections."""
    if config.activation == "clamped_swiglu":
        return functools.partial(clamped_swiglu, alpha=config.swiglu_alpha, limit=config.swiglu_limit)
    activation = ACTIVATIONS[config.activation]
    if not config.is_gated:
        return lambda gate, up, out=None: activation(gate) if out is None else out.copy_(activation(gate))
    return lambda gate, up, out=None: torch.mul(activation(gate), up, out=out)


def clamped_swiglu(gate: Tensor, up: Tensor, out: Tensor | None = None, *, alpha: float, limit: float) -> Tensor:
    """Of gpt-oss (https://arxiv.org/abs/2508.10925)."""
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return torch.mul(gate * torch.sigmoid(gate * alpha), up + 1, out=out)


def _normed_into(out: Tensor, hidden: Tensor, norm: AnyNorm | None) -> None:
    if norm is None:
        out.copy_(hidden)
    else:
        norm.into(out, hidden)


def _query_scales(shape: HeadShape, scale: float) -> Tensor:
    """`scale` for query heads and 1 for key heads [heads + kv_heads, 1]: rotating also scales the scores."""
    scales = torch.ones(shape.num_heads + shape.num_kv_heads, 1, dtype=torch.complex64)
    scales[: shape.num_heads] = scale
    return scales
