"""Train pie-tiny from nothing: `python -m pie_engine.model.tiny.train --out DIR --minutes 70`."""

from __future__ import annotations

import argparse
import copy
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from pie_engine.model.tiny import chat_format
from pie_engine.model.tiny.optimizer import optimizers_for
from pie_engine.model.tiny.packing import RowStream
from pie_engine.model.tiny.tokenizer import MAX_POSITIONS, VOCAB_SIZE, save_tokenizer, train_tokenizer

STEP_TOKENS = 4096
SHORT_ROW_TOKENS, LONG_ROW_TOKENS = 512, 1024
LONG_ROWS_EVERY = 4
MATRIX_LR, OTHER_LR = 0.02, 4e-3
WARMUP_STEPS = 60
COOLDOWN_SHARE = 0.4
# Prompt tokens teach the language but are mostly unpredictable: only some of them are looked at, with less weight.
PROMPT_SHARE, PROMPT_WEIGHT = 0.15, 0.5
MAX_GRAD_NORM = 1.0
# What is exported is a running average of the weights over about so many steps: less noise, at any time.
AVERAGE_STEPS = 12
# A step that took longer was paused from outside; the pause is not training time.
MAX_STEP_S = 15.0
LOG_EVERY_STEPS = 20
STATE_FILE = "train_state.pt"
TOKENIZER_FILE = "tokenizer.json"
EXPORTED_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
)


@dataclass
class Progress:
    """How far a training is; survives a restart."""

    seed: int
    steps: int = 0
    trained_s: float = 0.0
    tokens: int = 0


def model_config(tokenizer: Tokenizer) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=MAX_POSITIONS,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        initializer_range=0.02,
        bos_token_id=tokenizer.token_to_id(chat_format.BEGIN),
        eos_token_id=tokenizer.token_to_id(chat_format.END),
        pad_token_id=tokenizer.token_to_id(chat_format.PAD),
    )


def learning_rate_factor(steps: int, share_done: float) -> float:
    """Warm up by steps, stay, then go down linearly with the time left."""
    warmup = min(1.0, (steps + 1) / WARMUP_STEPS)
    cooldown = min(1.0, max(0.02, (1.0 - share_done) / COOLDOWN_SHARE))
    return warmup * cooldown


@dataclass(frozen=True)
class Batch:
    """Packed rows; each token sees and counts its own example only."""

    ids: Tensor
    """`[rows, tokens]`"""
    weights: Tensor
    """Of each token as a target, `[rows, tokens]`."""
    positions: Tensor
    """Within its example, `[rows, tokens]`."""
    mask: Tensor
    """Who sees whom, `[rows, 1, tokens, tokens]`."""


