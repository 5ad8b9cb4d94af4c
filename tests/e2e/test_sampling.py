"""Samplers and probes through the whole engine: the real sandbox, the daemon and pie-tiny."""

from __future__ import annotations

from tests.e2e.test_programs import program, value_of


async def test_every_parameter_and_probe_crosses_the_sandbox(client):
    source = """
    import asyncio
    import math

    from inferlet import Context, InvalidInput, Sampler


    async def main() -> dict:
        ctx = Context(seed=3)
        ctx.user("Tell me a story about a fox.")
        await ctx.flush()
        start = ctx.length
        free = await ctx.fork().forward(top_k=3, entropy=True, logits=True, hidden=True)
        best = free.top[0][0]
        sampler = Sampler.min_p(
            0.05, temperature=0.9, top_k=50, top_p=0.95, typical_p=0.95, epsilon_cutoff=1e-4, eta_cutoff=1e-4,
            xtc_probability=0.3, repetition_penalty=1.1, frequency_penalty=0.2, presence_penalty=0.1,
            penalty_window=64, dry_multiplier=0.8, logit_bias={best: -math.inf}, banned_tokens=[free.top[1][0]],
        )
        told = await ctx.fork().forward([], sampler, logprobs_of=[best], prompt_length=start)
        stream = ctx.fork().generate(sampler, max_tokens=12, seed=5, top_logprobs=2, entropy=True)
        await stream
        again = ctx.fork().generate(sampler, max_tokens=12, seed=5)
        await again
        only = ctx.fork().generate(Sampler.mirostat(3.0, allowed_tokens=[7, 8]), max_tokens=6)
        await only
        texts = await asyncio.gather(*await ctx.generate_n(3, Sampler.temperature(1.0), max_tokens=8))
        try:
            await ctx.fork().generate(Sampler(banned_tokens=[10**6]))
        except InvalidInput as error:
            refused = error.message
        return {
            "probes": [len(free.top), free.entropy > 0, len(free.logits) == ctx.model.info.vocab_size],
            "hidden": any(free.hidden),
            "best": free.logits.index(max(free.logits)) == best,
            "chosen": told.token not in (best, free.top[1][0]),
            "logprob": abs(told.logprobs[best] - free.top[0][1]) < 1e-4,
            "banned": best in stream.ids,
            "reported": [len(stream.ids), {len(top) for top in stream.top} == {2}, len(stream.entropies)],
            "seed": stream.ids == again.ids,
            "only": set(only.ids) <= {7, 8},
            "texts": len(texts),
            "refused": refused.startswith("`banned_tokens` has to hold token ids from 0 to"),
        }
    """
    value = await value_of(client, program(source))
    assert value.pop("probes") == [3, True, True]
    num_ids, is_two, num_entropies = value.pop("reported")
    assert (num_ids == num_entropies, is_two) == (True, True)
    assert value == {
        "hidden": True,
        "best": True,
        "chosen": True,
        "logprob": True,
        "banned": False,
        "seed": True,
        "only": True,
        "texts": 3,
        "refused": True,
    }


async def test_a_beam_search_through_the_whole_engine(client):
    source = """
    import asyncio

    from inferlet import Context, Grammar


    async def main() -> dict:
        ctx = Context()
        ctx.user("Tell me a story about a fox.")
        beams, yes = await asyncio.gather(
            ctx.generate_beams(4, max_tokens=12, num_return_sequences=3, early_stopping="never"),
            ctx.fork().generate_beams(3, grammar=Grammar.choice(["yes", "no"]), num_return_sequences=2),
        )
        greedy = ctx.fork().generate(max_tokens=12, logprobs=True)
        await greedy
        reply = ctx.append(beams.best.ids).text
        return {
            "scores": [each.score for each in beams.hypotheses],
            "greedy": sum(greedy.logprobs) / len(greedy.logprobs),
            "is_there": beams.best.text in reply,
            "answers": sorted(each.text for each in yes.hypotheses),
            "usage": beams.usage.completion_tokens,
        }
    """
    value = await value_of(client, program(source))
    assert value["scores"] == sorted(value["scores"], reverse=True)
    assert len(value["scores"]) == 3
    assert value["scores"][0] >= value["greedy"] - 0.01
    assert value["is_there"]
    assert value["answers"] == ["no", "yes"]
    assert value["usage"] > 12
