"""Measure pie-tiny on held-out prompts: `python -m pie_engine.model.tiny.evaluate [--model DIR] [--json-out FILE]`."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import torch

from pie_engine.model.tiny import WEIGHTS_DIR
from pie_engine.model.tiny.chat_format import TOOL_CALL_CLOSE, TOOL_CALL_OPEN, prompt_text, segments
from pie_engine.model.tiny.corpus import Family, examples_of
from pie_engine.model.tiny.draw import Example, Json
from pie_engine.model.tiny.families import arithmetic, context, extraction, lists, react, stories, tools
from pie_engine.model.tiny.generation import Completion, Generator

MAX_ANSWER_TOKENS = 96
MAX_STORY_TOKENS = 320
MAX_REACT_TOKENS = 64
OBSERVATION = "\nObservation:"
STORY_TEMPERATURE = 0.7
MIN_STORY_WORDS = 30
MIN_KNOWN_WORDS = 0.98
MAX_REPEATED = 0.15
NUM_VOCABULARY_STORIES = 1_000
SEED = 7

Check = Callable[[Completion, Json], bool]


@dataclass(frozen=True)
class Measure:
    """Families whose held-out prompts are answered in one go, and what makes an answer right."""

    title: str
    families: tuple[Family, ...]
    check: Check


@dataclass
class Score:
    """How many prompts of a measure were answered rightly."""

    title: str
    num_right: int = 0
    num_prompts: int = 0

    def add(self, is_right: bool) -> None:
        self.num_prompts += 1
        self.num_right += is_right

    @property
    def percent(self) -> float:
        return round(100 * self.num_right / max(1, self.num_prompts), 1)


def is_right_call(answer: Completion, expect: Json) -> bool:
    """Exactly one call, valid JSON, the right tool and the right arguments."""
    text = answer.text.strip()
    if not (text.startswith(TOOL_CALL_OPEN) and text.endswith(TOOL_CALL_CLOSE)):
        return False
    body = text.removeprefix(TOOL_CALL_OPEN).removesuffix(TOOL_CALL_CLOSE)
    return bool(_parsed(body) == expect["call"])


def contains_value(answer: Completion, expect: Json) -> bool:
    """The copied value stands in the answer, not as a part of a longer word or number."""
    return re.search(rf"(?<![\w]){re.escape(expect['contains'])}(?!\w|[.,]\d)", answer.text) is not None


def is_right_sum(answer: Completion, expect: Json) -> bool:
    match = re.search(r"= (-?\d+)", answer.text)
    return match is not None and int(match[1]) == expect["result"]


def is_right_json(answer: Completion, expect: Json) -> bool:
    return bool(_parsed(answer.text) == expect["json"])


def is_right_list(answer: Completion, expect: Json) -> bool:
    """The wanted number of different things, all of the wanted kind."""
    lines = re.split(r"\n|, ", answer.text.strip())
    items = [re.sub(r"^(\d+\.|-) ", "", line) for line in lines]
    return len(items) == len(set(items)) == expect["count"] and set(items) <= set(expect["items"])


def is_right_answer(answer: Completion, expect: Json) -> bool:
    return bool(answer.text == expect["answer"])


MEASURES = {
    "tool_call": Measure("valid tool call: right tool, right arguments", (tools.single_call,), is_right_call),
    "tool_answer": Measure("answer that uses the tool's result", (tools.calls_with_answers,), is_right_answer),
    "copy": Measure(
        "copies a fact from the prompt",
        (
            context.facts_in_user,
            context.facts_in_system,
            context.long_passage,
            context.table,
            context.passages,
            context.introduction,
            context.persona,
            context.repeat,
        ),
        contains_value,
    ),
    "arithmetic": Measure("arithmetic", (arithmetic.bare, arithmetic.in_words), is_right_sum),
    "json": Measure(
        "JSON from a sentence",
        (extraction.person_record, extraction.product_record, extraction.random_record),
        is_right_json,
    ),
    "lists": Measure("lists: right count, right kind", (lists.things,), is_right_list),
}


def held_out(families: tuple[Family, ...], count: int) -> list[tuple[str, Example]]:
    """`count` held-out examples, taken from the families in turn, each with the name of its family."""
    streams = [(family.__name__, examples_of(family, SEED)) for family in families]
    return [(name, next(stream)) for name, stream in islice(cycle(streams), count)]


def _prompt(example: Example) -> str:
    return prompt_text(example.messages[:-1], example.tools)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


@dataclass
class _Loop:
    """One ReAct loop: the transcript so far, and how it ended."""

    example: Example
    transcript: str
    num_actions: int = 0
    is_over: bool = False
    is_right: bool = False
    last_move: Completion | None = None

    def advance(self, move: Completion) -> None:
        """Take the model's next move: hand over the observation, or judge the end."""
        self.last_move = move
        steps = self.example.expect["steps"]
        if self.num_actions == len(steps):
            is_final = move.has_ended and "Final Answer:" in move.text
            self.is_over, self.is_right = True, is_final and contains_value(move, self.example.expect)
            return
        action, observation = steps[self.num_actions]
        self.num_actions += 1
        self.is_over = not move.text.endswith(f"\nAction: {action}")
        self.transcript += f"{move.text}{OBSERVATION} {observation}\n"


