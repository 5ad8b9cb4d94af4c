"""Batched text generation with a Hugging Face checkpoint: enough for an evaluation, no more."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from pie_engine.model.tiny.chat_format import CONTROL_TOKENS

BATCH_SIZE = 32


@dataclass(frozen=True)
class Completion:
    """What the model wrote, up to the stop string or the end token, and whether it stopped by itself."""

    text: str
    has_ended: bool


@dataclass
class _Answer:
    """The answer of one row while it grows."""

    ids: list[int] = field(default_factory=list)
    text: str = ""
    is_over: bool = False
    has_ended: bool = False


class Generator:
    """A checkpoint that completes prompts, greedily unless a temperature is given."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._control_ids = {self._tokenizer.convert_tokens_to_ids(token) for token in CONTROL_TOKENS}

    def complete(
        self, prompts: list[str], max_tokens: int, *, stop: str | None = None, temperature: float = 0.0
    ) -> list[Completion]:
        """One completion per prompt, in the order of the prompts."""
        by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        found: dict[int, Completion] = {}
        for start in range(0, len(by_length), BATCH_SIZE):
            batch = by_length[start : start + BATCH_SIZE]
            completions = self._complete_batch([prompts[index] for index in batch], max_tokens, stop, temperature)
            found.update(zip(batch, completions, strict=True))
        return [found[index] for index in range(len(prompts))]

    @torch.inference_mode()
    def _complete_batch(
        self, prompts: list[str], max_tokens: int, stop: str | None, temperature: float
    ) -> list[Completion]:
        inputs = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        answers, cache = [_Answer() for _ in prompts], DynamicCache()
        for _ in range(max_tokens):
            logits = self._model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
            ).logits[:, -1]
            ids = _chosen(logits, temperature)
            for answer, token_id in zip(answers, ids.flatten().tolist(), strict=True):
                self._take(answer, token_id, stop)
            if all(answer.is_over for answer in answers):
                break
            mask = torch.cat([mask, torch.ones_like(ids)], dim=-1)
            positions = positions[:, -1:] + 1
        return [Completion(answer.text, answer.has_ended) for answer in answers]

    def _take(self, answer: _Answer, token_id: int, stop: str | None) -> None:
        if answer.is_over:
            return
        if token_id in self._control_ids:
            answer.is_over, answer.has_ended = True, token_id == self._model.config.eos_token_id
            return
        answer.ids.append(token_id)
        answer.text = self._tokenizer.decode(answer.ids)
        if stop and stop in answer.text:
            answer.text = answer.text.split(stop)[0]
            answer.is_over = answer.has_ended = True


def _chosen(logits: Tensor, temperature: float) -> Tensor:
    if not temperature:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial((logits / temperature).softmax(-1), 1)
