"""A process as a trace, in OTLP's JSON: one span for it, with children for the queue and for its generations.

See https://opentelemetry.io/docs/specs/otlp/#otlphttp and the attributes that
https://opentelemetry.io/docs/specs/semconv/gen-ai/ has for generations.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from pie_engine.gateway.process import Process
from pie_engine.protocol.to_gateway import Generation, Generations

INTERNAL, SERVER = 1, 2
OK, ERROR = 1, 2

Json = dict[str, Any]


def export_request(traces: Sequence[list[Json]], version: str) -> Json:
    """What a collector is sent: the spans of several traces."""
    resource = {"attributes": attributes({"service.name": "pie", "service.version": version})}
    spans = [span for trace in traces for span in trace]
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "pie"}, "spans": spans}]}]}


def spans_of(process: Process, started: float | None, told: Generations | None) -> list[Json]:
    """Of a process that has ended. `started`: when its host took it, if one did."""
    record, trace, root = process.record, _id(process.pid, 16), _id(f"{process.pid}/process", 8)
    assert process.ended is not None
    usage = process.usage
    known = {
        "pie.pid": process.pid,
        "pie.program": record.program,
        "pie.program.version": record.version,
        "pie.user": record.user,
        "pie.host": process.host or "",
        "pie.outcome": process.outcome or "",
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "pie.usage.cached_tokens": usage.cached_tokens,
    }
    if told is not None and told.num_left_out:
        known["pie.generations_left_out"] = told.num_left_out
    status: Json = {"code": OK} if process.outcome == "return" else {"code": ERROR, "message": process.outcome or ""}
    times = (record.created, process.ended)
    spans = [{**_span(trace, root, record.program, times, known), "kind": SERVER, "status": status}]

    def child(name: str, times: tuple[float, float], known: Json) -> Json:
        span = _span(trace, _id(f"{process.pid}/{len(spans)}", 8), name, times, known)
        spans.append(span | {"parentSpanId": root})
        return spans[-1]

    child("queue", (record.created, process.ended if started is None else started), {})
    for generation in told.generations if told is not None else ():
        span = child(f"generate {generation.model}", _times(generation, process.ended), _known_of(generation))
        if generation.first_token is not None:
            span["events"] = [{"name": "first token", "timeUnixNano": _nano(generation.first_token)}]
        if generation.finish == "error":
            span["status"] = {"code": ERROR}
    return spans


def _times(generation: Generation, ended: float) -> tuple[float, float]:
    """One that was under way when its process ended, ended with that."""
    return generation.began, ended if generation.ended is None else generation.ended


def _known_of(generation: Generation) -> Json:
    return {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.request.model": generation.model,
        "gen_ai.usage.input_tokens": generation.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": generation.usage.completion_tokens,
        "pie.usage.cached_tokens": generation.usage.cached_tokens,
        "pie.finish": generation.finish,
    }


def attributes(known: Json) -> list[Json]:
    """Values are texts or whole numbers; OTLP has the latter as texts, too."""
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in known.items()
    ]


def _span(trace: str, span: str, name: str, times: tuple[float, float], known: Json) -> Json:
    began, ended = times
    return {
        "traceId": trace,
        "spanId": span,
        "name": name,
        "kind": INTERNAL,
        "startTimeUnixNano": _nano(began),
        # Clocks of several processes: nothing ends before it begins.
        "endTimeUnixNano": _nano(max(began, ended)),
        "attributes": attributes(known),
    }


def _id(text: str, num_bytes: int) -> str:
    """The same for the same thing, so that what is sent twice is one."""
    return blake2b(text.encode(), digest_size=num_bytes).hexdigest()


def _nano(seconds: float) -> str:
    return str(round(seconds * 1e9))
