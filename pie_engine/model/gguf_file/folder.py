"""A GGUF file as a model folder: its metadata in Hugging Face files, its weights where they are.

The folder is made once per file, in the cache; it holds `gguf.json`, which says where in the file each tensor lies.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pie_engine.model.config import parse_config
from pie_engine.model.gguf_file.config import eos_ids, hf_config
from pie_engine.model.gguf_file.header import Header, read_header
from pie_engine.model.gguf_file.index import INDEX
from pie_engine.model.gguf_file.tensors import table
from pie_engine.model.gguf_file.tokenizer import hf_tokenizer, special_tokens
from pie_engine.model.tensors import expected_tensors

_VERSION = 2
"""Of what is written; another one makes the folder anew."""


def folder_for(path: Path, cache: Path) -> Path:
    """The folder of the GGUF file `path`, below `cache`. Raises `ModelError` or `Unsupported`."""
    status = path.stat()
    key = f"{_VERSION}\0{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}"
    folder = cache / "gguf" / f"{path.stem}-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"
    if not (folder / INDEX).is_file():
        _make(folder, read_header(path.absolute()))
    return folder


def _make(folder: Path, header: Header) -> None:
    """All of it or nothing, also when two do it at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        _write(temporary, header)
        os.replace(temporary, folder)
    except OSError:
        if not (folder / INDEX).is_file():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, header: Header) -> None:
    raw = hf_config(header)
    config = parse_config(raw, eos_ids=tuple(eos_ids(header)), where=str(header.path))
    tensors = table(header, expected_tensors(config))
    special: dict[str, Any] = dict(special_tokens(header))
    if template := header.metadata.get("tokenizer.chat_template"):
        special["chat_template"] = template
    hf_tokenizer(header).save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", special)
    _write_json(folder / "config.json", raw)
    size = header.path.stat().st_size
    _write_json(folder / INDEX, {"file": str(header.path), "size": size, "tensors": tensors})


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, default=float), "utf-8")
