"""The KV cache of attention in PyTorch: its pages, and the lookups with which decode rows read them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SOFTMAX_WIDTH = 16
"""A multiple of the numbers that a processor adds at once: with so many more of -inf a softmax keeps its bits."""
_NUM_KEPT_TABLES = 8


@dataclass(frozen=True, slots=True)
class HeadShape:
    """What attention needs to know of a model."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    score_softcap: float | None = None
    """Scores x become cap·tanh(x/cap)."""
    has_sinks: bool = False
    """Whether layers come with attention sinks."""

    @property
    def is_plain(self) -> bool:
        """Whether attention is what `scaled_dot_product_attention` computes."""
        return self.score_softcap is None and not self.has_sinks

    @property
    def group(self) -> int:
        """Query heads that share a key-value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_dim


class KvCache:
    """Keys and values of all layers in pages: in fp32 for the attention of this module.

    keys   [layers, pages + 1, kv_heads * head_dim, page_size]  (transposed within the page)
    values [layers, pages + 1, page_size, kv_heads * head_dim]

    The last page is always zero: padding reads it, so that what an earlier owner left in a page, NaN say, can never
    reach another sequence.
    """

    def __init__(
        self, num_layers: int, num_pages: int, page_size: int, shape: HeadShape, dtype: torch.dtype = torch.float32
    ) -> None:
        self.num_pages, self.page_size, self.shape = num_pages, page_size, shape
        self.keys = torch.zeros(num_layers, num_pages + 1, shape.kv_size, page_size, dtype=dtype)
        self.values = torch.zeros(num_layers, num_pages + 1, page_size, shape.kv_size, dtype=dtype)
        self.line_offsets = torch.arange(0, shape.kv_size * page_size, page_size)
        self._tables: OrderedDict[object, DecodeTables] = OrderedDict()
        self._layers = [
            LayerKv(
                keys=self.keys[layer],
                values=self.values[layer],
                key_lines=self.keys[layer].view(-1, page_size),
                value_lines=self.values[layer].view(-1, shape.head_dim),
                flat_keys=self.keys[layer].view(-1),
                value_slots=self.values[layer].view(-1, shape.kv_size),
            )
            for layer in range(num_layers)
        ]

    def layer(self, index: int) -> LayerKv:
        return self._layers[index]

    def decode_tables(self, tables: Sequence[Sequence[int]]) -> DecodeTables:
        """The lookups for these page tables; those of the last steps are kept, since they rarely change."""
        key = tuple(map(tuple, tables))
        found = self._tables.pop(key, None) or DecodeTables(tables, self)
        self._tables[key] = found
        while len(self._tables) > _NUM_KEPT_TABLES:
            self._tables.popitem(last=False)
        return found

    def read_pages(self, page_ids: Sequence[int]) -> dict[str, Tensor]:
        """Copies [pages, layers, …] of the keys and values in these pages."""
        ids = torch.tensor(page_ids, dtype=torch.int64)
        return {
            "keys": self.keys.index_select(1, ids).transpose(0, 1).contiguous(),
            "values": self.values.index_select(1, ids).transpose(0, 1).contiguous(),
        }

    def write_pages(self, page_ids: Sequence[int], pages: Mapping[str, Tensor]) -> None:
        """What `read_pages` gave."""
        ids = torch.tensor(page_ids, dtype=torch.int64)
        self.keys.index_copy_(1, ids, pages["keys"].transpose(0, 1))
        self.values.index_copy_(1, ids, pages["values"].transpose(0, 1))

    def copy_pages(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy pages `(source, destination)` over all layers, in order."""
        for source, destination in pairs:
            self.keys[:, destination] = self.keys[:, source]
            self.values[:, destination] = self.values[:, source]


@dataclass(frozen=True, slots=True)
class LayerKv:
    """One layer's pages, and the same memory in the shapes that reads and writes want."""

    keys: Tensor
    values: Tensor
    key_lines: Tensor
    value_lines: Tensor
    flat_keys: Tensor
    value_slots: Tensor


class DecodeTables:
    """What `embedding_bag` looks up for a list of page tables. It lasts until one of them gets another page."""

    def __init__(self, tables: Sequence[Sequence[int]], cache: KvCache) -> None:
        shape, page_size = cache.shape, cache.page_size
        num_rows, num_pages = len(tables), max(map(len, tables))
        # So that a softmax is the same whatever the length of the other rows.
        num_pages += -num_pages % (SOFTMAX_WIDTH // math.gcd(SOFTMAX_WIDTH, page_size))
        self.num_slots = num_pages * page_size
        self.score_shape = (num_rows, shape.num_heads, self.num_slots)
        self.spread = (num_rows, shape.num_heads, num_pages, shape.head_dim)
        self.weights = torch.empty(self.spread)
        self.flat_weights = self.weights.view(-1)
        padded = [[*table, *[cache.num_pages] * (num_pages - len(table))] for table in tables]
        pages = torch.tensor(padded, dtype=torch.int32)
        heads = (torch.arange(shape.num_heads, dtype=torch.int32) // shape.group)[:, None]
        self.slot = torch.arange(self.num_slots, dtype=torch.int32)

        lines = (pages[:, None] * shape.num_kv_heads + heads) * shape.head_dim
        self.key_ids = (lines[..., None] + torch.arange(shape.head_dim, dtype=torch.int32)).view(-1)
        self.key_bags = torch.arange(0, self.key_ids.numel(), shape.head_dim, dtype=torch.int32)

        slots = pages.repeat_interleave(page_size, -1) * page_size + self.slot % page_size
        self.value_ids = slots[:, None] * shape.num_kv_heads + heads
        self.value_bags = torch.arange(0, self.value_ids.numel(), self.num_slots, dtype=torch.int32)
        self.zero_id = torch.tensor(cache.num_pages * page_size * shape.num_kv_heads, dtype=torch.int32)
