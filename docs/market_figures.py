"""The section of docs/performance.md on the market, from what its benches left."""

from __future__ import annotations

from typing import Any

STEP_PARTS = ("order", "victims", "settle", "sum")
CASES = {
    "fits": "all fit",
    "places": "a quarter has a place in the batch, 256 at most",
    "pages": "a quarter has pages",
}
SCENARIOS = {
    "poisson": "chats, a little more than the machine can take",
    "bursty": "the same, 40 at a time",
    "heavy": "prompts and replies with heavy tails",
    "agents": "half of them agents that wait for tools, and few pages",
    "bidders": "equal chats that bid from 0.001 to 0.064 credits",
    "adversarial": "eight programs with 100 forks each that bid everything, and chats",
}


def market_lines(
    simulated: list[dict[str, Any]], composed: list[dict[str, Any]], steps: list[dict[str, Any]]
) -> list[str]:
    """Results of benches/market_sim.py, core_step.py and market_step.py."""
    lines = ["## The market", ""]
    for result in composed:
        lines += [
            "`python benches/core_step.py`: what it costs a core to decide who runs in a step, on whose pages and at",
            "what price, in µs of CPU time, least / median / mean; and to put the rows together of those that run.",
            "The budget for the decision is 200 µs at 256 programs and 2 ms at 4,096.",
            "",
            "| programs | | policy | decision | rows |",
            "|--:|---|---|--:|--:|",
        ]
        for row in result["results"]:
            what = CASES[row["case"]] if row["policy"] == "market" else ""
            parts = [" / ".join(f"{us:,.0f}" for us in row[part].values()) for part in ("decision", "rows")]
            lines.append(f"| {row['programs']:,} | {what} | {row['policy']} | {' | '.join(parts)} |")
        lines.append("")
    for result in steps:
        lines += [
            "`python benches/market_step.py`: of those decisions, what the policy takes where not everything fits: who",
            "goes first, who gives pages up for one that lacks some, prices and rents.",
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
            "50 steps. Tokens a second: as long as programs arrive. Afterwards the last ones leave the batch half",
            "empty, and the longer, the more of the short ones have gone before.",
            "The pictures are in [market.md](market.md#what-simulations-show).",
            "",
            "| | policy | slowdown p50 | p99 | TTFT p50, s | p99 | tokens/s | longest wait, steps | Jain | left |",
            "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for row in result["results"]:
            what = SCENARIOS.get(row["scenario"], row["scenario"]) if row["policy"] == "market" else ""
            cells = [
                f"{row['slowdown']['p50']:g} | {row['slowdown']['p99']:g}",
                f"{row['ttft_s']['p50']:g} | {row['ttft_s']['p99']:g}",
                f"{row['tokens_per_s_arriving']:,.0f}",
                f"{row['longest_wait_steps']:,} | {row['jain_over_time']['mean']:.2f} | {row['unfinished']:,}",
            ]
            lines.append(f"| {what} | {row['policy']} | {' | '.join(cells)} |")
        lines += ["", f"`left`: had not ended after {result['steps']:,} steps.", ""]
    return lines if simulated or composed or steps else []