def next_batch(stream: RowStream, steps: int) -> Batch:
    row_tokens = LONG_ROW_TOKENS if steps % LONG_ROWS_EVERY == LONG_ROWS_EVERY - 1 else SHORT_ROW_TOKENS
    rows = stream.rows(STEP_TOKENS // row_tokens, row_tokens)
    ids, is_answer, example = (
        torch.from_numpy(np.stack([getattr(row, name) for row in rows])) for name in ("ids", "is_answer", "example")
    )
    sampled = (torch.rand(ids.shape) < PROMPT_SHARE) & (ids != stream.pad_id)
    starts = torch.searchsorted(example, example)  # where the example of each token begins
    is_same = example[:, :, None] == example[:, None, :]
    return Batch(
        ids,
        torch.where(is_answer, 1.0, PROMPT_WEIGHT * sampled),
        torch.arange(row_tokens) - starts,
        torch.tril(is_same)[:, None],
    )


def weighted_loss(model: LlamaForCausalLM, backbone: Callable[..., Any], batch: Batch) -> Tensor:
    """Mean cross entropy of the next token, computed only where the target's weight is not zero."""
    read = backbone(input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False)
    hidden = read.last_hidden_state[:, :-1]
    targets, weights = batch.ids[:, 1:], batch.weights[:, 1:] * (batch.positions[:, 1:] > 0)
    chosen = weights > 0
    logits = model.lm_head(hidden[chosen])
    losses = functional.cross_entropy(logits, targets[chosen], reduction="none")
    return (losses * weights[chosen]).sum() / weights[chosen].sum()


class Trainer:
    """A model, its optimizers and its data, advanced step by step until the time is over."""

    def __init__(self, out: Path, seed: int, minutes: float, *, resume: bool, compile_model: bool) -> None:
        torch.manual_seed(seed)
        self.out, self.budget_s = out, minutes * 60
        self.progress = Progress(seed)
        known_tokenizer = out / TOKENIZER_FILE
        self.tokenizer = Tokenizer.from_file(str(known_tokenizer)) if resume else train_tokenizer(seed)
        self.model = LlamaForCausalLM(model_config(self.tokenizer))
        self.optimizers = optimizers_for(self.model, MATRIX_LR, OTHER_LR)
        self.base_rates = [group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups]
        self._is_asked_to_stop = False
        self.average = copy.deepcopy(self.model)
        if resume:
            self._resume()
        self.backbone = torch.compile(self.model.model) if compile_model else self.model.model

    def _resume(self) -> None:
        """Go on from the last checkpoint in the output folder; the corpus goes on with examples not seen yet."""
        state = torch.load(self.out / STATE_FILE, weights_only=True)
        self.progress = Progress(**state["progress"])
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def stop_soon(self, *_: object) -> None:
        """Finish the step, save and return from `run`; a signal handler."""
        self._is_asked_to_stop = True

    def run(self, checkpoint_minutes: float) -> None:
        stream = RowStream(self.tokenizer, self.progress.seed + 1000 + self.progress.steps)
        last, saved_at = time.monotonic(), self.progress.trained_s
        running = 0.0
        while self.progress.trained_s < self.budget_s and not self._is_asked_to_stop:
            loss = self._step(stream)
            running = loss if not running else 0.95 * running + 0.05 * loss
            now = time.monotonic()
            self.progress.trained_s += min(now - last, MAX_STEP_S)
            last = now
            if self.progress.steps % LOG_EVERY_STEPS == 0:
                self._log(running)
            if self.progress.trained_s - saved_at >= checkpoint_minutes * 60:
                self.save()
                saved_at = self.progress.trained_s
        self.save()

    def _step(self, stream: RowStream) -> float:
        progress = self.progress
        self._set_learning_rates()
        batch = next_batch(stream, progress.steps)
        loss = weighted_loss(self.model, self.backbone, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._update_average()
        progress.steps += 1
        progress.tokens += batch.ids.numel()
        return loss.item()

    @torch.no_grad()
    def _update_average(self) -> None:
        for mean, param in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(param, 1 / AVERAGE_STEPS)

    def _set_learning_rates(self) -> None:
        factor = learning_rate_factor(self.progress.steps, self.progress.trained_s / self.budget_s)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        for group, base in zip(groups, self.base_rates, strict=True):
            group["lr"] = base * factor

    def _log(self, loss: float) -> None:
        progress = self.progress
        rate = progress.tokens / progress.trained_s
        print(
            f"step {progress.steps}  {progress.trained_s / 60:.1f} min  loss {loss:.3f}  {rate:.0f} tokens/s",
            flush=True,
        )

    def save(self) -> None:
        """Write the resumable state and an exported checkpoint, each complete or not at all."""
        state = {
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        partial = self.out / f"{STATE_FILE}.partial"
        torch.save(state, partial)
        os.replace(partial, self.out / STATE_FILE)
        export(self.average, self.tokenizer, self.out)


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a Hugging Face checkpoint: bf16 weights, configuration and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: param.detach().to(torch.bfloat16).contiguous() for name, param in model.named_parameters()}
    partial = folder / "model.safetensors.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    os.replace(partial, folder / "model.safetensors")
    _write_config(model.config, folder)
    save_tokenizer(tokenizer, folder)


def _write_config(config: LlamaConfig, folder: Path) -> None:
    tokens = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }
    fields = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{key: getattr(config, key) for key in EXPORTED_FIELDS},
        "rope_theta": 10000.0,
        "torch_dtype": "bfloat16",
        **tokens,
    }
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
    generation = tokens | {"do_sample": True, "temperature": 0.7, "top_p": 0.9}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoints; the exported model lies there too"
    )
    parser.add_argument("--minutes", type=float, default=75, help="training time in all, earlier runs counted in")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the folder")
    parser.add_argument("--checkpoint-minutes", type=float, default=5)
    parser.add_argument("--compile", action="store_true", help="compile the model first (needs a C++ compiler)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        arguments.out, arguments.seed, arguments.minutes, resume=arguments.resume, compile_model=arguments.compile
    )
    signal.signal(signal.SIGTERM, trainer.stop_soon)
    trainer.run(arguments.checkpoint_minutes)


if __name__ == "__main__":
    main()
