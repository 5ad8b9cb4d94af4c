"""What `config.json` says about a model, checked and in one spelling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pie_engine.errors import ModelError, Unsupported
from pie_engine.model.description import ModelConfig
from pie_engine.model.families import FAMILIES, QUANTIZED, other
from pie_engine.model.fields import Fields, token_ids


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder; raises `ModelError` that names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} has no {path.name}", hint=_hint_for(path.parent)) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} is not readable JSON: {error}", hint="download the model again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds {type(value).__name__}, not a JSON object", hint="download the model again")
    return value


def read_config(folder: Path, max_context_tokens: int = 0) -> ModelConfig:
    """`config.json` and `generation_config.json` of a model folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no config.json", hint=_hint_for(folder))
    raw, eos_ids = read_json(path), read_eos_ids(folder)
    return parse_config(raw, eos_ids=eos_ids, where=str(path), max_context_tokens=max_context_tokens)


def read_eos_ids(folder: Path) -> tuple[int, ...]:
    """The end-of-sequence ids: `generation_config.json` where it has them, `config.json` otherwise."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.is_file() and (ids := token_ids(read_json(path).get("eos_token_id"), str(path))):
            return ids
    return ()


def parse_config(
    raw: Mapping[str, Any], *, eos_ids: tuple[int, ...], where: str = "config.json", max_context_tokens: int = 0
) -> ModelConfig:
    """The checked configuration; raises `Unsupported` or `ModelError` naming the field.

    `max_context_tokens` is the longest context that will be asked for; 0: the model's own.
    """
    describe = FAMILIES.get(_architecture(raw, where), other.describe)
    _refuse_quantized(raw, where)
    config = replace(describe(Fields(raw, where, max_context_tokens)), eos_ids=eos_ids)
    if config.num_heads % config.num_kv_heads:
        raise ModelError(
            f"{where}: {config.num_heads} attention heads cannot share {config.num_kv_heads} key-value heads evenly"
        )
    return config


def _architecture(raw: Mapping[str, Any], where: str) -> str:
    names = raw.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise ModelError(f"{where} names no architecture", hint="`architectures` should hold one model class name")
    return names[0]


def _refuse_quantized(raw: Mapping[str, Any], where: str) -> None:
    quantization = raw.get("quantization_config")
    if quantization:
        architecture = raw["architectures"][0]
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, Mapping) else quantization
        if QUANTIZED.get(architecture) == method:
            return
        raise Unsupported(
            f"{where}: weights quantized with {method!r} are not supported",
            hint="use the checkpoint in float32, bfloat16 or float16",
        )


def _hint_for(folder: Path) -> str:
    if any(folder.glob("*.gguf")):
        return "name the GGUF file itself"
    return "give the folder of a Hugging Face checkpoint, or a model id that is in the local cache"
