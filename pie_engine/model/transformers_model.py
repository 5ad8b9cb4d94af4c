"""Models of Transformers over our paged attention, for architectures without a family of our own.

Transformers lets an attention function be registered under a name (https://huggingface.co/docs/transformers,
`AttentionInterface`). Ours takes the tokens of a whole step as one sequence without a mask, and attends for each of
them in the pages of its own sequence. Slower than a family of our own: every layer runs as it is written there. Models
whose attention is not to be replaced, or not by ours, run as `transformers_own` has it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pie_engine.errors import ModelError, Unsupported
from pie_engine.model import transformers_steady
from pie_engine.model.attention import AttentionBuffers, AttentionPlan
from pie_engine.model.base import Inputs
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.description import LayerConfig
from pie_engine.model.kv_cache import HeadShape, KvCache
from pie_engine.model.span import Span
from pie_engine.model.steady_products import SteadyProducts
from pie_engine.model.transformers_checks import (
    HINT,
    can_replace_attention,
    library_for,
    model_class,
    refuse_what_cannot_work,
    where,
)
from pie_engine.model.transformers_own import ByTransformers, OwnAttentionModel, tried

log = logging.getLogger(__name__)

_NAME = "pie"


@dataclass(frozen=True, slots=True)
class Call:
    """One layer's attention: queries, keys and values [tokens, heads, dim] after rotary positions."""

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    window: int | None
    softcap: float | None
    sinks: Tensor | None
    problem: str
    """What of it we cannot do; empty: nothing."""


Attend = Callable[[Call], Tensor]
_attend: ContextVar[Attend] = ContextVar("attend")
"""What the registered function does now: attend in the pages of a step."""


def load_transformers_model(checkpoint: Checkpoint, dtype: torch.dtype) -> TransformersModel | OwnAttentionModel:
    """With our attention if it can be, with the model's own otherwise. Raises `ModelError` or `Unsupported`."""
    library, model = library_for(checkpoint), model_class(checkpoint)
    config = refuse_what_cannot_work(checkpoint, model)
    if not can_replace_attention(model, config):
        return OwnAttentionModel(checkpoint, _load(checkpoint, model, config, dtype, "eager"), dtype)
    library.AttentionInterface.register(_NAME, _attention)
    loaded = _load(checkpoint, model, config, dtype, "eager")
    try:
        expected = tried(loaded)
    except Exception as error:  # of any kind, from any model's code
        raise Unsupported(f"{where(checkpoint)} does not run: {error}", hint=HINT) from error
    loaded.set_attn_implementation(_NAME)
    try:
        ours = TransformersModel(checkpoint, loaded, dtype)
        if ours.is_like(expected):
            return ours
        raise Unsupported(f"{where(checkpoint)} computes something else with Pie's attention", hint=HINT)
    except Unsupported as reason:
        log.info("%s: it runs with its own attention, one sequence at a time", reason.message)
    loaded.set_attn_implementation("eager")
    return OwnAttentionModel(checkpoint, loaded, dtype)


