"""A profile as a trace that Perfetto (ui.perfetto.dev) and chrome://tracing show.

The format is Chrome's "Trace Event Format", in its JSON object form. One track for each task of asyncio, below them one
for each model with its steps and what each operation waited for. Times are in microseconds since the launch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pie_cli.profiles.awaits import awaits
from pie_cli.profiles.model import Profile
from pie_cli.profiles.phases import parts_of
from pie_cli.profiles.read import KEY, Collected

PROGRAM_PID = 1
RUN_TID = 1
"""When the program ran and when it waited; its tasks come below."""
STEP_TID = 1

Event = dict[str, Any]


def trace_text(profile: Profile, collected: Collected) -> str:
    """The JSON of a trace file. What it was made of is in it as well, for `pie profile`."""
    events = ",\n".join(json.dumps(event, ensure_ascii=False) for event in trace_events(profile))
    other = {"program": f"{profile.program}@{profile.version}", "pid": profile.pid, "launched": profile.launched}
    rest = json.dumps({"displayTimeUnit": "ms", "otherData": other, KEY: collected.embedded()})
    return f'{{"traceEvents": [\n{events}\n],\n{rest[1:]}\n'


def trace_events(profile: Profile) -> list[Event]:
    return [*_program(profile), *_models(profile)]


def _program(profile: Profile) -> Iterator[Event]:
    yield _name("process_name", PROGRAM_PID, 0, f"{profile.program}@{profile.version} {profile.pid}")
    yield _name("thread_name", PROGRAM_PID, RUN_TID, "program")
    outside = [""] if any(not call.task for call in profile.calls) else []
    tids = {task: RUN_TID + 1 + index for index, task in enumerate([*outside, *profile.tasks])}
    for task, tid in tids.items():
        yield _name("thread_name", PROGRAM_PID, tid, task or "outside of tasks")
        yield {"ph": "M", "name": "thread_sort_index", "pid": PROGRAM_PID, "tid": tid, "args": {"sort_index": tid}}
    for run in profile.runs:
        yield _slice("run", "python", PROGRAM_PID, RUN_TID, run.at, run.took, cpu_us=run.cpu)
    for wait in profile.waits:
        yield _slice("wait", "wait", PROGRAM_PID, RUN_TID, wait.at, wait.took, ready=wait.num_ready)
    for each in awaits(profile):
        name, tid = f"await {each.place or '?'}", tids[each.task]
        yield _slice(name, "await", PROGRAM_PID, tid, each.at, each.took, future=each.handle)
    for call in profile.calls:
        detail = {key: value for key, value in call.detail.items() if key != "beginnings"}
        args = {"line": call.place, **({"ctx": call.ctx} if call.ctx else {}), **detail}
        yield _slice(call.function, "call", PROGRAM_PID, tids[call.task], call.at, call.took, **args)


def _models(profile: Profile) -> Iterator[Event]:
    for index, (model, steps) in enumerate(profile.steps.items()):
        pid = PROGRAM_PID + 1 + index
        yield _name("process_name", pid, 0, f"model {model}")
        yield _name("thread_name", pid, STEP_TID, "steps")
        for step in steps:
            parts = ("prefill", step.num_prefill), ("decode", step.num_decode)
            what = " + ".join(f"{name} {count}" for name, count in parts if count)
            own = {str(op): count for op, count in step.mine}
            counts = {"prefill": step.num_prefill, "decode": step.num_decode, "sequences": step.num_sequences}
            yield _slice(what, "step", pid, STEP_TID, step.at, step.took, step=step.number, **counts, own=own)
            held, free = step.num_held_pages, step.num_free_pages
            yield {"ph": "C", "name": "KV pages", "pid": pid, "ts": step.at, "args": {"held": held, "free": free}}
            tokens = {"prefill": step.num_prefill, "decode": step.num_decode}
            yield {"ph": "C", "name": "tokens of a step", "pid": pid, "ts": step.at, "args": tokens}
        for handle, operation in profile.operations.items():
            if operation.model == model:
                yield from _operation(profile, handle, pid)


def _operation(profile: Profile, handle: int, pid: int) -> Iterator[Event]:
    """Its own track: what it was in at each time."""
    operation = profile.operations[handle]
    ids = {"cat": "operation", "pid": pid, "tid": STEP_TID, "id": handle}
    parts = parts_of(operation, profile.wall_us)
    if not parts or operation.last is None:
        return
    last = operation.last
    args = {"line": operation.start.place, "task": operation.start.task, "ctx": operation.start.ctx}
    args |= {"prompt": last.prompt, "cached": last.cached, "prefilled": last.num_prefill, "generated": last.completion}
    name = f"{operation.kind} {handle}"
    yield {"ph": "b", "name": name, "ts": parts[0][0], "args": args, **ids}
    for begin, end, phase in parts:
        yield {"ph": "b", "name": phase, "ts": begin, **ids}
        yield {"ph": "e", "name": phase, "ts": end, **ids}
    yield {"ph": "e", "name": name, "ts": parts[-1][1], **ids}


def _slice(name: str, kind: str, pid: int, tid: int, at: int, took: int, **args: Any) -> Event:
    return {"ph": "X", "name": name, "cat": kind, "pid": pid, "tid": tid, "ts": at, "dur": took, "args": args}


def _name(what: str, pid: int, tid: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}
