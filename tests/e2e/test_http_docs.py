"""The examples of docs/http.md, typed one after the other on a daemon of their own, answer what is printed there."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.pages import checked_by

MARK = "===== example ====="
ID = re.compile(r"[0-9a-f]{16,}")

MACHINES_OWN = {
    *("os_pid", "daemon_os_pid", "version", "uptime_s", "time", "created", "ended", "last_event"),
    *("folder", "model_id", "dtype", "num_threads", "vocab_size", "max_context_tokens", "max_top_k", "page_bytes"),
    *("weight_bytes", "kernels", "saved", "bytes", "set_at"),
    *("num_cached_pages", "num_page_hits", "num_page_misses", "num_prefill_tokens"),
    *("num_host_pages", "num_used_host_pages", "num_page_returns"),
    *("num_pages", "num_free_pages", "num_steps", "num_running", "num_warm", "cpu_s", "rss_bytes"),
    *(
        "at",
        "num_sequences",
        "peak_sequences",
        "step_s",
        "gap_s",
        "num_free",
        "num_cached",
        "num_host",
        "num_used_host",
    ),
    *("num_hits", "num_misses", "num_returns", "num_looked_tokens", "errors", "counts", "sum", "made"),
    *("num_launched", "num_queued", "num_returned", "num_failed", "activity"),
}
"""What is another value on another machine or at another time."""


def examples() -> list[tuple[str, str]]:
    """Each example, with what is printed below it (empty: nothing is)."""
    blocks = [(block.language, block.text) for block in checked_by(__file__)]
    following = [*blocks[1:], ("sh", "")]
    return [
        (text, "" if next_kind == "sh" else answer)
        for (kind, text), (next_kind, answer) in zip(blocks, following, strict=True)
        if kind == "sh"
    ]


def documents(text: str) -> list[Any]:
    """JSON documents one after the other, with or without space between."""
    decoder, found, position = json.JSONDecoder(), [], 0
    while position < len(text.rstrip()):
        document, position = decoder.raw_decode(text, position + len(text[position:]) - len(text[position:].lstrip()))
        found.append(document)
    return found


def common(value: Any, key: str = "") -> Any:
    """What must be the same everywhere: of other values only the type."""
    if key in MACHINES_OWN:
        return type(value).__name__
    if isinstance(value, dict):
        return {name: common(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [common(part) for part in value]
    return ID.sub("<id>", value) if isinstance(value, str) else value


def is_json(text: str) -> bool:
    return text.startswith(("{", "["))


def test_the_examples_answer_what_is_printed(fresh: Any, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    needs.program(pytestconfig, "curl", "curl")
    fresh.start()
    shown = examples()
    script = "\n".join(["set -e -o pipefail", *(f"{text}\necho; echo '{MARK}'" for text, _ in shown)])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, **fresh.env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    printed = done.stdout.split(f"\n{MARK}\n")
    assert len(printed) == len(shown) + 1
    for (text, expected), answer in zip(shown, printed, strict=False):
        if is_json(expected):
            assert common(documents(answer)) == common(documents(expected)), text
        else:
            assert ID.sub("<id>", answer.strip()) == ID.sub("<id>", expected.strip()), text
