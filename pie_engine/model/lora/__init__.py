"""LoRA adapters (https://arxiv.org/abs/2106.09685) as PEFT writes them.

settings.py  what the configuration says, and what of it is refused
files.py     a folder: settings, tensor headers and the digest of both files; no torch
layout.py    which projections of a model an adapter changes, checked tensor by tensor
weights.py   the low-rank matrices in memory
batch.py     what the rows of a step add, adapter by adapter
"""
