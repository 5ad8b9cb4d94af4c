"""What a program prints and logs."""

from __future__ import annotations


def test_prints_arrive_whole_and_in_order_with_messages(sandbox):
    program = """
    import logging, sys
    from inferlet import log, session

    async def main():
        print("a", end="")
        session.send(1)
        print("b")
        print("ü" * 100_000)
        sys.stdout.buffer.write(b"bytes\\n")
        print("err", file=sys.stderr)
        log.info("x", 1)
        logging.getLogger("lib").warning("careful %d", 3)
        print("last", end="")
    """
    outcome = sandbox.call("run", program)
    stdout = "".join(text for name, text in outcome.host.printed if name == "stdout")
    assert stdout == "ab\n" + "ü" * 100_000 + "\nbytes\nlast"
    assert max(len(text.encode()) for _, text in outcome.host.printed) <= 65536
    assert ("stderr", "err\n") in outcome.host.printed
    assert outcome.host.logs == [("info", "x 1"), ("warning", "careful 3")]


def test_logging_goes_to_the_log_whatever_is_configured(sandbox):
    program = """
    import logging
    from inferlet import log

    logging.warning("first %d", 1)
    logging.basicConfig(level=logging.DEBUG, format="%(name)s")
    logger = logging.getLogger(__name__)

    async def main():
        logger.debug("details")
        logger.info("on %s", "it")
        log.info("x %s", 3)
        try:
            1 / 0
        except ZeroDivisionError:
            logger.exception("bad")
    """
    outcome = sandbox.call("run", program)
    *logs, (level, last) = outcome.host.logs
    assert logs == [("warning", "first 1"), ("info", "on it"), ("info", "x 3")]
    assert level == "error"
    assert last.startswith("bad\nTraceback")
    assert last.endswith("ZeroDivisionError: division by zero")
    assert outcome.host.printed == []


def test_streamed_prints_show_before_the_program_waits(sandbox):
    program = (
        "import asyncio\nasync def main():\n    print('.', end='')\n    await asyncio.sleep(0.001)\n    print('!')\n"
    )
    assert [text for _, text in sandbox.call("run", program).host.printed] == [".", "!\n"]
