"""vLLM's OpenAI server, CPU build or GPU build, under the same workloads as pie_bench.py.

    python benches/vllm_bench.py latency --model FOLDER --workload single
    python benches/vllm_bench.py tput --model FOLDER --workload all --json-out vllm.json

Needs the virtual environment `vllm/.venv` below --peers. It runs with prefix caching and its own defaults otherwise,
on two threads' worth of cores or what --num-threads says.

--bind pinned  one OpenMP thread fixed to each core, with Intel's OpenMP and tcmalloc where they are installed
--bind nobind  the system's OpenMP, threads where the scheduler puts them
"""

from __future__ import annotations

import argparse
import glob
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from load import Engine
from openai_stream import CompletionClient
from peer import Peer, dtype_of, main, num_threads_of, python_of, read_config
from server import LOOPBACK, free_port, server

MAX_CONTEXT = 4096
MAX_SEQUENCES = 64
TCMALLOC = "/usr/lib/*/libtcmalloc_minimal.so.4"
PROBE = "import torch, vllm; print(vllm.__version__, 'cuda' if torch.cuda.is_available() else 'cpu', torch.__version__)"


class Vllm(Peer):
    name = "vllm"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--bind", choices=["pinned", "nobind"], default="pinned")

    def missing(self, peers: Path) -> str:
        python = python_of(peers, self.name)
        if not python.is_file():
            return f"{python} is not there"
        probe = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=False)
        if probe.returncode:
            return f"vllm does not import: {probe.stderr.strip().splitlines()[-1]}"
        self.version, self.device, self.torch = probe.stdout.split()[-3:]
        return ""

    @contextmanager
    def serve(self, args: argparse.Namespace, folder: Path) -> Iterator[Engine]:
        port = free_port()
        # Not `vllm serve`: in the CPU wheel it ends at once, its distribution has another name.
        command = [str(python_of(args.peers, self.name)), "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(folder), "--served-model-name", "bench", "--host", LOOPBACK, "--port", str(port)]
        command += ["--dtype", dtype_of(args, folder), "--enable-prefix-caching"]
        command += ["--max-model-len", str(min(MAX_CONTEXT, read_config(folder)["max_position_embeddings"]))]
        command += ["--max-num-seqs", str(MAX_SEQUENCES)]
        if args.max_batch_tokens:
            command += ["--max-num-batched-tokens", str(args.max_batch_tokens)]
        if self.device == "cuda":
            command += ["--kv-cache-memory-bytes", str(args.kv_memory_mb << 20)]
        with server(command, port, self._environment(args), log_file=args.server_log):
            client = CompletionClient(port, "bench", {"top_k": 0})
            yield client
            client.close()

    def _environment(self, args: argparse.Namespace) -> dict[str, str]:
        num_threads = num_threads_of(args)
        shared = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        if self.device == "cuda":
            return shared
        shared |= {
            "VLLM_CPU_KVCACHE_SPACE": str(max(1, args.kv_memory_mb // 1024)),
            "OMP_NUM_THREADS": str(num_threads),
        }
        if args.bind == "nobind":
            return shared | {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        libraries = " ".join(self._preloads(args.peers))
        return shared | {"VLLM_CPU_OMP_THREADS_BIND": f"0-{num_threads - 1}", "LD_PRELOAD": libraries}

    def _preloads(self, peers: Path) -> list[str]:
        openmp = python_of(peers, self.name).parent.parent / "lib" / "libiomp5.so"
        return [*glob.glob(TCMALLOC)[:1], *([str(openmp)] if openmp.is_file() else [])]

    def describe(self, args: argparse.Namespace) -> dict[str, object]:
        settings: dict[str, object] = {"version": self.version, "torch": self.torch, "kv_memory_mb": args.kv_memory_mb}
        if self.device == "cpu":
            preloaded = [Path(path).name for path in self._preloads(args.peers)] if args.bind == "pinned" else []
            settings |= {"bind": args.bind, "preloaded": preloaded}
        return settings


if __name__ == "__main__":
    main(Vllm(), __doc__)
