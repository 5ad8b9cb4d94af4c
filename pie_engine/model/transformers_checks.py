"""What a model of Transformers has to be before Pie can run it, checked before its weights are read."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from pie_engine.errors import ModelError, Unsupported
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.config import read_json
from pie_engine.model.families import FAMILIES

HINT = "docs/models.md says what runs"
_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
_WITH_KEYS_AND_VALUES = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers that keep nothing else."""


def library_for(checkpoint: Checkpoint) -> ModuleType:
    """The library, which Pie needs for such models only."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise Unsupported(
            f"{where(checkpoint)} is run by Transformers, which is not installed",
            hint=f"pip install transformers; without it: {', '.join(FAMILIES)}",
        ) from error


def model_class(checkpoint: Checkpoint) -> Any:
    """The class that `architectures` names."""
    library, name = library_for(checkpoint), checkpoint.config.architecture
    names = importlib.import_module("transformers.models.auto.modeling_auto")
    if getattr(library, name, None) is None:
        if "auto_map" in read_json(checkpoint.folder / "config.json"):
            what = "comes with Python code of its own, which Pie does not run"
        else:
            what = f"is known neither to Pie nor to Transformers {library.__version__}"
        raise Unsupported(f"{where(checkpoint)} {what}", hint=HINT)
    if name not in names.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        raise Unsupported(f"{where(checkpoint)} is not a causal language model", hint=HINT)
    return getattr(library, name)


def refuse_what_cannot_work(checkpoint: Checkpoint, model: Any) -> Any:
    """The configuration as Transformers reads it; raises `Unsupported` for what KV pages cannot hold."""
    at = where(checkpoint)
    if model._is_stateful:
        raise Unsupported(f"{at} has layers with a recurrent state, which KV pages cannot hold", hint=HINT)
    try:
        config = model.config_class.from_pretrained(checkpoint.folder, local_files_only=True)
    except Exception as error:  # whatever the class checks: it is the file that is wrong
        raise ModelError(f"{at}: Transformers does not take the configuration: {error}") from error
    if config.is_encoder_decoder:
        raise Unsupported(f"{at} has an encoder and a decoder", hint=HINT)
    raw = config.to_dict()
    for kind in sorted(set(raw.get("layer_types") or ()) - _WITH_KEYS_AND_VALUES):
        raise Unsupported(f"{at} has layers of type {kind!r}, which keep more than keys and values", hint=HINT)
    for kind in _rope_types(raw):
        if kind in _LENGTH_DEPENDENT_ROPE:
            raise Unsupported(
                f"{at} has rotary scaling {kind!r}, which Transformers applies by the longest sequence of a batch",
                hint=HINT,
            )
    return config


def can_replace_attention(model: Any, config: Any) -> bool:
    """Whether the model calls an attention function of ours with all that this has to know."""
    raw = config.to_dict()
    is_plain = not raw.get("num_kv_shared_layers") and "chunked_attention" not in (raw.get("layer_types") or ())
    return bool(model._supports_attention_backend) and is_plain


def _rope_types(raw: Mapping[str, Any]) -> Iterator[str]:
    """Of the model, or of each kind of layer."""
    scaling = raw.get("rope_parameters") or {}
    for value in (scaling, *scaling.values()):
        if isinstance(value, Mapping):
            yield str(value.get("rope_type"))


def where(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.folder / 'config.json'}: {checkpoint.config.architecture}"
