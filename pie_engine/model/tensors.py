"""Which tensors a model has: name and shape of each, from its description."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pie_engine.model.description import ExpertsConfig, LayerConfig, ModelConfig

PACKED_BLOCK = 32
"""Numbers in a block of MXFP4, which share a scale."""
Shapes = Iterator[tuple[str, tuple[int, ...]]]


def expected_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a checkpoint with this configuration has."""
    return dict(_tensors(config))


def _tensors(config: ModelConfig) -> Shapes:
    names = config.names
    yield f"{names.embedding}.weight", (config.vocab_size, config.hidden_size)
    for index, layer in enumerate(config.layers):
        prefix = names.layer(index)
        for name in (names.attention_norm, names.attention_post_norm, names.mlp_norm, names.mlp_post_norm):
            if name is not None:
                yield from _norm(config, prefix + name)
        yield from _attention(config, prefix)
        yield from _experts(config, prefix) if layer.has_experts else _mlp(config, layer, prefix)
    yield from _norm(config, names.final_norm)
    if not config.tie_embeddings:
        yield f"{names.head}.weight", (config.vocab_size, config.hidden_size)
    if config.head_bias:
        yield f"{names.head}.bias", (config.vocab_size,)


def _norm(config: ModelConfig, name: str) -> Shapes:
    yield f"{name}.weight", (config.hidden_size,)
    if config.norm_bias:
        yield f"{name}.bias", (config.hidden_size,)


def _attention(config: ModelConfig, prefix: str) -> Shapes:
    names, hidden = config.names, config.hidden_size
    query, key_value = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    yield from _linears(prefix, names.qkv, (query, key_value, key_value), hidden, config.qkv_bias)
    yield from _linears(prefix, (names.attention_out,), (hidden,), query, config.attention_out_bias)
    for name, rows in ((names.query_norm, query), (names.key_norm, key_value)):
        if name is not None:
            yield f"{prefix}{name}.weight", (rows if config.norms_whole_projection else config.head_dim,)
    if names.sinks is not None:
        yield f"{prefix}{names.sinks}", (config.num_heads,)


def _mlp(config: ModelConfig, layer: LayerConfig, prefix: str) -> Shapes:
    names, hidden, inner = config.names, config.hidden_size, config.intermediate_size
    yield from _linears(prefix, names.gate_up, config.gate_up_sizes, hidden, config.mlp_bias)
    yield from _linears(prefix, (names.down,), (hidden,), inner, config.mlp_bias)


def _experts(config: ModelConfig, prefix: str) -> Shapes:
    names, hidden, experts = config.names, config.hidden_size, config.experts
    assert experts is not None, "a layer with experts, but no description of them"
    yield from _linears(prefix, (names.router,), (experts.num_experts,), hidden, experts.has_bias)
    if experts.is_stacked:
        for name, rows, columns in (
            (names.expert_gate_up[0], 2 * experts.intermediate_size, hidden),
            (names.expert_down, hidden, experts.intermediate_size),
        ):
            yield from _stacked(f"{prefix}{names.expert}.{name}", rows, columns, experts)
        return
    for number in range(experts.num_experts):
        one, inner = f"{prefix}{names.expert}.{number}.", experts.intermediate_size
        yield from _linears(one, names.expert_gate_up, (inner, inner), hidden, experts.has_bias)
        yield from _linears(one, (names.expert_down,), (hidden,), inner, experts.has_bias)


def _stacked(name: str, rows: int, columns: int, experts: ExpertsConfig) -> Shapes:
    if experts.is_packed:
        num_blocks = -(-columns // PACKED_BLOCK)
        yield f"{name}_blocks", (experts.num_experts, rows, num_blocks, PACKED_BLOCK // 2)
        yield f"{name}_scales", (experts.num_experts, rows, num_blocks)
    else:
        yield name, (experts.num_experts, columns, rows)
    if experts.has_bias:
        yield f"{name}_bias", (experts.num_experts, rows)


def _linears(prefix: str, names: Sequence[str], rows: Sequence[int], columns: int, has_bias: bool) -> Shapes:
    """The projections `names`; a single name for several `rows` is one tensor that holds them one after another."""
    for name, num_rows in zip(names, rows if len(names) > 1 else (sum(rows),), strict=True):
        yield f"{prefix}{name}.weight", (num_rows, columns)
        if has_bias:
            yield f"{prefix}{name}.bias", (num_rows,)