class Evaluation:
    """Scores of one checkpoint, gathered measure by measure."""

    def __init__(self, generator: Generator, num_prompts: int) -> None:
        self._generator = generator
        self._num_prompts = num_prompts
        self.scores: dict[str, Score] = {"format": Score("keeps the chat format and stops by itself")}
        self.mistakes: list[tuple[str, str, str]] = []

    def run(self) -> None:
        for name, measure in MEASURES.items():
            self._answer(name, measure)
        self._react()
        self._stories()

    def _answer(self, name: str, measure: Measure) -> None:
        self.scores[name] = Score(measure.title)
        drawn = held_out(measure.families, self._num_prompts)
        answers = self._generator.complete([_prompt(example) for _, example in drawn], MAX_ANSWER_TOKENS)
        for (family, example), answer in zip(drawn, answers, strict=True):
            is_right = answer.has_ended and measure.check(answer, example.expect)
            self._note(name, is_right, example, answer)
            if len(measure.families) > 1:
                self.scores.setdefault(f"{name}/{family}", Score(f"{name}: {family}")).add(is_right)

    def _note(self, name: str, is_right: bool, example: Example, answer: Completion) -> None:
        self.scores["format"].add(answer.has_ended)
        self.scores[name].add(is_right)
        if not is_right:
            self.mistakes.append((name, _prompt(example), answer.text))

    def _react(self) -> None:
        """Run whole loops: every action must be the right one, then the answer must use the last observation."""
        self.scores["react"] = Score("ReAct loop: right actions, right final answer")
        loops = [_Loop(example, _prompt(example)) for _, example in held_out((react.trace,), self._num_prompts)]
        while open_loops := [loop for loop in loops if not loop.is_over]:
            transcripts = [loop.transcript for loop in open_loops]
            moves = self._generator.complete(transcripts, MAX_REACT_TOKENS, stop=OBSERVATION)
            for loop, move in zip(open_loops, moves, strict=True):
                loop.advance(move)
        for loop in loops:
            assert loop.last_move is not None
            self._note("react", loop.is_right, loop.example, loop.last_move)

    def _stories(self) -> None:
        self.scores["story"] = Score("readable story about the asked hero")
        vocabulary = story_vocabulary()
        torch.manual_seed(SEED)
        drawn = [example for _, example in held_out((stories.story,), self._num_prompts)]
        prompts = [_prompt(example) for example in drawn]
        answers = self._generator.complete(prompts, MAX_STORY_TOKENS, temperature=STORY_TEMPERATURE)
        for example, answer in zip(drawn, answers, strict=True):
            hero = example.expect.get("hero", "")
            self._note(
                "story",
                answer.has_ended and hero in answer.text and is_readable(answer.text, vocabulary),
                example,
                answer,
            )


def story_vocabulary() -> set[str]:
    """All words in training stories, in lower case."""
    drawn = islice(examples_of(stories.story, SEED, "train"), NUM_VOCABULARY_STORIES)
    return {word.lower() for example in drawn for segment in segments(example) for word in _words(segment.text)}


def is_readable(text: str, vocabulary: set[str]) -> bool:
    """Long enough, made of known words (names aside), and not going in circles."""
    common = [word for word in _words(text) if word[0].islower()]
    if len(common) < MIN_STORY_WORDS:
        return False
    known = sum(word in vocabulary for word in common) / len(common)
    return known >= MIN_KNOWN_WORDS and repeated_share(_words(text)) <= MAX_REPEATED


def repeated_share(tokens: list[str], size: int = 4) -> float:
    """The share of n-grams that occurred before in the same text."""
    grams = Counter(zip(*(tokens[start:] for start in range(size)), strict=False))
    total = sum(grams.values())
    return (total - len(grams)) / max(1, total)


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]+", text)


def evaluate(folder: Path, num_prompts: int) -> Evaluation:
    evaluation = Evaluation(Generator(folder), num_prompts)
    evaluation.run()
    return evaluation


def table(scores: dict[str, Score]) -> str:
    """The scores as a Markdown table; parts of a measure are left to the JSON output."""
    rows = [
        f"| {score.title} | {score.percent} % | {score.num_prompts} |"
        for name, score in scores.items()
        if "/" not in name
    ]
    return "\n".join(["| measure | right | prompts |", "| --- | --- | --- |", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=WEIGHTS_DIR, help="folder of the checkpoint")
    parser.add_argument("--json-out", type=Path, help="write all scores, with those of each family, to this file")
    parser.add_argument("--num-prompts", type=int, default=200, help="held-out prompts per measure")
    parser.add_argument("--mistakes", type=int, default=0, help="show this many wrong answers per measure")
    arguments = parser.parse_args()
    evaluation = evaluate(arguments.model, arguments.num_prompts)
    print(table(evaluation.scores))
    if arguments.json_out:
        report = {
            name: {"percent": score.percent, "num_prompts": score.num_prompts}
            for name, score in evaluation.scores.items()
        }
        arguments.json_out.write_text(json.dumps(report, indent=2) + "\n")
    shown: Counter[str] = Counter()
    for name, prompt, answer in evaluation.mistakes:
        shown[name] += 1
        if shown[name] <= arguments.mistakes:
            print(f"\n--- {name}\n{prompt}\n>>> {answer}")


if __name__ == "__main__":
    main()
