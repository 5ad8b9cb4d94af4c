"""What a core keeps in memory besides weights and KV, and what it imports for that."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pie_cli.checks import memory
from pie_engine.driver import cpu
from pie_engine.driver.cpu import CpuDriver
from pie_engine.hub.places import resolve
from pie_engine.model import compile_kernels

CORE = """
import gc, json, os, sys
from pathlib import Path
from pie_engine.config import ModelSection, Paths, cache_folder
from pie_engine.core.load import load_core
from pie_engine.ipc.memory import give_memory_back, let_go_of_libraries
from pie_engine.protocol.plan import Plan
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import Append, CreateContext, Generate, OpenProcess

section = ModelSection(path="pie-tiny", num_threads=1, num_pages=200)
core, detail = load_core(section, Paths(Path(sys.argv[1]), cache_folder()), lambda stage: None)
gc.collect()
give_memory_back()
let_go_of_libraries()
plan = Plan(Sampler(temperature=0.8, top_p=0.9), max_tokens=20, ignore_eos=True)
core.receive("h", [OpenProcess("p", "u"), CreateContext(1, "p", 1)])
core.receive("h", [Append(1, list(range(5, 300))), Generate(1, 1, plan)])
while not core.is_idle:
    core.step()
print(json.dumps([detail["weight_bytes"], core.kv_regions, sorted(sys.modules)]), flush=True)
sys.stdin.read()
"""
Used = tuple[int, int, list[tuple[int, int]], list[str]]
NOT_NEEDED = (
    "transformers",
    "peft",
    "gguf",
    "huggingface_hub",
    "sentencepiece",
    "torch._dynamo",
    "sympy",
    "scipy",
    "jinja2",
)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Used]:
    """A core that has generated: its pid, and bytes of weights, places of KV and modules as it tells them."""
    command = [sys.executable, "-c", CORE, str(tmp_path_factory.mktemp("home"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield (process.pid, *json.loads(process.stdout.readline()))


def test_all_but_weights_and_kv_stays_below_what_doctor_warns_of(used: Used) -> None:
    pid, weight_bytes, regions, _ = used
    use = memory.MemoryUse.of(pid, weight_bytes, regions)
    assert 0 < use.touched <= use.reserved
    assert use.rest < memory.REST_BYTES, use


def test_it_imports_nothing_that_it_does_not_need(used: Used) -> None:
    assert [name for name in NOT_NEEDED if name in used[3]] == []


def test_kernels_are_compiled_in_a_process_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLVM keeps what it needed for compiling, and the core would keep it, too."""
    commands: list[list[str]] = []
    monkeypatch.setattr(cpu, "are_compiled", lambda kind: False)
    monkeypatch.setattr(compile_kernels.subprocess, "run", lambda command, **_: commands.append(command))
    dtype = CpuDriver.load(resolve("pie-tiny"), num_threads=1, kernels="compiled").capabilities.dtype
    assert [command[1:] for command in commands] == [["-m", "pie_engine.model.compile_kernels", dtype, dtype]]


def test_the_process_of_its_own_leaves_the_kernels_in_the_cache() -> None:
    compile_kernels.compile_apart("float32", ["float32"])
    assert cpu.are_compiled("float32")
    assert cpu.are_compiled(cpu.matmul_name("float32"))
