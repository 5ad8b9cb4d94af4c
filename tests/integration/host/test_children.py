"""Programs that launch programs, in a host whose gateway is the test."""

from __future__ import annotations

import json
import textwrap

import msgspec
import pytest

from pie_engine.errors import ErrorInfo, NotFound
from pie_engine.protocol.program import Bundle, Limits, Manifest
from pie_engine.protocol.to_gateway import LaunchChild, Registered
from pie_engine.protocol.to_host import ChildRefused, Launch, Secrets, Terminate
from tests.integration.host.inline_host import InlineHost

LEAF = """
from inferlet import session
async def main(a: int = 0, b: str = "") -> dict:
    session.send("here")
    return {"a": a, "b": b}
"""
WAITER = """
from inferlet import session
async def main() -> None:
    session.send("here")
    await session.receive()
"""
HOLDER = """
from inferlet import runtime, session
async def main(n: int = 1) -> None:
    for _ in range(n):
        child = await runtime.launch("waiter")
        await anext(child.messages())
    session.send(child.pid)
    await session.receive()
"""


def program(source: str, name: str = "p", **manifest: object) -> Bundle:
    launches = ("leaf", "waiter", "p", "talker", "secretive")
    return Bundle(Manifest(name=name, launches=launches, **manifest), {"main.py": textwrap.dedent(source)})  # type: ignore[arg-type]


class Gateway:
    """Answers what the host asks for."""

    def __init__(self, inline: InlineHost) -> None:
        self.inline = inline
        self.programs = {"leaf": program(LEAF), "waiter": program(WAITER)}
        self.secrets: dict[str, str] = {}
        self.children: list[str] = []
        self.num_answered = 0
        self.answers = True

    @property
    def asked(self) -> list[LaunchChild]:
        return [report for report in self.inline.reports if isinstance(report, LaunchChild)]

    def turn(self) -> None:
        self.inline.turn()
        while self.answers and self.num_answered < len(self.asked):
            self.answer(self.asked[self.num_answered])
            self.num_answered += 1

    def answer(self, wish: LaunchChild) -> None:
        bundle = self.programs.get(wish.program)
        if bundle is None:
            error = NotFound(f"no program `{wish.program}`").info
            self.inline.host.receive_order(ChildRefused(wish.parent, wish.request, error))
            return
        pid = f"child-{len(self.children) + 1}"
        self.children.append(pid)
        launch = Launch(pid, "ann", bundle.digest, bundle, wish.input, Secrets(self.secrets), endowment=0)
        linked = msgspec.structs.replace(launch, parent=wish.parent, request=wish.request, inherits=wish.endowment)
        self.inline.host.receive_order(linked)

    def until(self, condition) -> None:
        def is_so() -> bool:
            self.turn()
            return condition()

        self.inline.until(is_so)

    def run(self, source: str | Bundle, **arguments: object) -> tuple[str, object]:
        pid = self.inline.launch(source if isinstance(source, Bundle) else program(source), **arguments)
        self.until(lambda: not self.inline.host.processes)
        self.inline.turn()
        return self.inline.ending(pid)

    def error_of(self, pid: str) -> ErrorInfo:
        kind, data = self.inline.ending(pid)
        assert kind == "error", data
        return ErrorInfo(**data)  # type: ignore[arg-type]


@pytest.fixture
def gateway(inline) -> Gateway:
    return Gateway(inline)


def test_a_child_runs_with_its_input_and_its_parent_gets_all_it_says(gateway):
    source = """
    from inferlet import runtime
    async def main() -> list:
        child = await runtime.launch("leaf", {"a": 1}, b="ü")
        said = [message async for message in child.messages()]
        return [child.pid, said, await child.result()]
    """
    assert gateway.run(source) == ("return", ["child-1", ["here"], {"a": 1, "b": "ü"}])
    assert gateway.inline.ending("child-1") == ("return", {"a": 1, "b": "ü"})


def test_a_refusal_reaches_the_launch(gateway):
    source = """
    from inferlet import NotFound, runtime
    async def main() -> str:
        try:
            await runtime.launch("talker")
        except NotFound as error:
            return error.message
    """
    assert gateway.run(source) == ("return", "no program `talker`")


