"""Models that Transformers runs over our pages: what is refused, and what is read off the model. Numbers are in
`test_parity.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from pie_engine.driver.cpu import CpuDriver
from pie_engine.errors import ModelError, PieError, Unsupported
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.load import load_model
from pie_engine.model.span import Span
from tests import models


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_checkpoint(tmp_path_factory.mktemp("gpt2") / "model", "by-transformers-gpt2")


@pytest.fixture(scope="module")
def weights(gpt2: Path) -> bytes:
    return (gpt2 / "model.safetensors").read_bytes()


def refusal(folder: Path, error: type[PieError] = Unsupported) -> str:
    with pytest.raises(error) as refused:
        load_model(Checkpoint.open(folder), torch.float32)
    return f"{refused.value.message} | {refused.value.hint}"


def folder_with(folder: Path, weights: bytes, **config: Any) -> Path:
    (folder / "model.safetensors").write_bytes(weights)
    raw = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "intermediate_size": 96,
        "vocab_size": 320,
        **config,
    }
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def test_sizes_are_the_loaded_models(gpt2: Path) -> None:
    driver = CpuDriver.load(gpt2, dtype="float32", num_threads=1)
    capabilities = driver.capabilities
    assert (capabilities.vocab_size, capabilities.max_context_tokens) == (320, 256)
    assert capabilities.page_bytes == 16 * 2 * 3 * 4 * 16 * 4
    assert Checkpoint.open(gpt2).num_parameters == sum(parameter.numel() for parameter in _parameters(gpt2))


def _parameters(folder: Path) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return list(load_file(folder / "model.safetensors").values())


def test_without_transformers_it_names_the_way_out(gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    says = refusal(gpt2)
    assert "GPT2LMHeadModel is run by Transformers, which is not installed" in says
    assert "pip install transformers; without it: LlamaForCausalLM" in says


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"architectures": ["MambaForCausalLM"], "model_type": "mamba"}, "layers with a recurrent state"),
        ({"architectures": ["KimiLinearForCausalLM"], "model_type": "kimi_linear"}, "layers with a recurrent state"),
        ({"architectures": ["NewForCausalLM"], "model_type": "new"}, "known neither to Pie nor to Transformers"),
        (
            {"architectures": ["NewForCausalLM"], "model_type": "new", "auto_map": {"AutoModel": "new.New"}},
            "Python code of its own, which Pie does not run",
        ),
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "is not a causal language model"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "an encoder and a decoder"),
        ({"architectures": ["NewForCausalLM"], "num_attention_heads": None}, "has no attention heads"),
        (
            {
                "architectures": ["HeliumForCausalLM"],
                "model_type": "helium",
                "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
            },
            "rotary scaling 'dynamic'",
        ),
        (
            {
                "architectures": ["CwmForCausalLM"],
                "model_type": "cwm",
                "layer_types": ["full_attention", "linear_attention"],
            },
            "layers of type 'linear_attention', which keep more than keys and values",
        ),
    ],
)
def test_what_cannot_work(tmp_path: Path, weights: bytes, config: dict[str, Any], says: str) -> None:
    message = refusal(folder_with(tmp_path, weights, **config))
    assert says in message
    assert config["architectures"][0] in message
    assert "config.json" in message


def test_a_configuration_that_transformers_refuses(tmp_path: Path, weights: bytes) -> None:
    config = {"architectures": ["HeliumForCausalLM"], "model_type": "helium", "hidden_act": 7}
    assert "does not take the configuration" in refusal(folder_with(tmp_path, weights, **config), ModelError)


def test_tensors_that_are_missing_or_misshaped(tmp_path: Path, weights: bytes) -> None:
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_positions": 256, "n_layer": 3}
    says = refusal(folder_with(tmp_path, weights, **config, n_head=4, n_embd=64, num_hidden_layers=4), ModelError)
    assert "lacks tensor" in says
    assert "h.3." in says
    says = refusal(folder_with(tmp_path, weights, **config, n_head=4, n_embd=64, n_inner=100), ModelError)
    assert "another shape" in says
    assert "h.0.mlp" in says
    says = refusal(folder_with(tmp_path, weights, **config, n_head=4, n_embd=64, vocab_size=321), ModelError)
    assert "Transformers cannot load GPT2LMHeadModel" in says


def test_attention_that_sees_later_tokens(tmp_path: Path) -> None:
    sizes = {"vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.AutoConfig.for_model("bert", **sizes)
    transformers.BertLMHeadModel(config).save_pretrained(tmp_path)
    assert "BertLMHeadModel computes something else in chunks than as a whole: it sees later tokens" in refusal(
        tmp_path
    )


def test_positions_that_do_not_start_at_0(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Pie gives the positions, so what a model does with its own is compared first."""
    config = transformers.AutoConfig.for_model(
        "roberta", vocab_size=320, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, is_decoder=True
    )
    models.randomize(model := transformers.RobertaForCausalLM(config), gain=1.5)
    model.save_pretrained(tmp_path)
    with caplog.at_level("INFO", logger="pie_engine"):
        says = refusal(tmp_path)
    assert "RobertaForCausalLM computes something else with Pie's attention: it runs with its own" in caplog.text
    assert "RobertaForCausalLM computes something else in chunks" in says
    assert "does not count positions from 0" in says


def test_attention_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where ours cannot stand in for it, the model runs as it is written, one sequence at a time; and says so."""
    with caplog.at_level("INFO", logger="pie_engine"):
        model = load_model(Checkpoint.open(models.write_checkpoint(tmp_path, "mha", model_type="doge")), torch.float32)
    assert "has attention with a mask of its own: it runs with its own attention" in caplog.text
    assert model.config.has_own_attention
    tokens = list(range(3, 40))
    cache, states = model.new_cache(4, 16), torch.zeros(2, 64)
    logits = model.forward([Span(0, 37, 0, [2, 0, 1])], tokens, cache, [4, 36], states)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        theirs = reference(torch.tensor([tokens]), output_hidden_states=True)
    assert float((logits - theirs.logits[0, [4, 36]]).abs().max()) <= 1e-3
    assert float((states - theirs.hidden_states[-1][0, [4, 36]]).abs().max()) <= 1e-3


def test_a_model_that_takes_no_cache(gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

    def fails(*args: Any, **options: Any) -> None:
        raise TypeError("no cache, please")

    monkeypatch.setattr(GPT2LMHeadModel, "_supports_attention_backend", False)
    monkeypatch.setattr(GPT2LMHeadModel, "forward", fails)
    assert "does not run over a cache of keys and values: no cache, please" in refusal(gpt2)
