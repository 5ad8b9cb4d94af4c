"""`pie model pull`: a model from a hub into the cache, or a name for a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import console, exits
from pie_cli.client import interruptible

if TYPE_CHECKING:
    from pathlib import Path

    from pie_engine.config import EngineConfig
    from pie_engine.hub.pull import Pulled


def register(app: typer.Typer) -> None:
    app.command("pull")(pull)


def pull(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="ORG/NAME or ORG/NAME@REVISION of a hub, or a folder.")],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "",
    name: Annotated[str, typer.Option(help="What to call it here.")] = "",
    gguf: Annotated[str, typer.Option(help="Fetch one GGUF file: its name, or a part of it such as Q4_K_M.")] = "",
    endpoint: Annotated[str, typer.Option(help="URL of the hub, instead of HF_ENDPOINT.")] = "",
) -> int:
    """Fetch a model from a hub, or give a folder a name.

    From a hub come the configuration, the tokenizer, the chat template and the safetensors files, into the cache of the
    Hugging Face libraries. Every file is checked against the hub's checksum, those that are here already too. Ctrl-C or
    a broken connection loses nothing: the same command goes on where it stopped.

    A folder stays where it is: it is checked, and its name leads to it.
    """
    from pathlib import Path

    from pie_engine.config import load_config

    config = load_config()
    folder = Path(model).expanduser()
    if folder.exists() or model.startswith((".", "/", "~")):
        _refuse_hub_options(revision=revision, gguf=gguf, endpoint=endpoint)
        _name_folder(folder, name, config)
        return exits.OK
    try:
        with interruptible():
            _pull_from_hub(model, revision, name, gguf, endpoint, config)
    except KeyboardInterrupt:
        console.note(f"interrupted; `pie model pull {model}` goes on from here")
        return exits.INTERRUPTED
    return exits.OK


def _refuse_hub_options(**options: str) -> None:
    from pie_engine.errors import InvalidInput

    given = [name for name, value in options.items() if value]
    if given:
        raise InvalidInput(f"`--{given[0]}` is for models of a hub, not for a folder")


def _name_folder(folder: Path, name: str, config: EngineConfig) -> None:
    from pie_cli.sizes import bytes_text
    from pie_engine.errors import ModelError, NotFound
    from pie_engine.hub.facts import read_facts
    from pie_engine.hub.places import give_name, resolve

    if not folder.exists():
        raise NotFound(f"model folder {folder} does not exist", hint="check the path")
    path = folder.absolute()
    facts = read_facts(resolve(str(folder), config.paths))
    if facts.problem:
        raise ModelError(facts.problem, hint=facts.hint)
    if not facts.has_tokenizer:
        raise ModelError(f"{path} has no tokenizer", hint="copy it from where the model comes from")
    name = name or path.name.removesuffix(".gguf")
    give_name(config.paths.names, name, path)
    console.note(f"`{name}` is {path}: {facts.architecture}, {bytes_text(facts.size_bytes)}")
    console.note(f"`pie serve --model {name}` serves it")


def _pull_from_hub(model: str, revision: str, name: str, gguf: str, endpoint: str, config: EngineConfig) -> None:
    from pie_cli.models import require_modules
    from pie_engine.errors import InvalidInput
    from pie_engine.hub.places import HubId, give_name

    hub_id = HubId.parse(f"{model}@{revision}" if revision else model)
    if hub_id is None:
        raise InvalidInput(f"`{model}` is neither a folder nor the id of a model", hint="an id is ORG/NAME")
    require_modules("`pie model pull`", "huggingface_hub")
    from pie_engine.hub.pull import pull as pull_model

    with console.steps() as steps:
        pulled = pull_model(hub_id, steps.show, endpoint=endpoint, gguf=gguf)
    _show(hub_id, pulled)
    if name:
        give_name(config.paths.names, name, pulled.folder)
    served = name or (str(pulled.folder) if gguf else str(hub_id))
    console.note(f"`pie serve --model {served}` serves it")
    console.data_line(str(pulled.folder))


def _show(hub_id: object, pulled: Pulled) -> None:
    from pie_cli.sizes import bytes_text

    fetched = f"{pulled.num_fetched} fetched" if pulled.num_fetched else "all here already"
    num_git = pulled.num_files - pulled.num_sha256
    console.note(
        f"{hub_id} at {pulled.commit[:12]}: {pulled.num_files} files, {bytes_text(pulled.num_bytes)}, {fetched}; "
        f"checked: SHA-256 of {pulled.num_sha256}, Git hash of {num_git}"
    )