def test_what_cannot_be_launched_ends_and_its_parent_hears_why(gateway):
    gateway.programs["leaf"] = Bundle(Manifest("leaf"), {"../main.py": ""}, blobs={"../x": b""})
    kind, data = gateway.run('from inferlet import runtime\nasync def main():\n    await runtime.launch("leaf")\n')
    assert (kind, str(data["message"]).startswith(gateway.error_of("child-1").message)) == ("error", True)  # type: ignore[index]


def test_children_of_children_have_a_bound(gateway):
    source = """
    from inferlet import ChildFailed, LimitExceeded, runtime
    async def main() -> object:
        try:
            child = await runtime.launch("p")
        except LimitExceeded as error:
            return error.message
        return [await child.result()]
    """
    gateway.programs["p"] = program(source)
    why = (
        "`p` is in generation 4 of children, which may launch none; "
        "let its parent launch it, or raise `max_depth` under [host] in the configuration"
    )
    assert gateway.run(source) == ("return", [[[[why]]]])


def test_children_at_once_have_a_bound(gateway):
    source = """
    from inferlet import LimitExceeded, runtime
    async def main() -> list:
        children = [await runtime.launch("waiter") for _ in range(64)]
        try:
            await runtime.launch("leaf")
        except LimitExceeded as error:
            message = error.message
        children[0].send("go")
        await children[0].result()
        last = await runtime.launch("leaf")
        await last.result()
        return [message, len(children)]
    """
    kind, value = gateway.run(source)
    assert (kind, value[1]) == ("return", 64)  # type: ignore[index]
    assert value[0].startswith("64 children of `p` are running, and 64 is the most; await some")  # type: ignore[index]


@pytest.mark.parametrize("how", ["terminate", "raise", "core", "busy"])
def test_however_a_parent_ends_its_children_end_before_it(gateway, how):
    inline = gateway.inline
    inline.add_core()
    source = HOLDER
    if how == "raise":
        source = HOLDER.replace("await session.receive()", "raise ValueError")
    elif how == "core":
        source = HOLDER.replace("    for", "    from inferlet import Context\n    ctx = Context()\n    for")
    elif how == "busy":
        source = HOLDER.replace("await session.receive()", "\n    while True: pass")
    pid = inline.launch(program(source, limits=Limits(cpu_s=0.1)), n=2)
    gateway.until(lambda: ("message", "child-2") in inline.events(pid))
    if how == "terminate":
        inline.host.receive_order(Terminate(pid))
    elif how == "core":
        inline.host.lose_core("boot")
    gateway.until(lambda: not inline.host.processes)
    inline.turn()
    codes = {"terminate": "cancelled", "raise": "exception", "core": "core_lost", "busy": "cpu_limit"}
    assert gateway.error_of(pid).code == codes[how]
    for child in gateway.children:
        error = gateway.error_of(child)
        assert (error.code, error.message) == ("cancelled", f"its parent, `p` ({pid}), has ended")


def test_grandchildren_end_too(gateway):
    gateway.programs["p"] = program(HOLDER)
    source = """
    from inferlet import runtime
    async def main() -> None:
        child = await runtime.launch("p")
        await anext(child.messages())
    """
    assert gateway.run(source) == ("return", None)
    assert [gateway.error_of(pid).code for pid in gateway.children] == ["cancelled", "cancelled"]


def test_a_child_whose_parent_has_ended_meanwhile_does_not_run(gateway):
    gateway.answers = False
    pid = gateway.inline.launch(
        program('from inferlet import runtime\nasync def main():\n    await runtime.launch("leaf")')
    )
    gateway.until(lambda: bool(gateway.asked))
    gateway.inline.host.receive_order(Terminate(pid))
    gateway.until(lambda: not gateway.inline.host.processes)
    gateway.answer(gateway.asked[0])
    gateway.inline.turn()
    assert gateway.error_of("child-1").message == f"its parent, {pid}, has ended, or does not want it any more"


def test_a_launch_that_is_called_off_ends_its_child(gateway):
    source = """
    import asyncio
    from inferlet import runtime, session
    async def main() -> str:
        task = asyncio.create_task(runtime.launch("waiter"))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        session.send("off")
        await session.receive()
    """
    gateway.answers = False
    pid = gateway.inline.launch(program(source))
    gateway.until(lambda: ("message", "off") in gateway.inline.events(pid))
    gateway.answers = True
    gateway.until(lambda: gateway.children == ["child-1"])
    gateway.inline.turn()
    assert gateway.error_of("child-1").code == "cancelled"
    gateway.inline.host.receive_order(Terminate(pid))
    gateway.until(lambda: not gateway.inline.host.processes)


