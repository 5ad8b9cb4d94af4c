"""The page docs/performance.md, from the results that benches left in benches/results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from market_figures import market_lines

BENCHES = Path(__file__).resolve().parent.parent / "benches"
RESULTS = BENCHES / "results"

INTRO = """# Performance

Every figure here is read from a file in [benches/results](../benches/results) that a program in `benches/` wrote; the
machine is named beside it. Speeds are never asserted in tests: run the command to know what your machine does.
"""
LAUNCH_ROWS = (
    ("edit_to_first_event", "edit `main.py`, launch it through `pie_client`, first message arrives"),
    ("no_op", "a program that does nothing, launch to return"),
    ("pie_run", "a whole `pie run` process on a warm daemon"),
    ("pie_help", "`pie --help`"),
)


def performance_page() -> str:
    """Markdown with one section for each kind of result that is there."""
    return "\n".join(
        [
            INTRO,
            *_compare(),
            *_launch(),
            *_dev_loop(),
            *_tax(),
            *_prefix(),
            *_offload(),
            *_loop(),
            *_market(),
            *_fork(),
            *_deterministic(),
            *_precision(),
            *_grammar(),
            *_speculation(),
            *_links(),
        ]
    )


def _read(pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob(pattern))]


def _machine(result: dict[str, Any]) -> str:
    machine, packages = result["machine"], result["machine"]["packages"]
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB, {machine['system']}, "
        f"Python {machine['python']}, {versions}; load {machine['load_1m']:g} when it was measured."
    )


DEV_LOOP_ROWS = (
    ("reload", "`main.py` is saved, the first event of the new run comes out of the command"),
    ("reload_message", "… until the saved program's first message"),
    ("reload_running", "… where the run before must be ended first"),
)


def _dev_loop() -> list[str]:
    results = _read("dev-loop-*.json")
    if not results:
        return []
    lines = ["## Saving a file", "", "`python benches/dev_loop.py`: under `pie run --watch`, on a warm engine.", ""]
    for result in results:
        lines += ["| from … to | median ms | least | most | runs |", "|---|--:|--:|--:|--:|"]
        for key, text in DEV_LOOP_ROWS:
            row = result[key]
            figures = " | ".join(f"{row[name]:.1f}" for name in ("median_ms", "min_ms", "max_ms"))
            lines.append(f"| {text} | {figures} | {row['num']} |")
        prompt, cached = result["prefix"]["prompt_tokens"], result["prefix"]["cached_tokens"]
        lines += [
            "",
            f"Of a prompt of {prompt} tokens that no save changes, {cached} come from the cache.",
            "",
            _machine(result),
            "",
        ]
    return lines


def _launch() -> list[str]:
    lines = ["## Launching programs", "", "`python benches/launch.py`", ""]
    for result in _read("launch-*.json"):
        lines += ["| from … to | median ms | least | most | runs |", "|---|--:|--:|--:|--:|"]
        for key, text in LAUNCH_ROWS:
            row = result[key]
            figures = " | ".join(f"{row[name]:.1f}" for name in ("median_ms", "min_ms", "max_ms"))
            lines.append(f"| {text} | {figures} | {row['num']} |")
        sustained = result["sustained"]
        lines += ["", f"Launches of the no-op, {sustained['concurrency']} at once: {sustained['per_s']:.0f} a second."]
        lines += [*_where_the_time_goes(sustained.get("cpu_ms_per_launch", {})), "", _machine(result), ""]
    return lines


def _where_the_time_goes(cpu_ms: dict[str, float]) -> list[str]:
    if not cpu_ms:
        return []
    parts = ", ".join(f"{role} {spent:.2f}" for role, spent in sorted(cpu_ms.items(), key=lambda part: -part[1]))
    return [f"CPU time of one of them in ms: {parts}; {sum(cpu_ms.values()):.2f} together."]


def _tax() -> list[str]:
    lines = [
        "## The tax of programmability",
        "",
        "Time per token through everything (client, gateway, host, WebAssembly, core) against the bare engine loop in",
        "one process: same model, same batch, runs interleaved. `plan` is `ctx.generate`, `pass` one `ctx.forward` a",
        "token. `python benches/pie_bench.py latency --via both --tier plan|pass --model …`; c135 is a random",
        "checkpoint of 576×30 that `python benches/make_checkpoint.py FOLDER --shape 135m` writes.",
        "",
        "| model | tier | at once | threads | bare ms/token | through Pie | tax: median (least … most) |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    results = _read("tax-*.json")
    for result in results:
        tax, model = result["tax"], result["model"]
        bare, pie = (sorted(tax[key])[len(tax[key]) // 2] for key in ("core_tpot_ms", "pie_tpot_ms"))
        spread = f"{tax['percent_median']:+.1f} % ({tax['percent_min']:+.1f} … {tax['percent_max']:+.1f})"
        lines.append(
            f"| {model['name']} | {result['tier']} | {result['workload']['concurrency']} | {model['num_threads']} "
            f"| {bare:.2f} | {pie:.2f} | {spread} |"
        )
    return [*lines, "", *([_machine(results[0]), ""] if results else [])]


PREFIX_ROWS = (
    ("known", "unknown", "first token, nothing known"),
    ("known", "known", "first token, the prefix known"),
    ("known", "own_alone", "first token, without the prefix"),
    ("together", "with_cache", "all requests together"),
    ("together", "without_cache", 'the same, `prefix_cache = "off"`'),
)


QUIET = (
    "`135m-quiet` is random, and its layers from the fourth on add next to nothing: the first three with the head are",
    "right nearly always, for over a quarter of the work. So much would such a draft model bring; none was trained.",
)


def _speculation() -> list[str]:
    results = _read("speculation-*.json")
    lines = ["## Guessing ahead", ""] if results else []
    for result in results:
        draft = f"The draft model (`model`) is {result['draft']}, untrained." if "draft" in result else ""
        lines += [
            "`python benches/speculation.py`: 128 tokens a request, by the CPU time of the process. `copy` goes on",
            "with a text that is there three times, `prose` with one that is there once, `drawn` at temperature 1.2.",
            "`program` knows the reply: the most that guesses can bring.",
            *([draft] if draft else []),
            *(QUIET if "quiet" in result["model"] else []),
            "",
            "| what | who guesses | at once | tokens/s | with guesses | ratio | guesses that came true | passes |",
            "|---|---|--:|--:|--:|--:|--:|--:|",
        ]
        for row in result["results"]:
            lines.append(
                f"| {result['model']}, {row['workload']} | {row['guesser']} | {row['concurrency']} "
                f"| {row['tokens_per_cpu_s']:.0f} | {row['tokens_per_cpu_s_guessing']:.0f} | {row['ratio']:.2f} "
                f"| {row['accepted']} of {row['drafted']} | {row['steps']} → {row['steps_guessing']} |"
            )
        lines += ["", _machine(result), ""]
    return lines


def _prefix() -> list[str]:
    results = _read("prefix-*.json")
    lines = [
        "## Prompts with a common beginning",
        "",
        "`python benches/prefix.py --model …`: prompts of 1,024 common and 32 own tokens, on the bare engine loop.",
        "",
        "| model | what | median ms | least | most | tokens computed |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for result in results:
        for part, name, text in PREFIX_ROWS:
            row = result[part][name]
            times = " | ".join(f"{row[key]:.1f}" for key in ("median_ms", "min_ms", "max_ms"))
            lines.append(f"| {result['model']['name']} | {text} | {times} | {row['tokens_computed']:,} |")
    return [*lines, "", *([_machine(results[0]), ""] if results else [])]


def _offload() -> list[str]:
    results = _read("offload-*.json")
    if not results:
        return []
    work = results[0]["workload"]
    lines = [
        "## Pages in host memory",
        "",
        "`python benches/offload.py --model …`, CPU time. Moving KV pages out to host memory and in again, beside",
        "computing as many tokens of a prompt:",
        "",
        "| model | pages | out ms | in ms | computing ms | computing / moving |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        for row in result["pages"]:
            moving = row["out_ms"] + row["in_ms"]
            lines.append(
                f"| {result['model']['name']} | {row['num_pages']} | {row['out_ms']:.2f} | {row['in_ms']:.2f} "
                f"| {row['compute_ms']:.1f} | {row['compute_ms'] / moving:.0f} |"
            )
    lines += [
        "",
        f"So whole pages always move; the up to 15 tokens behind the last one are computed. {work['num_contexts']} "
        f"contexts of {work['context_len']} tokens,",
        f"for which there are a quarter of the pages, get {work['turn_len']} tokens each, {work['num_turns']} times in "
        "turn:",
        "",
        "| model | host memory | CPU s | tokens computed | generated | pages that came back |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for result in results:
        for name, text in (("with_host_memory", "with"), ("without", "without")):
            row = result["turns"][name]
            lines.append(
                f"| {result['model']['name']} | {text} | {row['cpu_s']:.2f} | {row['tokens_computed']:,} "
                f"| {row['tokens_generated']} | {row['pages_returned']} |"
            )
    return [*lines, "", _machine(results[0]), ""]


def _deterministic() -> list[str]:
    results = _read("deterministic-*.json")
    if not results:
        return []
    work = results[0]["workload"]
    lines = [
        "## The same bits whatever else runs",
        "",
        f"`python benches/deterministic.py --model …`: requests of {work['input_len']} tokens in and "
        f"{work['output_len']} out, all at once, CPU time for",
        "each token that is generated, prompts included. Compiled kernels are deterministic anyway; torch keeps to",
        "shapes that round alike.",
        "",
        "| model | kernels | at once | default ms | `deterministic` ms | ratio: median (least … most) |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for result in results:
        for kernels, found in result["kernels"].items():
            for concurrency in ("1", "16"):
                row = found[concurrency]
                lines.append(
                    f"| {result['model']} | {kernels} | {concurrency} | {row['default_ms']:.2f} "
                    f"| {row['deterministic_ms']:.2f} "
                    f"| {row['ratio']:.2f} ({row['min_ratio']:.2f} … {row['max_ratio']:.2f}) |"
                )
    return [*lines, "", _machine(results[0]), ""]


LOOP_PARTS = ("core", "messages", "driver", "sum", "with_layers")


def _loop() -> list[str]:
    lines = [
        "## The step loop",
        "",
        "`python benches/loop.py`: what a step costs besides the model, in µs of CPU time, least / median, where each",
        "row sends a chunk in each step. `core` is the loop, `messages` what hosts say and get, `driver` what is",
        "around the kernels (embedding, layers, head), choosing included; `with layers` is the sum where the layers",
        "run as well and leave the processor's caches full of weights. The budget is 150 µs and 10 µs for each row.",
        "",
        "| rows | sampling | core | messages | driver | sum | with layers | budget |",
        "|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    results = _read("loop-*.json")
    for result in results:
        for row in result["results"]:
            parts = [f"{row[part]['least']:,.0f} / {row[part]['median']:,.0f}" for part in LOOP_PARTS]
            lines.append(f"| {row['rows']} | {row['sampling']} | {' | '.join(parts)} | {row['budget_us']:,} |")
    return [*lines, "", _machine(results[0]), ""] if results else []


def _market() -> list[str]:
    steps = _read("market-step-*.json")
    lines = market_lines(_read("market-sim-*.json"), _read("core-step-*.json"), steps)
    return [*lines, _machine(steps[0]), ""] if steps else lines


def _fork() -> list[str]:
    lines = [
        "## Forks",
        "",
        "`python benches/fork.py`: `fork()` at the end of a context, in the core, by CPU time, and its memory:",
        "the same at any length.",
        "",
        "| tokens | least µs | median µs | bytes |",
        "|--:|--:|--:|--:|",
    ]
    results = _read("fork-*.json")
    for result in results:
        for row in result["results"]:
            lines.append(f"| {row['tokens']:,} | {row['least_us']:.1f} | {row['median_us']:.1f} | {row['bytes']:,} |")
    return [*lines, "", *([_machine(results[0]), ""] if results else [])]


GRAMMAR_ROWS = (
    ("none", "none"),
    ("text", "an array of strings: a mask for every token"),
    ("records", "an array of objects of four fields: what is forced takes no passes"),
)


def _precision() -> list[str]:
    lines = [
        "## Fewer bits",
        "",
        "`python benches/precision.py`: the least CPU time of decode steps and of prompts on one thread, beside the",
        "time that reading all weights takes; the loss of pie-tiny on held-out text; int8 and int4 are `quantize`, the",
        "others GGUF files, in which K-quants leave sizes that 256 does not divide to Q8_0 and Q5_0. Where llama.cpp",
        "has figures, it ran the same files.",
        "",
    ]
    results = _read("precision-*.json")
    for result in results:
        steps, prompts = list(result["results"][0]["step_ms"]), list(result["results"][0]["prefill_tokens_per_s"])
        heads = ["weights MB", "floor ms", *(f"step {size.replace('x', ' × ')} ms" for size in steps)]
        heads += [*(f"prompt of {size}, tokens/s" for size in prompts), "perplexity", "KL from bf16"]
        lines += [f"| {result['model']} | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
        for row in result["results"]:
            cells = [f"{row['weight_bytes'] / 1e6:.0f}", f"{row['floor_ms']:.1f}"]
            cells += [f"{step:.1f}" for step in row["step_ms"].values()]
            cells += [f"{rate:.0f}" for rate in row["prefill_tokens_per_s"].values()]
            cells += [f"{row['perplexity']:.4f}", f"{row['kl']:.5f}"]
            lines.append(f"| {row['name']} | {' | '.join(cells)} |")
            if peer := row.get("llamacpp"):
                rates = [f"{rate:.0f}" for rate in peer["prefill_tokens_per_s"].values()]
                own = ["", "", f"{next(iter(peer['step_ms'].values())):.1f}", *[""] * (len(steps) - 1), *rates, "", ""]
                lines.append(f"| the same by llama.cpp | {' | '.join(own)} |")
        lines += ["", f"Memory is read at {result['read_bytes_per_s'] / 1e9:.1f} GB/s. {_machine(result)}", ""]
    return lines if results else []


def _grammar() -> list[str]:
    results = _read("grammar-*.json")
    if not results:
        return []
    lines = [
        "## Grammars",
        "",
        "`python benches/grammar.py --model …`: 16 requests at a time, 128 tokens in and 64 out, with and without a",
        "JSON schema, on the bare engine loop, interleaved. Differences are medians over the rounds, of tokens per",
        "second and of tokens per second of CPU time, which other programs disturb less.",
        "",
        "| model | grammar | tokens/s: median (least … most) | difference | by CPU time | passes |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for result in results:
        for name, text in GRAMMAR_ROWS:
            row = result["grammars"][name]
            rates = f"{row['tokens_per_s']:.0f} ({row['least']:.0f} … {row['most']:.0f})"
            keys = () if name == "none" else ("against_none_percent", "against_none_percent_by_cpu")
            differences = " | ".join(f"{row[key]:+.1f} %" for key in keys) or " | "
            lines.append(f"| {result['model']['name']} | {text} | {rates} | {differences} | {row['steps']:,} |")
    compiled = [f"{result['model']['name']} {max(result['compile_ms'].values()):.1f} ms" for result in results]
    lines += ["", f"Compiling the larger of the two schemas: {', '.join(compiled)}."]
    return [*lines, "", _machine(results[0]), ""]


def _compare() -> list[str]:
    results = _read("compare-*.json")
    if not results:
        return []
    sys.path.append(str(BENCHES))
    from table import floor_lines, markdown_table

    lines = [
        "## Beside other engines",
        "",
        "`make bench-cpu`: the median of the rounds, least and most. A ratio above 1 means that Pie is ahead. How the",
        "others are set up, and what is and is not comparable: [benches/README.md](../benches/README.md).",
        "All of them run the checkpoint in bf16. The processor below has no instructions for that, which costs those",
        "most that count on them. Quantized files are compared [below](#fewer-bits).",
        "",
    ]
    for result in results:
        engines = ["pie", *(name for name in result["engines"] if name != "pie")]
        setting = result["engines"]["pie"]["model"]
        rounds = "one round" if result["rounds"] == 1 else f"{result['rounds']} rounds"
        how = f"{setting['num_threads']} threads, {setting['dtype']}, {rounds}."
        lines += [f"{how} {result['note']}".rstrip()]
        lines += ["", markdown_table(result["results"], engines), ""]
        lines += [f"- {line}" for line in floor_lines(result["floors"], result["results"])]
        lines += ["", _machine(result), ""]
    return lines


def _links() -> list[str]:
    return [
        "## How a host runs many programs",
        "",
        "The experiment behind the choice of fibres, with its table and what was learned:",
        "[benches/results/host-experiment.md](../benches/results/host-experiment.md).",
        "",
    ]
