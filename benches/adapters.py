"""What LoRA adapters cost a step: `python benches/adapters.py [--shape 135m] [--rank 16]`.

CPU time of decode steps of 16 rows and of a prefill: with no adapter loaded, with 16 loaded that nobody uses, with one
in all rows, and with another one in each row. The shortest of many runs, taken in turns. Adapters are random, on all
projections.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.make_checkpoint import SHAPES, write_checkpoint
from pie_engine.driver.base import Row
from pie_engine.driver.cpu import CpuDriver
from pie_engine.model.lora.files import AdapterFiles
from pie_engine.protocol.sampling import GREEDY

NUM_ROWS = 16
CONTEXT = 128
PREFILL_TOKENS = 512


def write_adapter(folder: Path, config: dict[str, object], rank: int, seed: int) -> AdapterFiles:
    """Random, on all projections of a Llama."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    hidden, inner = int(str(config["hidden_size"])), int(str(config["intermediate_size"]))
    head_dim = hidden // int(str(config["num_attention_heads"]))
    key_value = int(str(config["num_key_value_heads"])) * head_dim
    sizes = {
        "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (hidden, key_value),
        "self_attn.v_proj": (hidden, key_value), "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (hidden, inner), "mlp.up_proj": (hidden, inner), "mlp.down_proj": (inner, hidden),
    }  # fmt: skip
    tensors = {}
    for layer in range(int(str(config["num_hidden_layers"]))):
        for module, (inputs, outputs) in sizes.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator).bfloat16() / inputs**0.5
            tensors[f"{name}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator).bfloat16() / 100
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": "all-linear"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return AdapterFiles.open(folder)


def decode_rows(adapters: list[str]) -> list[Row]:
    per_row = -(-CONTEXT // 16)
    return [
        Row([5], CONTEXT - 1, range(row * per_row, (row + 1) * per_row), GREEDY, adapter=adapter)
        for row, adapter in enumerate(adapters)
    ]


def prefill_row(adapter: str) -> list[Row]:
    return [Row([5] * PREFILL_TOKENS, 0, range(PREFILL_TOKENS // 16), GREEDY, adapter=adapter)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what LoRA adapters cost a step on this CPU.")
    parser.add_argument("--shape", default="135m", choices=list(SHAPES))
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--kernels", default="auto", choices=["auto", "compiled", "torch"])
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="pie-lora-bench-") as name:
        folder = write_checkpoint(Path(name) / "model", options.shape)
        config = json.loads((folder / "config.json").read_text())
        drivers = [CpuDriver.load(folder, dtype="bfloat16", num_threads=1, kernels=options.kernels) for _ in range(2)]
        for driver in drivers:
            driver.allocate_kv(NUM_ROWS * CONTEXT // 16 + PREFILL_TOKENS // 16)
        plain, loaded = drivers
        files = [write_adapter(Path(name) / str(seed), config, options.rank, seed) for seed in range(NUM_ROWS)]
        for adapter in files:
            loaded.load_adapter(adapter)
        ids = [adapter.adapter_id for adapter in files]
        cases: dict[str, tuple[CpuDriver, list[Row]]] = {
            f"decode, {NUM_ROWS} rows, no adapter loaded": (plain, decode_rows([""] * NUM_ROWS)),
            f"decode, {NUM_ROWS} rows, {NUM_ROWS} loaded, none used": (loaded, decode_rows([""] * NUM_ROWS)),
            f"decode, {NUM_ROWS} rows, one adapter in all": (loaded, decode_rows(ids[:1] * NUM_ROWS)),
            f"decode, {NUM_ROWS} rows, {NUM_ROWS} adapters": (loaded, decode_rows(ids)),
            f"prefill, {PREFILL_TOKENS} tokens, no adapter": (plain, prefill_row("")),
            f"prefill, {PREFILL_TOKENS} tokens, an adapter": (loaded, prefill_row(ids[0])),
        }
        times = {case: float("inf") for case in cases}
        for _ in range(options.rounds):
            for case, (driver, rows) in cases.items():
                times[case] = min(times[case], cpu_ms(functools.partial(driver.execute, rows)))
        size = loaded.adapter_bytes(files[0]) / 2**20
        what = f"{options.shape}, bfloat16, {loaded.capabilities.kernels} kernels, one thread"
        sys.stdout.write(f"{what}; adapters of rank {options.rank}, {size:.1f} MiB each\n")
        for case, ms in times.items():
            first = next(other for name, other in times.items() if name[:6] == case[:6])
            sys.stdout.write(f"{case:45} {ms:8.2f} ms  {ms / first:5.2f}\n")


def cpu_ms(step: Callable[[], object]) -> float:
    start = time.thread_time()
    step()
    return (time.thread_time() - start) * 1e3


if __name__ == "__main__":
    main()