class TransformersModel(ByTransformers):
    """A model of Transformers with our attention, behind the same methods as `Decoder`."""

    def __init__(self, checkpoint: Checkpoint, model: Any, dtype: torch.dtype) -> None:
        """`model` is loaded. Raises `Unsupported` for attention that ours is not."""
        self.dtype = dtype
        self._model = model
        self._keeps_logits = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        self.heads, layers, vocab_size = self._probe(checkpoint)
        self.config = replace(
            checkpoint.config,
            num_heads=self.heads.num_heads,
            num_kv_heads=self.heads.num_kv_heads,
            head_dim=self.heads.head_dim,
            layers=layers,
            vocab_size=vocab_size,
        )

    def new_cache(self, num_pages: int, page_size: int) -> KvCache:
        return KvCache(self.config.num_layers, num_pages, page_size, self.heads)

    def steady_obstacle(self) -> str | None:
        return transformers_steady.obstacle(self._model, self.dtype)

    def keep_steady(self, products: SteadyProducts | None) -> None:
        transformers_steady.keep_steady(self._model, products)

    @torch.inference_mode()
    def compute(self, inputs: Inputs) -> Tensor:
        spans, tokens = inputs.spans, inputs.tokens
        positions = [position for span in spans for position in span.positions]
        step = _Step(spans, len(tokens), self.heads, inputs.cache)
        return self._run(step.attend, tokens, positions, inputs.wanted, inputs.states)

    def _run(
        self,
        attend: Attend,
        tokens: Sequence[int],
        positions: Sequence[int],
        wanted: Sequence[int],
        states: Tensor | None = None,
    ) -> Tensor:
        kept = torch.tensor(wanted, dtype=torch.int64)
        options: dict[str, Any] = {"logits_to_keep": kept} if self._keeps_logits else {}
        if states is not None:
            options["output_hidden_states"] = True
        token = _attend.set(attend)
        try:
            result = self._model(
                input_ids=torch.tensor([tokens]), position_ids=torch.tensor([positions]), use_cache=False, **options
            )
        finally:
            _attend.reset(token)
        if states is not None:
            states.copy_(result.hidden_states[-1][0][kept])
        logits: Tensor = result.logits[0]
        return (logits if self._keeps_logits else logits[kept]).float()

    @torch.inference_mode()
    def _probe(self, checkpoint: Checkpoint) -> tuple[HeadShape, tuple[LayerConfig, ...], int]:
        """Run one token to see what each layer asks of attention; refuse what our pages cannot hold."""
        calls: list[Call] = []

        def record(call: Call) -> Tensor:
            calls.append(call)
            return call.value.repeat_interleave(call.query.shape[1] // call.value.shape[1], 1)

        vocab_size = self._run(record, [0], [0], [0]).shape[-1]
        problems = [call.problem for call in calls if call.problem]
        window = getattr(self._model.config, "sliding_window", None)
        if (
            window
            and not getattr(self._model.config, "layer_types", None)
            and all(call.window is None for call in calls)
        ):
            problems.append("with a window that its layers do not tell of")
        if problems:
            raise Unsupported(f"{where(checkpoint)} has attention {problems[0]}", hint=HINT)
        shapes = {(call.query.shape[1:], call.key.shape[1:], call.softcap, call.sinks is not None) for call in calls}
        if len(shapes) != 1 or sorted(call.layer for call in calls) != list(range(len(calls))):
            raise Unsupported(f"{where(checkpoint)} has layers of different kinds or sizes of attention", hint=HINT)
        [((num_heads, head_dim), (num_kv_heads, _), softcap, has_sinks)] = shapes
        layers = tuple(LayerConfig(window=call.window) for call in calls)
        return HeadShape(num_heads, num_kv_heads, head_dim, softcap, has_sinks), layers, vocab_size


class _Step:
    """The attention of one step."""

    def __init__(self, spans: Sequence[Span], num_tokens: int, shape: HeadShape, cache: KvCache) -> None:
        kv_heads = (num_tokens, shape.num_kv_heads, shape.head_dim)
        values = torch.zeros(kv_heads)
        self._cache = cache
        self._buffers = AttentionBuffers(
            queries=torch.empty(num_tokens, shape.num_heads, shape.head_dim),
            keys=torch.empty(kv_heads),
            values=values,
            flat_values=values.view(num_tokens, -1),
            out=torch.empty(num_tokens, shape.num_heads * shape.head_dim),
        )
        self._plan = AttentionPlan(spans, self._buffers, cache)

    def attend(self, call: Call) -> Tensor:
        """Values may be narrower than keys; the pages hold zeros beside them."""
        buffers, width = self._buffers, call.value.shape[-1]
        torch.mul(call.query, call.scale, out=buffers.queries)
        buffers.keys.copy_(call.key)
        buffers.values[..., :width].copy_(call.value)
        out = self._plan.attend(self._cache.layer(call.layer), call.window, call.sinks)
        return out.view(buffers.queries.shape)[..., :width]


def _load(checkpoint: Checkpoint, model: Any, config: Any, dtype: torch.dtype, attention: str) -> Any:
    library_for(checkpoint).utils.logging.disable_progress_bar()
    try:
        loaded, report = model.from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # of any kind, from any model's code
        raise ModelError(
            f"{checkpoint.folder}: Transformers cannot load {checkpoint.config.architecture}: {error}",
            hint="do config.json and the weights belong together?",
        ) from error
    for kind in ("missing_keys", "mismatched_keys"):
        if report[kind]:
            first = sorted(map(str, report[kind]))[0]
            what = "lacks tensor" if kind == "missing_keys" else "has another shape than config.json asks for in"
            raise ModelError(
                f"{checkpoint.folder} {what} {first}", hint="config.json and the weights belong to different models"
            )
    return loaded.eval()


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """What Transformers calls; tensors are [1, heads, tokens, dim], the result is [1, tokens, heads, dim]."""
    scale = options.get("scaling")
    call = Call(
        layer=module.layer_idx,
        query=query[0].transpose(0, 1),
        key=key[0].transpose(0, 1),
        value=value[0].transpose(0, 1),
        scale=query.shape[-1] ** -0.5 if scale is None else float(scale),
        window=options.get("sliding_window"),
        softcap=options.get("softcap"),
        sinks=None if options.get("s_aux") is None else options["s_aux"].float(),
        problem=_problem(module, query, key, value, attention_mask, options),
    )
    return _attend.get()(call).to(query.dtype).unsqueeze(0), None


def _problem(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: dict[str, Any]
) -> str:
    if mask is not None:
        return "with a mask of its own"
    if not options.get("is_causal", getattr(module, "is_causal", True)):
        return "that sees later tokens"
    for name in ("position_bias", "attention_bias", "alibi"):
        if options.get(name) is not None:
            return f"with `{name}`"
    if value.shape[-1] > key.shape[-1] or value.shape[1] != key.shape[1] or key.shape[2] != query.shape[2]:
        return "between tensors of sizes that do not match"
    return ""
