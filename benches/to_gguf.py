"""llama.cpp's converter, for tokenizers that it does not know as well.

    python benches/to_gguf.py LLAMA_CPP_FOLDER CHECKPOINT [the converter's own options]

The converter refuses a byte-level tokenizer whose way of splitting text it cannot name. The benches send token ids, so
no text is split: such a one is written down as GPT-2's.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    source, sys.argv[1:] = Path(sys.argv[1]), sys.argv[2:]
    sys.path[:0] = [str(source), str(source / "gguf-py")]
    from conversion.base import TextModel

    known = TextModel.get_vocab_base_pre

    def known_or_gpt2(model: Any, tokenizer: Any) -> str:
        try:
            return known(model, tokenizer)
        except NotImplementedError:
            return "gpt-2"

    TextModel.get_vocab_base_pre = known_or_gpt2
    runpy.run_path(str(source / "convert_hf_to_gguf.py"), run_name="__main__")


if __name__ == "__main__":
    main()
