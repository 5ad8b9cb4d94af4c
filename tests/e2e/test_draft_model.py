"""A draft model as people use it: `pie serve --draft-model`, the same replies, and what is said of the guesses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests import models

WRITING = """
from inferlet import Context, Sampler

PROMPTS = [[5 + 7 * i % 300 for i in range(20)] * 2, [9, 8, 9, 8, 9, 8, 9], list(range(40, 90))]
SAMPLERS = [Sampler.greedy(), Sampler(temperature=1.0)]

async def main(guesses: bool) -> dict:
    replies, drafted, accepted = [], 0, 0
    for prompt in PROMPTS:
        for sampler in SAMPLERS:
            ctx = Context(seed=7)
            ctx.append(prompt)
            stream = ctx.generate(
                sampler, max_tokens=48, ignore_eos=True, speculate="model" if guesses else None, draft_tokens=8
            )
            await stream
            replies.append(list(stream.ids))
            drafted += stream.usage.drafted_tokens
            accepted += stream.usage.accepted_tokens
    return {"replies": replies, "drafted": drafted, "accepted": accepted}
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, and one that guesses most of what it says."""
    root = tmp_path_factory.mktemp("draft-model")
    model = models.write_tokenizer(root / "model")
    models.write_checkpoint(model, gain=2.0)
    program = root / "writing"
    program.mkdir()
    (program / "main.py").write_text(WRITING)
    return {"model": model, "draft": models.write_noisy(model, root / "draft"), "program": program}


@pytest.mark.timeout(120)
def test_a_draft_model_is_served_guesses_and_changes_no_reply(fresh, folders):
    pair = "--model", str(folders["model"]), "--draft-model", str(folders["draft"])
    served = fresh.pie("serve", "--background", *pair)
    assert served.returncode == 0, served.stderr
    assert re.search(r"draft guesses: \d+ MiB of weights, \d+ MiB of KV", served.stderr), served.stderr

    plain, guessed = (run(fresh, folders["program"], guesses) for guesses in (False, True))
    assert guessed["replies"] == plain["replies"]
    assert plain["drafted"] == 0
    assert 0.3 * guessed["drafted"] < guessed["accepted"] < guessed["drafted"], "right at times and wrong at times"

    processes = json.loads(fresh.pie("ps", "--all", "--json").stdout)["processes"]
    usage = max((process["usage"] for process in processes), key=lambda usage: usage["drafted_tokens"])
    assert (usage["drafted_tokens"], usage["accepted_tokens"]) == (guessed["drafted"], guessed["accepted"])
    assert f"{guessed['accepted'] / guessed['drafted']:.0%}" in fresh.pie("ps", "--all").stdout


def run(fresh, program: Path, guesses: bool) -> dict:
    """What the program returns; its last line says how many guesses were right."""
    done = fresh.pie("run", str(program), "--guesses" if guesses else "--no-guesses", "--summary")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert (f"{value['accepted']} of {value['drafted']} guesses right" in " ".join(done.stderr.split())) == guesses
    return value
