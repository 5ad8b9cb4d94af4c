"""Before a program is put into a component: it is imported once, over a fake host, and compiled."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from inferlet._runtime.importer import BundleImporter
from inferlet._runtime.program import Outcome
from inferlet._runtime.warmup import Restored
from inferlet.testing import FakeHost

REPORT, REPORT_END = b"pie-build-report: ", b" :pie-build-report"
"""Around what came of it, by which the host finds it in memory."""


def report_of(report: dict[str, Any]) -> bytes:
    return REPORT + json.dumps(report).encode("ascii") + REPORT_END


def rehearse(bundle: str, describe: Callable[[str], Outcome]) -> tuple[str, dict[str, Any]]:
    """The bundle with the compiled code of all its modules, and `{"signature": …}` or `{"error": …}` of its `main`.

    A module of a package that does not compile stays as it is: whether that matters only an import tells.
    """
    with Restored(FakeHost()):
        is_ok, text = describe(bundle)
    parts = json.loads(bundle)
    parts.pop("compiled", None)
    parts["code"] = _compiled(parts["files"])
    return json.dumps(parts), {"signature" if is_ok else "error": json.loads(text)}


def _compiled(files: dict[str, str]) -> dict[str, str]:
    host = FakeHost()
    with Restored(host):
        importer = BundleImporter(files, {})
        for path in importer.files:
            if path.endswith(".py"):
                try:
                    importer.code_of(path)
                except (SyntaxError, ValueError):
                    continue
    return dict(host.stored_code)
