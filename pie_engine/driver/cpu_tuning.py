"""Choices that depend on the machine, made once at load: dtype by what the CPU has, thread count by measuring."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping

import torch

from pie_engine.errors import Unsupported
from pie_engine.hub.memory import available_bytes
from pie_engine.model.base import Model
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.description import Kernels
from pie_engine.model.span import Span

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_MIN_SPEEDUP = 1.15
"""What all cores must gain over one to be worth taking them from the other processes."""
_BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")
_FAST_STEP_S = 0.006
"""A model that decodes in less than this stays on one core unmeasured: threads could only wait for one another."""
_MEASURE_S = 0.05
"""Roughly how long one measurement may take."""


def choose_dtype(name: str, checkpoint: Checkpoint, kernels: Kernels = "torch") -> torch.dtype:
    """The dtype of the weights. `auto`: the checkpoint's where it is fast, which for torch depends on the CPU.

    A half-precision checkpoint that would have to be converted to fp32 becomes bf16 if it is too big for that.
    """
    if name != "auto":
        if name not in DTYPES:
            raise Unsupported(f"the cpu driver has no dtype {name!r}", hint=f"supported: auto, {', '.join(DTYPES)}")
        return DTYPES[name]
    if checkpoint.config.dtype == "float32":
        return torch.float32
    if kernels == "compiled" and checkpoint.config.dtype == "bfloat16":
        return torch.bfloat16
    if checkpoint.weight_bytes("float32", kernels=kernels) > available_bytes() * 0.8:
        log.info("bfloat16, because the weights do not fit into memory in float32")
        return torch.bfloat16
    is_fast = kernels == "torch" and has_fast_bf16(torch.cpu.get_capabilities())
    best = torch.bfloat16 if is_fast else torch.float32
    log.info("%s: what this CPU multiplies fast", best)
    return best


def has_fast_bf16(capabilities: Mapping[str, object]) -> bool:
    """Whether the CPU has instructions for it. Asked, not timed: a busy machine must not change a model's numbers."""
    return any(capabilities.get(name) for name in _BF16_INSTRUCTIONS)


def choose_num_threads(num_threads: int, model: Model) -> int:
    """Set and return the model's thread count; 0 measures a decode step with one thread and with all cores.

    Measured while other processes are busy, all cores lose, and rightly so: their threads would wait for each other.
    """
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_threads == 0 and num_cores > 1:
        single = _decode_s(model, 1)
        many = _decode_s(model, num_cores) if single > _FAST_STEP_S else single
        num_threads = num_cores if single > _MIN_SPEEDUP * many else 1
        log.info("decode step: %.2f ms with 1 thread, %.2f ms with %d", single * 1e3, many * 1e3, num_cores)
    model.set_num_threads(max(num_threads, 1))
    return max(num_threads, 1)


def _decode_s(model: Model, num_threads: int) -> float:
    model.set_num_threads(num_threads)
    cache = model.new_cache(num_pages=1, page_size=16)
    return _best_s(lambda: model.forward([Span(0, 1, 0, [0])], [0], cache, [0]))


def _best_s(step: Callable[[], object]) -> float:
    """The shortest of several runs after a first one that does not count."""
    step()
    times: list[float] = []
    while not times or sum(times) < _MEASURE_S:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)
