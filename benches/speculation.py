"""What guessing ahead brings: the same requests with and without guesses, bare engine loop, interleaved.

    python benches/speculation.py [--model FOLDER] [--dtype float32] [--rounds 5] [--json-out result.json]
                                  [--draft FOLDER | --draft-layers 0,3] [--workloads copy prose drawn]

Guesses come from the lookup, from the draft model where there is one, and from a program that knows the reply, which is
the most that guesses can bring. `--draft-layers` makes a draft model of these layers of the model itself, untrained.

copy     a text three times over, to be gone on with: what comes next has been there before
prose    the beginning of a story: little of what comes has been there
drawn    the same at temperature 1.2: next to nothing has, so this is what guessing costs

128 tokens each, for one request alone and for eight at once. Tokens/s are by the CPU time of the process, which others
on the machine disturb least; the replies with and without guesses are compared token by token.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import BenchError
from msgspec.structs import replace
from options import bench_parser
from report import save
from safetensors.torch import load_file, save_file

from pie_engine.config import ModelSection
from pie_engine.core.load import load_draft_model
from pie_engine.core.loop import Core
from pie_engine.driver.create import load_driver
from pie_engine.hub.places import resolve
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.plan import NO_USAGE, Plan, Speculation, Usage
from pie_engine.protocol.sampling import GREEDY, Sampler
from pie_engine.protocol.to_core import Append, CreateContext, Delivered, Draft, Generate, OpenProcess, Release
from pie_engine.protocol.to_host import Charged

HOST = "bench"
NUM_TOKENS = 128
STORY = (
    "Once upon a time there was a little fox named Tim. Tim loved to play in the big green park near his home. "
    "One day he found a shiny red ball under a tall tree. He picked it up and ran to his friend Mia. "
)
WORKLOADS: dict[str, tuple[str, Sampler]] = {
    "copy": (STORY * 3, GREEDY),
    "prose": (STORY, GREEDY),
    "drawn": (STORY, Sampler(temperature=1.2)),
}
CONCURRENCY = (1, 8)
GUESSERS = ("lookup", "model", "program")
SPECULATIONS = {"lookup": Speculation("lookup"), "model": Speculation("model")}


class Bench:
    """One core. Contexts, operations and requests share their numbers."""

    def __init__(self, section: ModelSection) -> None:
        folder = resolve(section.path)
        driver = load_driver("cpu", folder, dtype=section.dtype, num_threads=section.num_threads)
        self.capabilities = driver.capabilities
        self._tokenizer = Tokenizer.load(folder)
        draft_model = None
        if section.draft_model:
            draft_folder = resolve(section.draft_model)
            draft_model = load_draft_model(section, draft_folder, folder, self._tokenizer, lambda stage: None)
        self.guessers = GUESSERS if draft_model else tuple(each for each in GUESSERS if each != "model")
        self._core = Core(driver, self._tokenizer, section, draft_model=draft_model)
        self._core.receive(HOST, [OpenProcess("p", "bench")])
        self._num_ids = 0

    def run(
        self, prompt: str, sampler: Sampler, num_requests: int, guesser: str = "", known: Sequence[list[int]] = ()
    ) -> Round:
        """All requests at once, after their prompts have been read. `known`: the replies, for the program."""
        tokens = self._tokenizer.encode(prompt)
        speculation = SPECULATIONS.get(guesser)
        ops = [self._start(tokens, Plan(sampler, NUM_TOKENS, ignore_eos=True, seed=number, speculation=speculation))
               for number in range(num_requests)]  # fmt: skip
        self._core.receive(HOST, [Draft(op, 0, 0, reply) for op, reply in zip(ops, known, strict=False)])
        result = Round({op: [] for op in ops})
        self._step(result)
        started, num_steps = time.process_time(), self._core.num_steps
        while result.num_running:
            self._step(result)
        result.cpu_s, result.num_steps = time.process_time() - started, self._core.num_steps - num_steps
        self._core.receive(HOST, [Release(op) for op in ops])
        return result

    def _start(self, tokens: Sequence[int], plan: Plan) -> int:
        self._num_ids += 1
        op = self._num_ids
        self._core.receive(HOST, [CreateContext(op, "p", 1), Append(op, list(tokens)), Generate(op, op, plan)])
        return op

    def _step(self, result: Round) -> None:
        self._core.step()
        for chunk in self._core.take_outgoing().get(HOST, []):
            if isinstance(chunk, Charged):
                continue
            if not hasattr(chunk, "ids"):
                raise BenchError(f"a request has failed: {chunk}")
            result.take(chunk)
            if chunk.finish is None:
                self._core.receive(HOST, [Delivered(chunk.op, 0, len(result.ids[chunk.op]))])


class Round:
    """What came of one run."""

    def __init__(self, ids: dict[int, list[int]]) -> None:
        self.ids = ids
        self.usage = NO_USAGE
        self.num_running = len(ids)
        self.cpu_s = 0.0
        self.num_steps = 0

    def take(self, chunk: Any) -> None:
        self.ids[chunk.op] += chunk.ids
        usage: Usage | None = chunk.usage
        if usage is not None:
            self.usage = self.usage.plus(usage)
            self.num_running -= 1

    @property
    def replies(self) -> list[list[int]]:
        return list(self.ids.values())

    @property
    def tokens_per_s(self) -> float:
        return len(self.ids) * NUM_TOKENS / self.cpu_s


def measure(bench: Bench, name: str, num_requests: int, rounds: int) -> list[dict[str, object]]:
    """Without and with the guesses of each in turns; the first turn is not counted."""
    prompt, sampler = WORKLOADS[name]
    speeds: dict[str, list[float]] = {each: [] for each in ("", *bench.guessers)}
    for number in range(rounds + 1):
        plain = bench.run(prompt, sampler, num_requests)
        done = {"": plain}
        for guesser in bench.guessers:
            known = plain.replies if guesser == "program" else ()
            done[guesser] = bench.run(prompt, sampler, num_requests, guesser, known)
        if number:
            for guesser, each in done.items():
                speeds[guesser].append(each.tokens_per_s)
    return [_row(name, num_requests, guesser, done, speeds) for guesser in bench.guessers]


def _row(
    name: str, num_requests: int, guesser: str, done: dict[str, Round], speeds: dict[str, list[float]]
) -> dict[str, object]:
    plain, guessed = done[""], done[guesser]
    same = sum(mine == other for mine, other in zip(plain.replies, guessed.replies, strict=True))
    drafted, accepted = guessed.usage.drafted_tokens, guessed.usage.accepted_tokens
    without, with_ = statistics.median(speeds[""]), statistics.median(speeds[guesser])
    return {
        "workload": name,
        "concurrency": num_requests,
        "guesser": guesser,
        "tokens_per_cpu_s": round(without, 1),
        "tokens_per_cpu_s_guessing": round(with_, 1),
        "ratio": round(with_ / without, 2),
        "spread": [round(max(speeds[each]) / min(speeds[each]), 2) for each in ("", guesser)],
        "steps": plain.num_steps,
        "steps_guessing": guessed.num_steps,
        "drafted": drafted,
        "accepted": accepted,
        "accept_rate": round(accepted / drafted, 3) if drafted else None,
        "same_replies": f"{same} of {num_requests}",
    }


def write_layers(source: Path, target: Path, layers: Sequence[int]) -> Path:
    """A checkpoint of some layers of another one, with its embedding, last norm and output layer."""
    weights: dict[str, Any] = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        prefix, is_layer, rest = name.partition("layers.")
        number, _, part = rest.partition(".")
        if not is_layer:
            weights[name] = tensor
        elif int(number) in layers:
            weights[f"{prefix}layers.{layers.index(int(number))}.{part}"] = tensor
    save_file(weights, target / "model.safetensors")
    config = json.loads((source / "config.json").read_text("utf-8"))
    (target / "config.json").write_text(json.dumps({**config, "num_hidden_layers": len(layers)}), "utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
        if (source / name).is_file():
            shutil.copy(source / name, target / name)
    return target


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--model", default="pie-tiny")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--draft", default="")
    parser.add_argument("--draft-layers", type=lambda text: [int(each) for each in text.split(",")])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pie-draft-") as folder:
        draft = options.draft
        if options.draft_layers:
            draft = write_layers(resolve(options.model), Path(folder), options.draft_layers)
        section = ModelSection(path=options.model, dtype=options.dtype, num_threads=1, num_pages=2048)
        bench = Bench(replace(section, draft_model=str(draft)))
    rows = []
    for name in options.workloads:
        for num_requests in CONCURRENCY:
            for row in measure(bench, name, num_requests, options.rounds):
                rows.append(row)
                before, after = row["tokens_per_cpu_s"], row["tokens_per_cpu_s_guessing"]
                guesses = f"{row['accepted']} of {row['drafted']} guesses right, same replies {row['same_replies']}"
                who = f"{name:5} × {num_requests}, {row['guesser']:7}"
                print(f"{who}: {before:>7} → {after:>7} tokens/s ({row['ratio']}×), {guesses}")
            sys.stdout.flush()
    head = {"bench": "speculation", "model": section.label, "dtype": bench.capabilities.dtype, "num_threads": 1}
    if options.draft or options.draft_layers:
        head["draft"] = Path(options.draft).name or f"layers {options.draft_layers} of the model itself"
    save(options.json_out, {**head, "rounds": options.rounds, "results": rows})


if __name__ == "__main__":
    main()
