"""Programs of the machine that some tests need; `make test-all` installs those that are missing."""

from __future__ import annotations

import shutil

import pytest


def program(config: pytest.Config, package: str, *names: str) -> str:
    """The path of the one of `names` that is there. With none the test is skipped, and fails under `--slow`, which
    leaves out nothing.

    package: what to install, by its name on Debian.
    """
    found = next(filter(None, map(shutil.which, names)), None)
    if found is not None:
        return found
    missing = (
        f"none of these programs is installed: {', '.join(names)}; with Debian's packages: apt-get install {package}"
    )
    if config.getoption("--slow"):
        pytest.fail(missing)
    pytest.skip(missing)
