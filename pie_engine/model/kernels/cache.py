"""Where compiled kernels are kept: a folder for this source, this numba and this processor. Imports no numba."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pie_engine.config import cache_folder


def kernel_folder() -> Path:
    """numba itself would notice only an edit of a function, not of what the function is made of."""
    import llvmlite.binding as llvm

    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    setting = f"{version('numba')} {llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
    digest = hashlib.sha256(b"\0".join([*sources, setting.encode()])).hexdigest()[:16]
    return cache_folder() / "kernels" / digest


def are_compiled(kind: str) -> bool:
    """Whether loading them will take a moment rather than half a minute; also where they cannot be compiled at all."""
    try:
        return (kernel_folder() / f"{kind}.complete").exists()
    except (ImportError, PackageNotFoundError):
        return True


def matmul_name(kind: str) -> str:
    """What products with weights of this kind are called here."""
    return f"matmul_{kind}"


def mark_compiled(kind: str) -> None:
    """All for this kind of weights are there."""
    folder = kernel_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kind}.complete").touch()
