"""What every engine is asked to do: prompts of random token ids and exact numbers of tokens, the same for everybody."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

WARM_UP_ROUND = -1
WARM_UP_TOKENS = 8
TOKENS_BEFORE_LATE = 8
"""What each decoder of `interference` has received when the long prompt is sent."""


@dataclass(frozen=True)
class Request:
    """One prompt and how it is to be continued. Equal numbers mean equal work, whatever the engine."""

    prompt: list[int]
    output_len: int
    num_forks: int = 1
    """Continuations of the one prompt, each of `output_len` tokens."""
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Workload:
    """Requests of random token ids and a fixed number of tokens to generate."""

    num_requests: int
    concurrency: int
    input_len: int
    """Tokens of a prompt that no other has, after those that all share."""
    output_len: int
    temperature: float = 0.0
    seed: int = 0
    top_p: float = 0.9
    """With a temperature."""
    name: str = "custom"
    prefix_len: int = 0
    """Tokens at the start that all prompts of a round share."""
    num_forks: int = 1
    late_input_len: int = 0
    """Tokens of one more prompt, which arrives while the others decode. 0: there is none."""
    late_output_len: int = 0
    round: int = 0
    """Each has prompts of its own, so that no cache remembers the round before."""

    def prompt(self, index: int, vocab_size: int) -> list[int]:
        """Prompt `index`; reproducible, and different from every other one behind the shared prefix."""
        prefix = self._draw("prefix", self.prefix_len, vocab_size)
        return prefix + self._draw(str(index), self.input_len, vocab_size)

    def requests(self, vocab_size: int) -> list[Request]:
        """All of a round, without the late one."""
        return [
            self._request(self.prompt(index, vocab_size), self.output_len, self.num_forks)
            for index in range(self.num_requests)
        ]

    def late_request(self, vocab_size: int) -> Request:
        """The long prompt that arrives while the others decode."""
        return self._request(self._draw("late", self.late_input_len, vocab_size), self.late_output_len)

    @property
    def num_streams(self) -> int:
        """Continuations of a round, without the late one."""
        return self.num_requests * self.num_forks

    @property
    def context_len(self) -> int:
        """The longest that a context becomes, in tokens."""
        longest = self.prefix_len + self.input_len + self.output_len
        return max(longest, self.late_input_len + self.late_output_len)

    @property
    def is_single_stream(self) -> bool:
        """Whether the time per token is that of a batch of one."""
        return self.concurrency == self.num_forks == 1 and not self.late_input_len

    @property
    def needs_client(self) -> bool:
        """Whether a list of requests does not say it all."""
        return self.num_forks > 1 or self.late_input_len > 0

    def in_round(self, number: int) -> Workload:
        return replace(self, round=number)

    def warm_up(self) -> Workload:
        """A little of the same kind, with prompts that do not come again."""
        num_tokens = 3 * TOKENS_BEFORE_LATE if self.late_input_len else WARM_UP_TOKENS
        return replace(
            self,
            num_requests=min(self.concurrency, self.num_requests),
            output_len=min(num_tokens, self.output_len),
            round=WARM_UP_ROUND,
        )

    def _request(self, prompt: list[int], output_len: int, num_forks: int = 1) -> Request:
        return Request(prompt, output_len, num_forks, self.temperature, self.top_p, self.seed)

    def _draw(self, label: str, length: int, vocab_size: int) -> list[int]:
        source = random.Random(f"{self.seed}/{self.round}/{label}")
        return [source.randrange(vocab_size) for _ in range(length)]


NAMED = {
    workload.name: workload
    for workload in (
        Workload(5, 1, 128, 128, name="single"),
        Workload(64, 16, 128, 64, name="batch"),
        Workload(32, 16, 32, 32, name="prefix", prefix_len=1024),
        Workload(1, 1, 512, 32, temperature=1.0, top_p=1.0, name="fork", num_forks=8),
        Workload(8, 8, 128, 256, name="interference", late_input_len=2048, late_output_len=16),
    )
}
"""The workloads that engines are compared by."""
CUSTOM = Workload(16, 16, 64, 128)
"""What the options describe when no workload is named."""
