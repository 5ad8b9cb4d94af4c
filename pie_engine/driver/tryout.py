"""Load a model and generate a few tokens greedily: `python -m pie_engine.driver.tryout FOLDER [--max-tokens …]`.

Writes one JSON object: text, num_tokens, dtype, ms_per_token, load_s; or `error`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import msgspec

from pie_engine.driver.base import Row
from pie_engine.driver.cpu import CpuDriver
from pie_engine.errors import ModelError, PieError
from pie_engine.model.chat import ChatTemplate
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.sampling import GREEDY

PROMPT = "Hello! Who are you?"
_PAGE_SIZE = 16


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate a few tokens greedily.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    try:
        said = try_out(options.folder, options.prompt, options.max_tokens, dtype=options.dtype)
    except PieError as error:
        said = {"error": msgspec.to_builtins(error.info)}
    sys.stdout.write(json.dumps(said) + "\n")
    return 1 if "error" in said else 0


def try_out(folder: Path, prompt: str, max_tokens: int, *, dtype: str = "auto") -> dict[str, object]:
    """What the model says to `prompt`. Raises what loading raises, and `ModelError` when it gives no distribution."""
    started = time.perf_counter()
    tokenizer = Tokenizer.load(folder)
    driver = CpuDriver.load(folder, dtype=dtype)
    load_s = time.perf_counter() - started
    tokens = _prompt_tokens(folder, tokenizer, prompt)
    num_pages = -(-(len(tokens) + max_tokens) // _PAGE_SIZE)
    driver.allocate_kv(num_pages)
    said: list[int] = []
    start, started = 0, time.perf_counter()
    for _ in range(max_tokens):
        result = driver.execute([Row(tokens, start, range(num_pages), GREEDY)])[0]
        if result.token is None:
            raise ModelError(result.error.message if result.error else "the model gave no token")
        start, tokens = start + len(tokens), [result.token]
        if result.token in tokenizer.eos_ids:
            break
        said.append(result.token)
    return {
        "text": tokenizer.decode(said, skip_special=True),
        "num_tokens": len(said),
        "dtype": driver.capabilities.dtype,
        "ms_per_token": (time.perf_counter() - started) / max(len(said), 1) * 1e3,
        "load_s": load_s,
    }


def _prompt_tokens(folder: Path, tokenizer: Tokenizer, prompt: str) -> list[int]:
    chat = ChatTemplate.load(folder)
    if not chat.is_present:
        return tokenizer.encode(prompt, add_bos=True) or [0]
    return tokenizer.encode(chat.render([{"role": "user", "content": prompt}]))


if __name__ == "__main__":
    sys.exit(main())
