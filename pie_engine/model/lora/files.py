"""An adapter as files: found, checked as far as they go without a model, and named by their content. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from pie_engine.errors import ModelError, NotFound, Unsupported
from pie_engine.model.checkpoint import TensorInfo, read_header
from pie_engine.model.config import read_json
from pie_engine.model.lora.settings import LoraSettings

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """A folder with an adapter as PEFT's `save_pretrained` writes it."""

    folder: Path
    settings: LoraSettings
    tensors: Mapping[str, TensorInfo]
    adapter_id: str
    """Hex digest of both files, whole: what it computes depends on nothing else but the base model."""

    @classmethod
    def open(cls, folder: str | Path) -> AdapterFiles:
        """Raises `NotFound`, `ModelError` or `Unsupported`, each naming the file."""
        folder = Path(folder).expanduser()
        if not folder.is_dir():
            raise NotFound(f"adapter folder {folder} does not exist", hint="give the folder that PEFT has written")
        config, weights = folder / CONFIG, folder / WEIGHTS
        if not config.is_file():
            is_model = (folder / "config.json").is_file()
            hint = "it holds a model: load it as one" if is_model else "give the folder that PEFT has written"
            raise ModelError(f"{folder} has no {CONFIG}", hint=hint)
        settings = LoraSettings.of(read_json(config), str(config))
        if not weights.is_file():
            if (folder / "adapter_model.bin").is_file():
                raise Unsupported(
                    f"{folder} has its weights as adapter_model.bin, which can run code when it is read",
                    hint="load it with PEFT and save it again: it writes safetensors",
                )
            raise ModelError(f"{folder} has no {WEIGHTS}", hint="is the download complete?")
        return cls(folder, settings, dict(read_header(weights)), _digest(config, weights))

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    @property
    def num_bytes(self) -> int:
        """Of the weights as they are stored."""
        return sum(info.end - info.start for info in self.tensors.values())


def _digest(*paths: Path) -> str:
    digest = blake2b(digest_size=16, person=b"pie adapter")
    for path in paths:
        digest.update(path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()
