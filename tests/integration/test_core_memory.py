"""What a core keeps in memory besides weights and KV, and what it imports for that."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pie_engine.driver import cpu
from pie_engine.driver.cpu import CpuDriver
from pie_engine.hub.places import resolve
from pie_engine.model import compile_kernels

MOST_MIB = 400
CORE = """
import gc, json, os, sys
from pathlib import Path
from pie_engine.config import ModelSection, Paths, cache_folder
from pie_engine.core.process import load_core
from pie_engine.ipc.memory import give_memory_back
from pie_engine.protocol.plan import Plan
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import Append, CreateContext, Generate, OpenProcess

section = ModelSection(path="pie-tiny", num_threads=1, num_pages=200)
core, detail = load_core(section, Paths(Path(sys.argv[1]), cache_folder()), lambda stage: None)
gc.collect()
give_memory_back()
plan = Plan(Sampler(temperature=0.8, top_p=0.9), max_tokens=20, ignore_eos=True)
core.receive("h", [OpenProcess("p", "u"), CreateContext(1, "p", 1), Append(1, list(range(5, 300))), Generate(1, 1, plan)])
while not core.is_idle:
    core.step()
status = Path("/proc/self/statm")
resident = int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0
kv = detail["page_bytes"] * 20
print(json.dumps([resident - detail["weight_bytes"] - kv, sorted(sys.modules)]))
"""
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
def used(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[str]]:
    # The first one may have had to compile.
    CpuDriver.load(resolve("pie-tiny"), num_threads=1)
    ran = subprocess.run(
        [sys.executable, "-c", CORE, str(tmp_path_factory.mktemp("home"))], stdout=subprocess.PIPE, check=True
    )
    resident, modules = json.loads(ran.stdout.splitlines()[-1])
    return resident, modules


def test_all_but_weights_and_kv_stays_below_what_doctor_warns_of(used: tuple[int, list[str]]) -> None:
    assert used[0] < MOST_MIB << 20, f"{used[0] >> 20} MiB"


def test_it_imports_nothing_that_it_does_not_need(used: tuple[int, list[str]]) -> None:
    assert [name for name in NOT_NEEDED if name in used[1]] == []


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
