"""`adapter_config.json`: rank, scale and targets of a LoRA adapter; what changes a model in another way is refused.

Fields and their meaning: https://huggingface.co/docs/peft/package_reference/lora
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pie_engine.errors import ModelError, Unsupported

MERGE_HINT = "merge it into the model with PEFT's `merge_and_unload()`, save that, and load it as a model"
_READ = frozenset(
    ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules", "exclude_modules")
) | {"layers_to_transform", "layers_pattern", "peft_type", "bias", "init_lora_weights"}
_WITHOUT_EFFECT = frozenset(
    ("task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version")
) | {"lora_dropout", "megatron_core", "qalora_group_size", "loftq_config", "eva_config", "runtime_config"}
"""Of training, of the base model's name, or of a setting that has to be on as well."""
_REFUSED: Mapping[str, str] = {
    "modules_to_save": "it carries whole modules ({value})",
    "use_dora": "it is a DoRA adapter",
    "lora_bias": "its B matrices have a bias",
    "fan_in_fan_out": "its matrices are transposed (`fan_in_fan_out`)",
    "trainable_token_indices": "it changes embeddings of single tokens",
    "target_parameters": "it changes parameters that are no linear layers ({value})",
    "layer_replication": "it repeats layers of the model",
    "alora_invocation_tokens": "it is an activated LoRA, which begins at given tokens",
}
_REBASING = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
"""Ways to initialise that also change the base model's weights, which the file of the adapter does not have."""


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """W x becomes W x + scale · B A x, with A [rank, inputs] and B [outputs, rank]."""

    rank: int
    alpha: float
    target_modules: str | tuple[str, ...]
    """A regular expression over whole module names, `all-linear`, or names that theirs end with."""
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    use_rslora: bool = False
    exclude_modules: str | tuple[str, ...] = ()
    layers_to_transform: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] = ()

    @classmethod
    def of(cls, raw: Mapping[str, Any], where: str) -> LoraSettings:
        """From `adapter_config.json`; raises `Unsupported` or `ModelError`, naming the field."""
        _refuse(raw, where)
        read = _Reader(raw, where)
        targets = raw.get("target_modules")
        if not targets:
            raise ModelError(f"{where} names no `target_modules`", hint="save the adapter again with PEFT")
        layers = raw.get("layers_to_transform")
        return cls(
            rank=read.integer("r", raw.get("r", 8)),
            alpha=read.number("lora_alpha", raw.get("lora_alpha", 8)),
            target_modules=read.modules("target_modules"),
            rank_pattern=read.pattern("rank_pattern", read.integer),
            alpha_pattern=read.pattern("alpha_pattern", read.number),
            use_rslora=bool(raw.get("use_rslora")),
            exclude_modules=read.modules("exclude_modules"),
            layers_to_transform=None if layers in (None, []) else read.layers(layers),
            layers_pattern=_names(raw.get("layers_pattern")),
        )

    def targets(self, module: str, layer: int) -> bool:
        """Whether the adapter changes the linear layer `module` (its whole name), which is in layer `layer`."""
        if _is_named(module, self.exclude_modules):
            return False
        if isinstance(self.target_modules, str):
            return self.target_modules.lower() == "all-linear" or _is_named(module, self.target_modules)
        if module in self.target_modules:
            return True
        return _is_named(module, self.target_modules) and self._has_layer(module, layer)

    def _has_layer(self, module: str, layer: int) -> bool:
        if self.layers_to_transform is None:
            return True
        patterns = self.layers_pattern or (r"[^.]*",)
        is_numbered = any(re.match(rf"(?:^|.*?\.){pattern}\.{layer}\.", module) for pattern in patterns)
        return is_numbered and layer in self.layers_to_transform

    def rank_of(self, module: str) -> int:
        return int(_looked_up(self.rank_pattern, module, self.rank))

    def scale_of(self, module: str) -> float:
        """alpha / rank; with rsLoRA (https://arxiv.org/abs/2312.03732) alpha / sqrt(rank)."""
        rank, alpha = self.rank_of(module), _looked_up(self.alpha_pattern, module, self.alpha)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


class _Reader:
    """Typed fields of the configuration; raises `ModelError`."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self._raw, self._where = raw, where

    def integer(self, name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._wrong(name, value, "a whole number, 1 or more")
        return value

    def number(self, name: str, value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self._wrong(name, value, "a number")
        return float(value)

    def pattern(self, name: str, of: Any) -> dict[str, Any]:
        value = self._raw.get(name) or {}
        if not isinstance(value, dict):
            raise self._wrong(name, value, "an object from module names to numbers")
        for key in value:
            self._check_regex(name, key)
        return {key: of(f"{name}.{key}", entry) for key, entry in value.items()}

    def modules(self, name: str) -> str | tuple[str, ...]:
        value = self._raw.get(name) or ()
        if isinstance(value, str):
            self._check_regex(name, value)
            return value
        if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
            raise self._wrong(name, value, "a regular expression or a list of module names")
        return tuple(value)

    def layers(self, value: Any) -> tuple[int, ...]:
        layers = value if isinstance(value, list) else [value]
        if not all(isinstance(layer, int) and not isinstance(layer, bool) for layer in layers):
            raise self._wrong("layers_to_transform", value, "numbers of layers")
        return tuple(layers)

    def _check_regex(self, name: str, text: str) -> None:
        try:
            re.compile(text)
        except re.error as error:
            raise ModelError(f"{self._where}: `{name}` has {text!r}, no regular expression: {error}") from error

    def _wrong(self, name: str, value: Any, wanted: str) -> ModelError:
        return ModelError(f"{self._where}: `{name}` is {value!r}, it has to be {wanted}")


def _refuse(raw: Mapping[str, Any], where: str) -> None:
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise Unsupported(f"{where}: adapters of type {kind} are not supported, only LORA", hint=MERGE_HINT)
    for name, what in _REFUSED.items():
        if value := raw.get(name):
            reason = what.format(value=", ".join(map(str, value)) if isinstance(value, list) else value)
            raise Unsupported(f"{where}: {reason}, which is not supported (`{name}`)", hint=MERGE_HINT)
    if (bias := raw.get("bias", "none")) != "none":
        raise Unsupported(f"{where}: it trains biases (`bias` is {bias!r}), which is not supported", hint=MERGE_HINT)
    start = raw.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_REBASING):
        raise Unsupported(
            f"{where}: `init_lora_weights` is {start!r}, which changes the base model as well",
            hint="save it with `path_initial_model_for_weight_conversion`, as PEFT describes",
        )
    for name, value in raw.items():
        if value and name not in _READ and name not in _WITHOUT_EFFECT and name not in _REFUSED:
            raise Unsupported(f"{where}: the setting `{name}` is not supported", hint=MERGE_HINT)


def _names(value: Any) -> tuple[str, ...]:
    return () if not value else (value,) if isinstance(value, str) else tuple(map(str, value))


def _is_named(module: str, wanted: str | Iterable[str]) -> bool:
    """By a regular expression over the whole name, or by one of several endings of it."""
    if isinstance(wanted, str):
        return re.fullmatch(wanted, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in wanted)


def _looked_up(pattern: Mapping[str, float], module: str, otherwise: float) -> float:
    """The entry of the first key that the module's name ends with, as PEFT reads them."""
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return otherwise
