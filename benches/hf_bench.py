"""Hugging Face Transformers' continuous batching, in this process, under the same workloads as pie_bench.py.

    python benches/hf_bench.py latency --model FOLDER --workload single
    python benches/hf_bench.py tput --model FOLDER --workload all --json-out hf.json

Run it with a Python that has `transformers` and `torch`; compare.py takes that of `hf/.venv` below --peers, if it is
there. In process and not through `transformers serve`, because that server takes no token ids and refuses `ignore_eos`:
so it pays for no HTTP and no detokenizing, which favours it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from common import BenchError
from load import Engine
from peer import Peer, dtype_of, main, num_threads_of, python_of
from workloads import Request

NO_EOS = -1
PAGE_TOKENS = 256
"""The library's default."""
CONTEXT_TOKENS = 32768
"""Of all requests together. More would cost: its attention masks are as wide as the whole cache."""


class Transformers(Peer):
    name = "hf"

    def python(self, peers: Path) -> Path:
        own = python_of(peers, self.name)
        return own if own.is_file() else super().python(peers)

    def missing(self, peers: Path) -> str:
        if self.python(peers) != Path(sys.executable):
            return ""
        absent = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
        return f"this Python has no {' and no '.join(absent)}" if absent else ""

    @contextmanager
    def serve(self, args: argparse.Namespace, folder: Path) -> Iterator[Engine]:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(num_threads_of(args))
        dtype = dtype_of(args, folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa")
        engine = Batching(model.eval(), args.max_batch_tokens or None)
        yield engine
        engine.stop()

    def describe(self, args: argparse.Namespace) -> dict[str, object]:
        import torch
        import transformers

        return {
            "version": transformers.__version__,
            "torch": torch.__version__,
            "mode": "continuous batching in process",
            "context_tokens": CONTEXT_TOKENS,
        }


class Batching:
    """The library's manager. Sampling and forks belong to all of it, so another kind of request starts a new one."""

    def __init__(self, model: Any, max_batch_tokens: int | None) -> None:
        self._model = model
        self._max_batch_tokens = max_batch_tokens
        self._manager: Any = None
        self._kind: tuple[float, float, int] | None = None
        self._ids = count()

    async def stream(self, request: Request) -> AsyncIterator[tuple[int, int]]:
        manager = self._manager_for(request)
        arrived: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        name = f"r{next(self._ids)}"
        names = [name, *(f"{name}__child#{index}" for index in range(request.num_forks - 1))]
        for index, each in enumerate(names):
            manager.register_result_handler(each, lambda output, index=index: arrived.put_nowait((index, output)))
        manager.add_request(
            request.prompt, request_id=name, max_new_tokens=request.output_len, streaming=True, eos_token_id=NO_EOS
        )
        seen = [0] * request.num_forks
        while min(seen) < request.output_len:
            index, output = await arrived.get()
            if output.error:
                raise BenchError(f"transformers: {output.error}")
            num_tokens = len(output.generated_tokens)
            yield index, num_tokens - seen[index]
            seen[index] = num_tokens

    def stop(self) -> None:
        if self._manager is not None:
            self._manager.stop(block=True)
            self._manager = None
            gc.collect()

    def _manager_for(self, request: Request) -> Any:
        kind = (request.temperature, request.top_p, request.num_forks)
        if self._kind != kind:
            self.stop()
            self._manager, self._kind = self._start(request), kind
        return self._manager

    def _start(self, request: Request) -> Any:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        sampling = (
            {"temperature": request.temperature, "top_p": request.top_p, "top_k": 0} if request.temperature else {}
        )
        manager = self._model.init_continuous_batching(
            GenerationConfig(
                do_sample=bool(request.temperature),
                num_return_sequences=request.num_forks,
                eos_token_id=NO_EOS,
                pad_token_id=0,
                **sampling,
            ),
            ContinuousBatchingConfig(
                page_size=PAGE_TOKENS,
                num_blocks=CONTEXT_TOKENS // PAGE_TOKENS,
                max_batch_tokens=self._max_batch_tokens,
                allow_block_sharing=True,
                seed=request.seed,
            ),
        )
        manager.start()
        return manager


if __name__ == "__main__":
    main(Transformers(), __doc__)
