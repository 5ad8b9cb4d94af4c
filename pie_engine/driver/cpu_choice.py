"""How a checkpoint would be loaded on this CPU, and the memory that takes: known from the headers of its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from pie_engine.driver.cpu_tuning import choose_dtype
from pie_engine.hub.memory import Need, available_bytes, check_fits
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.description import Kernels
from pie_engine.model.kernels.support import kv_bytes_per_token
from pie_engine.model.load import choose_kernels
from pie_engine.model.quantization import Quantization


@dataclass(frozen=True)
class Choice:
    """What the settings mean for one checkpoint."""

    checkpoint: Checkpoint
    kernels: Kernels
    dtype: torch.dtype
    quantize: Quantization
    kv_bytes: int

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def need(self, draft_bytes: int = 0) -> Need:
        """Its memory, and that of a draft model beside it."""
        return Need(self._weight_bytes(self.dtype_name, self.quantize), self.kv_bytes, draft_bytes)

    def check_fits(self, draft_bytes: int = 0) -> None:
        """Raises `ModelError` with the numbers when there is not enough memory."""
        label, smaller = str(self.checkpoint.folder), self._smaller()
        check_fits(label, self.need(draft_bytes), available_bytes(), dtype=self.dtype_name, smaller=smaller)

    def _weight_bytes(self, dtype: str, quantize: Quantization) -> int:
        return self.checkpoint.weight_bytes(dtype, quantize, kernels=self.kernels)

    def _smaller(self) -> tuple[str, ...]:
        """Settings with which the weights need less."""
        now = self._weight_bytes(self.dtype_name, self.quantize)
        ways = ['dtype = "bfloat16"'] if self._weight_bytes("bfloat16", self.quantize) < now else []
        bits: tuple[Quantization, ...] = ("int8", "int4")
        fewer = [kind for kind in bits if self._weight_bytes(self.dtype_name, kind) < now]
        return (*ways, *(f'quantize = "{kind}"' for kind in fewer[:1]))


def choose(
    folder: str | Path,
    *,
    dtype: str = "auto",
    page_size: int = 16,
    max_context_tokens: int = 0,
    kv_bytes: int = 0,
    num_pages: int = 0,
    kernels: Literal["auto", "compiled", "torch"] = "auto",
    quantize: Quantization = "none",
) -> Choice:
    """The arguments are those of `CpuDriver.load`, and so are the errors."""
    checkpoint = Checkpoint.open(folder, max_context_tokens=max_context_tokens)
    runner = choose_kernels(kernels, checkpoint.config, page_size, quantize)
    chosen = choose_dtype(dtype, checkpoint, runner)
    name = str(chosen).removeprefix("torch.")
    per_token = kv_bytes_per_token(checkpoint.config, name, page_size, is_compiled=runner == "compiled")
    return Choice(checkpoint, runner, chosen, quantize, num_pages * page_size * per_token or kv_bytes)
