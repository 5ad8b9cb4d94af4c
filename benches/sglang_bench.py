"""SGLang's server under the same workloads as pie_bench.py. It needs an NVIDIA or AMD GPU.

    python benches/sglang_bench.py latency --model FOLDER --workload single
    python benches/sglang_bench.py tput --model FOLDER --workload all --json-out sglang.json

Needs the virtual environment `sglang/.venv` below --peers. It runs with its radix cache and its own defaults otherwise.
Options: https://docs.sglang.io/docs/advanced_features/server_arguments
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from load import Engine
from openai_stream import CompletionClient
from peer import Peer, dtype_of, main, python_of, read_config
from server import LOOPBACK, free_port, server

MAX_CONTEXT = 4096
MAX_RUNNING = 64
CONTEXT_TOKENS = 32768
"""Of all requests together; more than any workload has in flight."""
PROBE = "import torch, sglang; print(sglang.__version__, torch.cuda.is_available(), torch.__version__)"


class Sglang(Peer):
    name = "sglang"
    device = "cuda"

    def missing(self, peers: Path) -> str:
        python = python_of(peers, self.name)
        if not python.is_file():
            return f"{python} is not there"
        probe = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=False)
        if probe.returncode:
            return f"sglang does not import: {probe.stderr.strip().splitlines()[-1]}"
        self.version, has_gpu, self.torch = probe.stdout.split()[-3:]
        return "" if has_gpu == "True" else "sglang needs a GPU, and torch sees none on this machine"

    @contextmanager
    def serve(self, args: argparse.Namespace, folder: Path) -> Iterator[Engine]:
        port = free_port()
        command = [str(python_of(args.peers, self.name)), "-m", "sglang.launch_server"]
        command += ["--model-path", str(folder), "--served-model-name", "bench"]
        command += ["--host", LOOPBACK, "--port", str(port)]
        command += ["--dtype", dtype_of(args, folder), "--max-running-requests", str(MAX_RUNNING)]
        command += ["--context-length", str(min(MAX_CONTEXT, read_config(folder)["max_position_embeddings"]))]
        command += ["--max-total-tokens", str(CONTEXT_TOKENS)]
        if args.max_batch_tokens:
            command += ["--chunked-prefill-size", str(args.max_batch_tokens)]
        with server(command, port, {"HF_HUB_OFFLINE": "1"}, log_file=args.server_log):
            client = CompletionClient(port, "bench", {"top_k": -1})
            yield client
            client.close()

    def describe(self, args: argparse.Namespace) -> dict[str, object]:
        return {"version": self.version, "torch": self.torch, "context_tokens": CONTEXT_TOKENS}


if __name__ == "__main__":
    main(Sglang(), __doc__)