def test_a_new_gateway_is_asked_again_for_what_none_has_answered(gateway):
    gateway.answers = False
    pid = gateway.inline.launch(program(HOLDER))
    gateway.until(lambda: bool(gateway.asked))
    first, *rest = gateway.inline.host.gain_gateway()
    assert isinstance(first, Registered)
    assert [wish for wish in rest if isinstance(wish, LaunchChild)] == gateway.asked
    gateway.answer(gateway.asked[0])
    assert not any(isinstance(report, LaunchChild) for report in gateway.inline.host.gain_gateway())
    gateway.inline.host.receive_order(Terminate(pid))
    gateway.until(lambda: not gateway.inline.host.processes)


def test_what_children_say_is_output_of_their_parent_too(gateway):
    gateway.programs["talker"] = program(
        'from inferlet import session\nasync def main() -> None:\n    for _ in range(20): session.send("x" * 1000)\n'
    )
    source = """
    from inferlet import ChildFailed, runtime
    async def main() -> list:
        codes = []
        for _ in range(3):
            child = await runtime.launch("talker")
            try:
                codes.append(await child.result())
            except ChildFailed as error:
                codes.append([error.failure.code, error.failure.message])
        return codes
    """
    kind, codes = gateway.run(program(source, limits=Limits(output_mb=0.05)))
    assert (kind, codes[:2]) == ("return", [None, None])  # type: ignore[index]
    code, message = codes[2]  # type: ignore[index]
    assert (code, message.endswith("with that of its children is more than 0.05 MB")) == ("output_limit", True)


def test_its_parent_is_the_client_that_a_child_waits_for(gateway):
    gateway.programs["talker"] = program(
        """
        from inferlet import session
        async def main() -> str:
            session.send("look")
            await session.drain()
            return "seen"
        """
    )
    source = """
    from inferlet import runtime
    async def main() -> str:
        return await (await runtime.launch("talker")).result()
    """
    assert gateway.run(source) == ("return", "seen")


def test_secrets_of_a_child_do_not_reach_its_parent(gateway):
    gateway.secrets = {"KEY": "hunter2"}
    gateway.programs["secretive"] = program(
        'from inferlet import runtime, session\nasync def main() -> str:\n    session.send(runtime.secret("KEY"))\n'
        '    return runtime.secret("KEY")\n',
        secrets=("KEY",),
    )
    source = """
    from inferlet import runtime
    async def main() -> list:
        child = await runtime.launch("secretive")
        return [[message async for message in child.messages()], await child.result()]
    """
    kind, value = gateway.run(source)
    assert (kind, "hunter2" in json.dumps(value)) == ("return", False)
    assert value == [["[secret KEY]"], "[secret KEY]"]


def test_futures_of_children_are_nothing_else(gateway):
    source = """
    from inferlet import _transport, errors
    async def main() -> list:
        said = []
        for call, more in (("next_of_child", ()), ("send_to_child", ("1",)), ("terminate_child", ())):
            try:
                _transport.call(getattr(_transport.host.runtime, call), 12345, *more)
            except errors.NotFound as error:
                said.append(error.message)
        return said
    """
    kind, said = gateway.run(source)
    assert (kind, said) == ("return", ["future 12345 is not a child, or is done with; each result is taken once"] * 3)


def test_input_that_is_no_json_is_refused(gateway):
    source = """
    from inferlet import _transport, errors
    async def main() -> str:
        try:
            _transport.call(_transport.host.runtime.launch, "leaf", "{", None)
        except errors.InvalidInput as error:
            return error.message
    """
    kind, said = gateway.run(source)
    assert (kind, str(said).startswith("the input is not JSON")) == ("return", True)


def test_who_waits_for_children_says_for_which(gateway):
    source = """
    import asyncio
    from inferlet import runtime
    async def main() -> None:
        waiter, leaf = await runtime.launch("waiter"), await runtime.launch("leaf")
        await leaf.result()
        await waiter.result()
    """
    inline, said = gateway.inline, {}
    pid = inline.launch(program(source))

    def waits() -> bool:
        said.update(inline.host.take_activities())
        return pid in said and (said[pid].state, said[pid].why) == ("waiting: children", "waiter")

    gateway.until(waits)
    inline.host.receive_order(Terminate(pid))
    gateway.until(lambda: not inline.host.processes)
