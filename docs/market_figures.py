"""The section of docs/performance.md on the market, from what benches/market_sim.py and market_step.py left."""

from __future__ import annotations

from typing import Any

STEP_PARTS = ("order", "victims", "settle", "sum")
SCENARIOS = {
    "poisson": "chats, a little more than the machine can take",
    "bursty": "the same, 40 at a time",
    "heavy": "prompts and replies with heavy tails",
    "agents": "half of them agents that wait for tools, and few pages",
    "bidders": "equal chats that bid from 0.001 to 0.064 credits",
    "adversarial": "eight programs with 100 forks each that bid everything, and chats",
}


def market_lines(simulated: list[dict[str, Any]], steps: list[dict[str, Any]]) -> list[str]:
    """`simulated` and `steps`: results of the two benches."""
    lines = ["## The market", ""]
    for result in steps:
        lines += [
            "`python benches/market_step.py`: what decisions cost in a step that cannot hold all, in µs of CPU time,",
            "least / median: who goes first, who gives pages up for one that lacks some, prices and rents. The",
            "budget is 200 µs at 256 programs and 2 ms at 4,096; where everything fits it is a microsecond.",
            "",
            "| programs | policy | order | victims | settle | sum |",
            "|--:|---|--:|--:|--:|--:|",
        ]
        for row in result["results"]:
            parts = [f"{row[part]['least']:,.0f} / {row[part]['median']:,.0f}" for part in STEP_PARTS]
            lines.append(f"| {row['programs']:,} | {row['policy']} | {' | '.join(parts)} |")
        lines.append("")
    for result in simulated:
        lines += [
            f"`python benches/market_sim.py`: {result['programs']:,} programs by each policy, on an engine without a",
            "model. Slowdown: how many times as long as alone. Jain's index is of the tokens that programs got in each",
            "50 steps.",
            "The pictures are in [market.md](market.md#what-simulations-show).",
            "",
            "| | policy | slowdown p50 | p99 | TTFT p50, s | p99 | longest wait, steps | Jain | left |",
            "|---|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for row in result["results"]:
            what = SCENARIOS.get(row["scenario"], row["scenario"]) if row["policy"] == "market" else ""
            cells = [
                f"{row['slowdown']['p50']:g} | {row['slowdown']['p99']:g}",
                f"{row['ttft_s']['p50']:g} | {row['ttft_s']['p99']:g}",
                f"{row['longest_wait_steps']:,} | {row['jain_over_time']['mean']:.2f} | {row['unfinished']:,}",
            ]
            lines.append(f"| {what} | {row['policy']} | {' | '.join(cells)} |")
        lines += ["", f"`left`: had not ended after {result['steps']:,} steps.", ""]
    return lines if simulated or steps else []
