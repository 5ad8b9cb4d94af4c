"""llama.cpp's server under the same workloads as pie_bench.py.

    python benches/llamacpp_bench.py latency --model FOLDER --workload single
    python benches/llamacpp_bench.py tput --model FOLDER --workload all --json-out llamacpp.json

Needs a built source tree, `llamacpp/llama.cpp` with `build/bin/llama-server` below --peers. A checkpoint is turned into
a GGUF file of the asked dtype by llama.cpp's own converter, once, and kept beside the build.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from load import Engine
from openai_stream import CompletionClient
from peer import Peer, dtype_of, main, num_threads_of
from server import LOOPBACK, free_port, server

NUM_SLOTS = 16
CONTEXT_TOKENS = 32768
"""Shared by all slots; more than any workload has in flight."""
CONVERTER = Path(__file__).parent / "to_gguf.py"
OUT_TYPES = {"bfloat16": "bf16", "float32": "f32", "float16": "f16"}
NO_OTHER_SAMPLERS = {"top_k": 0, "min_p": 0.0}


class LlamaCpp(Peer):
    name = "llamacpp"

    def missing(self, peers: Path) -> str:
        if not (binary := _binary(peers)).is_file():
            return f"{binary} is not there"
        told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
        found = re.search(r"version: (.+)", told.stdout + told.stderr)
        self.version = found.group(1) if found else "unknown"
        return ""

    @contextmanager
    def serve(self, args: argparse.Namespace, folder: Path) -> Iterator[Engine]:
        port, threads = free_port(), str(num_threads_of(args))
        model = self._converted(args.peers, folder, dtype_of(args, folder))
        command = [str(_binary(args.peers)), "-m", str(model), "--host", LOOPBACK, "--port", str(port)]
        command += ["-t", threads, "-tb", threads, "-np", str(NUM_SLOTS), "-c", str(CONTEXT_TOKENS), "--kv-unified"]
        if args.max_batch_tokens:
            command += ["-b", str(args.max_batch_tokens), "-ub", str(args.max_batch_tokens)]
        with server(command, port, log_file=args.server_log):
            client = CompletionClient(port, "bench", {"timings_per_token": True, **NO_OTHER_SAMPLERS})
            yield client
            client.close()

    def _converted(self, peers: Path, folder: Path, dtype: str) -> Path:
        """The checkpoint as GGUF; made again when its files have changed."""
        stamp = f"{folder} {[(path.name, path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]} {dtype}"
        target = peers / self.name / "models" / f"{folder.name}-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}.gguf"
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(".partial")
            command = [sys.executable, CONVERTER, _source(peers), folder, "--outtype", OUT_TYPES[dtype]]
            done = subprocess.run([*command, "--outfile", partial], capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"llama.cpp's converter failed:\n{done.stderr[-2000:]}")
            partial.rename(target)
        return target

    def describe(self, args: argparse.Namespace) -> dict[str, object]:
        return {"version": self.version, "slots": NUM_SLOTS, "context_tokens": CONTEXT_TOKENS}


def _source(peers: Path) -> Path:
    return peers / "llamacpp" / "llama.cpp"


def _binary(peers: Path) -> Path:
    return _source(peers) / "build" / "bin" / "llama-server"


if __name__ == "__main__":
    main(LlamaCpp(), __doc__)
