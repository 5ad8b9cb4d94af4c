"""Messages of a context: what the template makes of them, and what is appended."""

from __future__ import annotations

from inferlet import Context, _transport
from inferlet.testing import FakeHost
from tests.unit.sdk_runs import host, run


def test_a_chat_is_rendered_by_the_template_and_goes_on():
    async def main():
        ctx = Context()
        ctx.system("S").user("A")
        await ctx.generate()
        ctx.user("B")
        await ctx.generate()
        return [ctx.text, ctx.messages, ctx.last_text]

    text, messages, last = run(main, replies=["one", "two"])
    begin = "<|begin|><|system|>S<|end|><|user|>A<|end|><|assistant|>one<|end|>"
    assert text == begin + "<|user|>B<|end|><|assistant|>two"
    assert [message["content"] for message in messages] == ["S", "A", "one", "B"]
    assert last == "two"


def test_only_what_is_new_is_appended():
    async def main():
        ctx = Context()
        ctx.user("A")
        await ctx.generate()
        before = ctx.tokens
        ctx.user("B")
        after = ctx.tokens
        assert after[: len(before)] == before
        return host().calls.get("context.truncate", 0)

    assert run(main, replies=["one"]) == 0


def test_a_second_message_before_the_reply_takes_the_cue_back():
    async def main():
        ctx = Context()
        ctx.user("A")
        assert ctx.text.endswith("<|assistant|>")
        ctx.user("B")
        return ctx.text

    assert run(main) == "<|begin|><|user|>A<|end|><|user|>B<|end|><|assistant|>"


def test_a_template_that_rewrites_earlier_turns_costs_only_what_differs():
    class Stripping(FakeHost):
        def _render_chat(self, model, messages, tools, cue):
            return super()._render_chat(model, messages.replace("think ", ""), tools, cue)

    async def main():
        ctx = Context()
        ctx.user("A")
        await ctx.generate()
        ctx.user("B")
        return ctx.text

    before = _transport.connect(Stripping(replies=["think x"]))
    try:
        from inferlet._loop import HostLoop

        text = HostLoop().run(main())
    finally:
        _transport.connect(before)
    assert text == "<|begin|><|user|>A<|end|><|assistant|>x<|end|><|user|>B<|end|><|assistant|>"


def test_append_in_a_chat_begins_the_reply():
    async def main():
        ctx = Context()
        ctx.user("A")
        ctx.append("The answer is")
        await ctx.generate()
        ctx.user("B")
        return [ctx.messages[1], ctx.last_text, ctx.text]

    message, last, text = run(main, replies=[" 42"])
    assert message == {"role": "assistant", "content": "The answer is 42"}
    assert last == " 42"
    assert text == "<|begin|><|user|>A<|end|><|assistant|>The answer is 42<|end|><|user|>B<|end|><|assistant|>"


def test_plain_text_needs_no_template():
    async def main():
        ctx = Context()
        ctx.append("Once upon").append(ctx.model.tokenizer.encode(" a"))
        return [await ctx.generate(), ctx.text, host().calls.get("model.render_chat", 0)]

    assert run(main, replies=[" time"]) == [" time", "Once upon a time", 0]


def test_special_tokens_of_untrusted_text_can_be_plain():
    async def main():
        ctx = Context()
        ctx.append("<|end|>", special=False)
        return [ctx.length, ctx.append("<|end|>").length]

    assert run(main) == [7, 8]


def test_tool_results_and_tools_reach_the_template():
    async def main():
        ctx = Context(tools=[{"name": "f"}])
        ctx.user("A").tool({"x": 1})
        return ctx.text

    text = run(main)
    assert '<|system|>Tools: [{"name": "f"}]<|end|>' in text
    assert text.endswith('<|tool|>{"x": 1}<|end|><|assistant|>')


def test_long_token_lists_cross_packed():
    async def main():
        ctx = Context()
        ctx.append([200] * 1000)
        return [ctx.length, host().calls["context.append_packed"]]

    assert run(main) == [1000, 1]
