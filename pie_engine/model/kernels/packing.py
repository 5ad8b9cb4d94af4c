"""Quants into panels of blocks (`blocks`). No numba."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pie_engine.model.kernels.blocks import WIDTH, Blocks
from pie_engine.model.quants import Quants

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def pack(quants: Quants) -> Tensor:
    """Panels, uint8 [panels, bytes of a panel]; the outputs that fill the last one are zeros."""
    blocks = quants.blocks
    panels = torch.zeros(-(-quants.num_outputs // WIDTH), blocks.panel_bytes(quants.num_inputs), dtype=torch.uint8)
    stored = _in_bytes(quants)
    done = dict.fromkeys(stored, 0)
    for views in _views(panels, blocks, quants.num_inputs):
        for name, view in views.items():
            first, count = done[name], view[0, ..., 0].numel()
            _fill(view, stored[name][:, first : first + count])
            done[name] = first + count
    return panels


def _in_bytes(quants: Quants) -> dict[str, Tensor]:
    """The parts as they are stored: [outputs, columns]."""
    numbers = quants.quants.view(torch.uint8)
    parts = {
        "scales": quants.scales,
        "lowest": quants.lowest,
        "scale_factors": quants.scale_factors,
        "lowest_factors": quants.lowest_factors,
        "quants": numbers[:, 0::2] | numbers[:, 1::2] << 4 if quants.blocks.bits == 4 else numbers,
    }
    return {name: part for name, part in parts.items() if part is not None}


def _views(panels: Tensor, blocks: Blocks, num_inputs: int) -> Iterator[dict[str, Tensor]]:
    """Where each part lies: views [panels, ..., 32] of the whole blocks, and of a shorter last one."""
    num_whole, rest = divmod(num_inputs, blocks.inputs)
    if num_whole:
        yield _views_of(panels, blocks, 0, num_whole)
    if rest:
        yield _views_of(panels, replace(blocks, inputs=rest), num_whole * blocks.block_bytes, 1)


def _views_of(panels: Tensor, blocks: Blocks, start: int, num_blocks: int) -> dict[str, Tensor]:
    num_groups = blocks.inputs // blocks.group_inputs if blocks.has_factors else 1
    quants_at = start + blocks.header_bytes + blocks.factor_bytes

    def view(dtype: torch.dtype, at: int, **inner: int) -> Tensor:
        """From byte `at` of a panel; `inner` are counts and the bytes from one to the next, of what a block has."""
        counts, strides = list(inner.values())[0::2], list(inner.values())[1::2]
        size = dtype.itemsize
        return panels.view(dtype).as_strided(
            (len(panels), num_blocks, *counts, WIDTH),
            (panels.shape[1] // size, blocks.block_bytes // size, *strides, 1),
            at // size,
        )

    views = {"scales": view(_DTYPES[blocks.scale], start)}
    if blocks.has_lowest:
        views["lowest"] = view(_DTYPES[blocks.scale], start + blocks.header_bytes // 2)
    groups = {"num_groups": num_groups, "group_bytes": blocks.group_bytes}
    if blocks.has_factors:
        views["scale_factors"] = view(torch.uint8, start + blocks.header_bytes, **groups)
        if blocks.has_lowest:
            views["lowest_factors"] = view(torch.uint8, start + blocks.header_bytes + WIDTH, **groups)
    rows = blocks.quant_bytes(blocks.group_inputs or blocks.inputs) // WIDTH
    views["quants"] = view(torch.uint8, quants_at, **groups, num_rows=rows, row_bytes=WIDTH)
    return views


def _fill(view: Tensor, rows: Tensor) -> None:
    """`rows` [outputs, columns] into a view [panels, ..., 32]."""
    by_output = view.movedim(-1, 1)
    whole, rest = divmod(len(rows), WIDTH)
    rows = rows.view(view.dtype).reshape(-1, *by_output.shape[2:])
    by_output[:whole] = rows[: whole * WIDTH].view(whole, WIDTH, *by_output.shape[2:])
    if rest:
        by_output[whole, :rest] = rows[whole * WIDTH :]
