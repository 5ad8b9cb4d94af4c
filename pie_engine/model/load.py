"""From a checkpoint to a model that runs."""

from __future__ import annotations

import logging
from typing import Literal

import torch

from pie_engine.errors import Unsupported
from pie_engine.model.base import Model
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.decoder import Decoder
from pie_engine.model.description import Kernels, ModelConfig
from pie_engine.model.kernels.support import why_not
from pie_engine.model.quantization import Quantization

log = logging.getLogger(__name__)


def choose_kernels(
    asked: Literal["auto", "compiled", "torch"], config: ModelConfig, page_size: int, quantize: Quantization = "none"
) -> Kernels:
    """`auto`: compiled where they can run this model. Raises `Unsupported` when they are asked for and cannot."""
    if asked == "torch":
        return "torch"
    obstacle = _obstacle(config, page_size, quantize)
    if obstacle is None:
        return "compiled"
    if asked == "compiled":
        raise Unsupported(f"the compiled kernels cannot run this model: {obstacle}", hint="use kernels `auto`")
    log.info("torch runs this model, because for compiled kernels %s", obstacle)
    return "torch"


def load_model(
    checkpoint: Checkpoint, dtype: torch.dtype, kernels: Kernels = "torch", quantize: Quantization = "none"
) -> Model:
    """The checkpoint's weights in memory, ready to run; raises `ModelError` or `Unsupported`."""
    config = checkpoint.config
    is_stacked = config.experts is not None and config.experts.is_stacked
    if quantize != "none" and (config.needs_transformers or is_stacked):
        raise Unsupported(f"weights of {config.architecture} cannot be quantized on load", hint="leave `quantize` out")
    if checkpoint.config.needs_transformers:
        from pie_engine.model.transformers_model import load_transformers_model

        return load_transformers_model(checkpoint, dtype)
    if kernels == "torch":
        return Decoder(checkpoint, dtype, quantize)
    from pie_engine.model.compiled import CompiledDecoder

    return CompiledDecoder(checkpoint, dtype, quantize=quantize)


def _obstacle(config: ModelConfig, page_size: int, quantize: Quantization) -> str | None:
    obstacle = why_not(config, page_size, quantize)
    if obstacle is None:
        try:
            from pie_engine.model import compiled  # noqa: F401
        except ImportError as error:
            return f"numba does not work here ({error})"
    return obstacle
