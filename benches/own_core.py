"""What the benches of a core in their own process share: the options of its model, and the driver."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pie_engine.config import ModelSection
from pie_engine.driver.base import Driver
from pie_engine.driver.create import load_driver
from pie_engine.hub.places import resolve


def add_model_options(parser: argparse.ArgumentParser, *, num_threads: int) -> None:
    parser.add_argument("--model", default="pie-tiny", help="a folder, a hub id in the local cache, or pie-tiny")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--num-threads", type=int, default=num_threads)


def section_of(args: argparse.Namespace, **settings: Any) -> ModelSection:
    """The model that these options ask for."""
    path = Path(args.model)
    where = str(path.resolve()) if path.is_dir() else args.model
    return ModelSection(path=where, name=path.name, dtype=args.dtype, num_threads=args.num_threads, **settings)


def driver_of(section: ModelSection, **settings: Any) -> Driver:
    """The model on its driver."""
    return load_driver(
        section.driver,
        resolve(section.path),
        dtype=section.dtype,
        kernels=section.kernels,
        num_threads=section.num_threads,
        deterministic=section.deterministic,
        page_size=section.page_size,
        **settings,
    )
