"""Compiling the kernels in a process of its own: LLVM keeps some 50 MB of what it has compiled, for good.

python -m pie_engine.model.compile_kernels KV_KIND [WEIGHT_KIND ...]
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence


def compile_apart(kv_kind: str, weight_kinds: Sequence[str]) -> None:
    """Put the kernels for these kinds into the cache. What goes wrong, loading them will meet again.

    `kv_kind` is `bfloat16` or `float32`, `weight_kinds` names of `kernels.kinds.KINDS`.
    """
    command = [sys.executable, "-m", __name__, kv_kind, *weight_kinds]
    # The core's standard input is its tie to the daemon.
    subprocess.run(command, stdin=subprocess.DEVNULL, check=False)


def main() -> None:
    from pie_engine.model.kernels.choose import choose_kernel
    from pie_engine.model.kernels.matmul import matmul_kernel
    from pie_engine.model.kernels.step import step_kernels

    kv_kind, *weight_kinds = sys.argv[1:]
    choose_kernel()
    step_kernels(kv_kind)
    for kind in weight_kinds:
        matmul_kernel(kind)


if __name__ == "__main__":
    main()
