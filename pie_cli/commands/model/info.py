"""`pie model info`: what a model is, and what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import console, exits

if TYPE_CHECKING:
    from pie_engine.hub.facts import Facts, MemoryFacts, Shape


def register(app: typer.Typer) -> None:
    app.command("info")(info)


def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name, a folder or a hub id that was pulled.")],
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> int:
    """Show what a model is, the memory that it needs, and whether it fits here.

    Only headers are read. Exit code 1 when Pie cannot load it.
    """
    import msgspec

    from pie_cli.models import folder_of
    from pie_engine.config import load_config
    from pie_engine.hub.facts import read_facts

    config = load_config()
    facts = read_facts(folder_of(model, config), kv_memory_mb=config.models[0].kv_memory_mb)
    if as_json:
        console.data_line(msgspec.json.encode(facts).decode())
    else:
        _show(facts)
    if facts.problem:
        console.error(facts.problem, facts.hint)
        return exits.PROGRAM_FAILED
    return exits.OK


def _show(facts: Facts) -> None:
    from pie_cli.sizes import bytes_text

    rows = [
        ("folder", facts.folder),
        ("architecture", facts.architecture),
        ("stored", f"{facts.dtype}, {bytes_text(facts.size_bytes)}"),
        ("tokenizer", "yes" if facts.has_tokenizer else "no"),
        ("chat template", "yes" if facts.has_chat_template else "no"),
    ]
    if facts.shape is not None and facts.memory is not None:
        rows[2:2] = _shape_rows(facts.shape)
        rows += _memory_rows(facts.memory, facts.shape)
    for label, text in rows:
        console.data_line(f"{label:<13}  {text}")


def _shape_rows(shape: Shape) -> list[tuple[str, str]]:
    from pie_cli.sizes import count_text

    heads = f"{shape.num_heads} heads of {shape.head_dim}, {shape.num_kv_heads} for keys and values"
    return [
        ("shape", f"{shape.num_layers} layers, hidden size {shape.hidden_size}, {heads}"),
        ("parameters", count_text(shape.num_parameters)),
        ("vocabulary", f"{shape.vocab_size:,} tokens"),
        ("context", f"{shape.max_context_tokens:,} tokens"),
    ]


def _memory_rows(memory: MemoryFacts, shape: Shape) -> list[tuple[str, str]]:
    from pie_cli.sizes import bytes_text
    from pie_engine.hub.facts import SAMPLE_CONTEXT

    sample = min(SAMPLE_CONTEXT, shape.max_context_tokens)
    weights = ", ".join(f"{bytes_text(size)} in {dtype}" for dtype, size in memory.weights.items())
    kv = memory.kv_per_token
    return [
        ("weights", weights),
        ("KV", f"{bytes_text(kv)} a token, {bytes_text(kv * sample)} for {sample:,} tokens"),
        ("fits here", "; ".join(_fit(memory, dtype) for dtype in memory.needed)),
    ]


def _fit(memory: MemoryFacts, dtype: str) -> str:
    from pie_cli.sizes import bytes_text

    needed = memory.needed[dtype]
    verdict = "yes" if needed <= memory.available else "no"
    return f"{verdict} in {dtype}: {bytes_text(needed)} of {bytes_text(memory.available)}"
