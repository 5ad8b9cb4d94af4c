"""Messages to the process's log, by `inferlet.log` and by the standard `logging`."""

from __future__ import annotations

import logging

import pytest

from inferlet import log
from inferlet.testing import run_inferlet


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (("tried", 3, "candidates"), "tried 3 candidates"),
        (("tried %d candidates of %s", 3, "four"), "tried 3 candidates of four"),
        (("%(n)d tried", {"n": 3}), "3 tried"),
        (("state", {"n": 3}), "state {'n': 3}"),
        (("100%", 3), "100% 3"),
        (("100%",), "100%"),
        (("%d tried", "none"), "%d tried none"),
        ((3,), "3"),
        ((), ""),
    ],
)
def test_values_are_put_in_or_joined(values, text):
    async def main():
        log.info(*values)

    assert run_inferlet(main).logs == [("info", text)]


def test_the_handler_gives_records_their_level():
    logger = logging.Logger("lib", logging.DEBUG)
    logger.addHandler(log.HostHandler())

    async def main():
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
            logger.log(level, "at %d %%", level)

    levels = [level for level, _ in run_inferlet(main).logs]
    assert levels == ["debug", "info", "warning", "error", "error"]
    assert run_inferlet(main).logs[0] == ("debug", "at 10 %")
