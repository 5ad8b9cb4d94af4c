"""From a checkpoint to a model that runs."""

from __future__ import annotations

import torch

from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.decoder import Decoder


def load_model(checkpoint: Checkpoint, dtype: torch.dtype) -> Decoder:
    """The checkpoint's weights in memory, ready to run."""
    return Decoder(checkpoint, dtype)
