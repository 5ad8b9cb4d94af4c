"""Python programs: Python itself, the SDK and the program in one component, by componentize-py."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import msgspec

from pie_engine.builder.build import Made
from pie_engine.builder.componentize import (
    SECONDS,
    TOOL,
    ComponentizeFailed,
    Progress,
    componentize,
    digest_of_sources,
    lasting,
    moving,
    require_tool,
    wit_digest,
)
from pie_engine.builder.record import Record, package_versions
from pie_engine.errors import ErrorInfo, Internal
from pie_engine.protocol.program import GUEST_PYTHON, Bundle, Signature
from pie_engine.protocol.version import pie_version

log = logging.getLogger(__name__)

APP = "inferlet._runtime.standalone"
PROGRAM_MODULE = "pie_program"
REPORT, REPORT_END = b"pie-build-report: ", b" :pie-build-report"
"""Around what the application says: in its memory, or on its stderr when it gives up. As in `rehearsal`."""
TEXT = "building the component"


class PythonBuilder:
    """Seconds of componentize-py for each content."""

    def key(self) -> bytes:
        return digest_of_sources()

    def make(self, bundle: Bundle, folder: Path, progress: Progress) -> Made:
        wasm = folder / "program.wasm"
        sources, data = bundle.guest_files()
        manifest = bundle.manifest
        head = {"name": manifest.name, "version": manifest.version, "entry": manifest.entry}
        parts = {**head, "files": sources, "compiled": bundle.own_modules()}
        module = f"BUNDLE = {json.dumps(parts)!r}\n"
        with moving(progress, TEXT, 0.0, 1.0, SECONDS):
            report = _report_of(wasm, folder, module)
            component = lasting(wasm.read_bytes(), log.warning)
        tools = {TOOL: require_tool(), "python": ".".join(map(str, GUEST_PYTHON))}
        record = Record(
            manifest=manifest,
            language="python",
            digest=bundle.digest,
            pie=pie_version(),
            wit=wit_digest(),
            tools=tools,
            packages=package_versions(bundle),
            signature=_signature_in(report),
        )
        return Made(component, record, data)


def _report_of(wasm: Path, folder: Path, module: str) -> dict[str, Any]:
    try:
        componentize(APP, folder, wasm, {PROGRAM_MODULE: module})
    except ComponentizeFailed as failure:
        report = _report_in(failure.said.encode())
        if report is None or "error" not in report:
            raise
        raise msgspec.convert(report["error"], ErrorInfo).raised() from failure
    report = _report_in(wasm.read_bytes())
    if report is None:
        raise Internal("the application of the component said nothing while it was built", hint="reinstall Pie")
    return report


def _report_in(said: bytes) -> dict[str, Any] | None:
    for part in said.split(REPORT)[1:]:
        text, mark, _ = part.partition(REPORT_END)
        if mark and text.startswith(b"{"):
            report: dict[str, Any] = json.loads(text)
            return report
    return None


def _signature_in(report: dict[str, Any]) -> Signature | None:
    return msgspec.convert(report["signature"], Signature) if "signature" in report else None
