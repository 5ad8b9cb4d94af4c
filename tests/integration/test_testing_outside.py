"""The plugin as others have it: Pie installed elsewhere, a project of its own, plain pytest, and no torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "test-cache"
WITHOUT_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "numba", "zmq", "uvicorn", "fastapi"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, NoTorch())
"""
PROGRAM = """
from inferlet import Context, session
from words import polite

async def main(question: str) -> str:
    ctx = Context()
    ctx.user(polite(question))
    session.send(await ctx.generate())
    return ctx.last_text
"""
TESTS = """
import pytest
from pie_testing import PieError
from words import polite

def test_helper():
    assert polite("why?") == "Please: why?"

@pytest.mark.budget(tokens=100, passes=20, pages=3)
def test_answer(run, fake):
    fake.replies("Because.")
    result = run(question="why?")
    assert result.value == result.text == "Because."
    assert "Please: why?" in result.prompts[0]

async def test_client(start, fake):
    fake.replies("Because.")
    async with start(question="why?") as process:
        assert [message async for message in process.messages()] == ["Because."]

def test_refused(run):
    with pytest.raises(PieError, match="question"):
        run()
"""
BUSY = "async def main() -> None:\n    while True:\n        print('.', end='')\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A program and its tests, outside of the repository."""
    folder = tmp_path / "project"
    (folder / "tests").mkdir(parents=True)
    (folder / "pie.toml").write_text('[program]\nname = "polite"\n')
    (folder / "main.py").write_text(PROGRAM)
    (folder / "words.py").write_text("def polite(text):\n    return f'Please: {text}'\n")
    (folder / "tests" / "test_polite.py").write_text(TESTS)
    return folder


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PIE_CACHE": str(CACHE), "PIE_HOME": "/nonexistent", **more}


@pytest.mark.slow
def test_an_installed_pie_brings_the_plugin_to_plain_pytest(project, tmp_path):
    installed, blocker = tmp_path / "installed", tmp_path / "blocker"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(installed), str(ROOT)], check=True, capture_output=True, timeout=110)
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(WITHOUT_TORCH)
    env = environment(PYTHONPATH=f"{blocker}:{installed}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--junitxml=report.xml"],
        cwd=project, env=env, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert "4 passed" in done.stdout, done.stdout + done.stderr
    assert 'name="pie_tokens"' in (project / "report.xml").read_text()
    where = "import pie_testing.plugin, inferlet; print(pie_testing.plugin.__file__, inferlet.__file__)"
    shown = subprocess.run([sys.executable, "-c", where], cwd=project, env=env, capture_output=True, text=True)
    assert shown.stdout.count(str(installed)) == 2


@pytest.mark.slow
def test_the_same_tests_pass_on_a_daemon(project):
    tests = project / "tests" / "test_polite.py"
    # What a daemon does not tell.
    tests.write_text(tests.read_text().replace('    assert "Please: why?" in result.prompts[0]\n', ""))
    home = environment(PIE_HOME="")
    done = pie_test(project, "--engine", "daemon", env=home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_ctrl_c_ends_a_busy_program_and_the_run(project):
    (project / "main.py").write_text(BUSY)
    (project / "tests" / "test_polite.py").write_text("def test_it(run):\n    print('begun', flush=True)\n    run()\n")
    command = [sys.executable, "-m", "pie_cli", "test", "--", "-s"]
    running = subprocess.Popen(
        command, cwd=project, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert running.stdout is not None
    for line in running.stdout:
        if "begun" in line:
            break
    time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "KeyboardInterrupt" in said
    assert "Warning" not in said, "of plugins that happen to be installed"
    assert "Traceback" not in said


def pie_test(project: Path, *args: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pie_cli", "test", *args]
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=110)
