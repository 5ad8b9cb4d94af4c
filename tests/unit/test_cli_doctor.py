"""`pie doctor` and its findings."""

from __future__ import annotations

import ast
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_cli import checks
from pie_cli.checks import hardware, memory, models, running, storage, tools
from pie_cli.main import invoke
from pie_engine.config import EngineConfig, ModelSection, Paths, load_config
from pie_engine.hub import facts
from pie_engine.hub.places import resolve
from pie_engine.protocol.http import MemberView
from tests.unit.cli_standin import StandIn, short_home

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with short_home(monkeypatch) as folder:
        monkeypatch.setenv("PIE_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture
def standin(home: Path) -> Iterator[StandIn]:
    with StandIn(load_config().paths.api_socket) as daemon:
        yield daemon


def findings(capsys: Capture) -> tuple[int, dict[str, list[str]]]:
    """The exit code, and what `pie doctor` found by severity."""
    capsys.readouterr()
    code = invoke(["doctor", "--json"])
    found: dict[str, list[str]] = {}
    for finding in json.loads(capsys.readouterr().out)["findings"]:
        found.setdefault(finding["severity"], []).append(finding["message"])
    return code, found


def write_config(home: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (home / "config.toml").write_text(text)
    monkeypatch.setenv("PIE_CONFIG", str(home / "config.toml"))


def test_a_healthy_installation_exits_0(standin: StandIn, capsys: Capture) -> None:
    code, found = findings(capsys)
    assert code == 0
    assert "problem" not in found
    assert f"core pie-tiny is ready (process {os.getpid()})" in found["ok"]


def test_no_daemon_is_no_problem(home: Path, capsys: Capture) -> None:
    code, found = findings(capsys)
    assert code == 0
    assert "no daemon is running; `pie run` starts one" in found["note"]


def test_text_has_a_word_for_each_severity_and_the_fix(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(home, monkeypatch, '[[models]]\npath = "/no/such/folder"\n')
    assert invoke(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "problem  model folder /no/such/folder does not exist\n    fix  correct `path` in config.toml" in out


def test_a_wrong_setting_does_not_hide_the_daemon(
    standin: StandIn, home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(home, monkeypatch, "modles = []\n")
    code, found = findings(capsys)
    assert code == 1
    assert "unknown key `modles`" in found["problem"][0]
    assert f"core pie-tiny is ready (process {os.getpid()})" in found["ok"]


def test_an_unreadable_configuration_is_the_only_finding(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(home, monkeypatch, "[host\n")
    monkeypatch.delenv("PIE_HOME", raising=False)
    code, found = findings(capsys)
    assert code == 1
    assert list(found) == ["problem"]
    assert "line 1" in found["problem"][0]


def test_a_daemon_of_another_version_is_a_problem(standin: StandIn, capsys: Capture) -> None:
    standin.health["protocol"] = 9
    code, found = findings(capsys)
    assert code == 1
    assert "speaks protocol 9 and this command 1" in found["problem"][0]


def test_a_member_that_gave_up_is_a_problem(standin: StandIn, capsys: Capture) -> None:
    failed = {"code": "model_error", "message": "model.safetensors is cut off", "hint": "download it again"}
    standin.health["members"][-1] |= {"ready": False, "detail": {"failed": failed}}
    code, found = findings(capsys)
    assert code == 1
    assert "core pie-tiny does not start: model.safetensors is cut off" in found["problem"]


def test_deaths_are_explained(standin: StandIn, home: Path, capsys: Capture) -> None:
    incident = {
        "time": time.time(), "role": "core", "name": "pie-tiny", "boot_id": "b", "os_pid": 12,
        "reason": "killed by SIGKILL", "action": "started again", "stderr": ["", "last line"],
    }  # fmt: skip
    logs = home / "logs"
    logs.mkdir(mode=0o700)
    old = incident | {"time": time.time() - 10 * 86400}
    (logs / "incidents.jsonl").write_text("\n".join([json.dumps(old), json.dumps(incident), '{"cut off']))
    code, found = findings(capsys)
    assert code == 0
    (message,) = found["warning"]
    assert message.startswith("core pie-tiny was killed by SIGKILL at 2")
    assert message.endswith("; started again; last words: last line")


@pytest.mark.parametrize("code", ["invalid_config", "not_found", "unsupported", "model_error", "internal", ""])
def test_what_was_asked_for_wrongly_is_no_incident(home: Path, capsys: Capture, code: str) -> None:
    """A model that was not there yesterday, a port that was none: the installation is not to blame."""
    incident = {
        "time": time.time(), "role": "core", "name": "tiny", "os_pid": 12, "reason": "exit status 78",
        "action": "cannot start: model folder /tiny does not exist", "code": code,
    }  # fmt: skip
    (home / "logs").mkdir(mode=0o700)
    (home / "logs" / "incidents.jsonl").write_text(json.dumps(incident))
    _, found = findings(capsys)
    if code in ("internal", ""):
        assert "core tiny ended with exit status 78" in found["warning"][0]
    else:
        assert "warning" not in found
        assert "nothing has died within the last day" in found["ok"]


def test_folders_that_others_can_read_are_named(home: Path, capsys: Capture) -> None:
    home.chmod(0o755)
    assert f"others can look into {home}" in findings(capsys)[1]["warning"]


def test_little_room_is_a_warning_and_none_a_problem(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "LOW_BYTES", 1 << 60)
    assert any("nearly full" in message for message in findings(capsys)[1]["warning"])
    monkeypatch.setattr(storage, "FULL_BYTES", 1 << 60)
    assert findings(capsys)[0] == 1


def test_a_socket_without_a_daemon_is_explained(home: Path, capsys: Capture) -> None:
    paths = load_config().paths
    paths.run.mkdir(mode=0o700)
    paths.api_socket.touch()
    assert any("a killed daemon left" in message for message in findings(capsys)[1]["note"])


def test_a_configured_model_that_cannot_be_loaded_or_does_not_fit(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = home / "model"
    shutil.copytree(resolve("pie-tiny"), model)
    write_config(home, monkeypatch, f'[[models]]\npath = "{model}"\n')
    assert f"model model (cpu) in {model}" in findings(capsys)[1]["ok"]
    monkeypatch.setattr(facts, "available_bytes", lambda: 700 << 20)
    assert "model model does not fit now: 770 MiB needed, 700 MiB available" in findings(capsys)[1]["warning"]
    (model / "model.safetensors").unlink()
    code, found = findings(capsys)
    assert code == 1
    assert "has neither model.safetensors nor" in found["problem"][0]


def core_with(detail: dict[str, object]) -> MemberView:
    return MemberView("core", "pie-tiny", ready=True, os_pid=12, detail=detail)


def test_memory_of_a_core_is_weights_used_pages_and_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    pages_per_mib = (1 << 20) // page
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "statm").write_text(f"99999 {100 * pages_per_mib} 5 1 0 1 0")
    present, absent = bytes(7) + b"\x81", bytes(8)
    entries = absent * 3 + present * 16 * pages_per_mib + absent * 48 * pages_per_mib
    (tmp_path / "12" / "pagemap").write_bytes(entries)
    core, paths = core_with({"weight_bytes": 10 << 20}), Paths(tmp_path, tmp_path)
    paths.run.mkdir()
    paths.kv_regions(12).write_text(f"[[{3 * page}, {64 << 20}]]")
    found = memory.check(core, paths, tmp_path)
    assert found is not None
    assert found.severity == "ok"
    assert found.message == (
        "core pie-tiny holds 100 MiB of memory: 10 weights, 16 of 64 for KV pages, 74 for the rest"
    )
    with_draft = core_with({**core.detail, "draft_model": {"weight_bytes": 4 << 20}})
    found = memory.check(with_draft, paths, tmp_path)
    assert found is not None
    assert "14 weights, 16 of 64 for KV pages, 70 for the rest" in found.message
    monkeypatch.setattr(memory, "REST_BYTES", 70 << 20)
    found = memory.check(core, paths, tmp_path)
    assert found is not None
    assert found.severity == "warning"
    assert found.message.endswith("which is more than 70")


def test_the_pages_that_a_core_has_room_for() -> None:
    detail: dict[str, object] = {"num_pages": 24, "num_host_pages": 100, "page_bytes": 512 << 10}
    config = EngineConfig(models=(ModelSection(name="pie-tiny", offload_memory_mb=50),))
    found = memory.limits(core_with(detail), config)
    assert found is not None
    text = "core pie-tiny has room for 24 KV pages (12 MiB), and for 100 more in host memory (50 MiB)"
    assert (found.severity, found.message) == ("ok", text)
    found = memory.limits(core_with({**detail, "num_host_pages": 40}), config)
    assert found is not None
    assert found.severity == "note"
    assert "for 40 more in host memory (20 MiB): less than `offload_memory_mb` = 50" in found.message
    assert memory.limits(core_with({}), config) is None


def test_what_a_core_runs_on_and_why_it_is_slow() -> None:
    detail: dict[str, object] = {"kernels": "compiled", "num_threads": 1, "one_by_one": ""}
    found = running.check(core_with(detail))
    assert found is not None
    assert (found.severity, found.message) == ("ok", "core pie-tiny runs on compiled kernels, 1 thread")
    found = running.check(core_with({"kernels": "torch", "num_threads": 2, "one_by_one": "2 threads cut rows"}))
    assert found is not None
    assert (found.severity, found.fix) == ("warning", "set `num_threads = 1` of the model")
    assert found.message == (
        "core pie-tiny runs on PyTorch, 2 threads, one token at a time, which is slow: "
        "it is `deterministic`, and 2 threads cut rows"
    )
    found = running.check(core_with({"kernels": "torch", "num_threads": 1, "one_by_one": "its attention is its own"}))
    assert found is not None
    assert found.fix == "unset `deterministic` of the model"
    assert running.check(core_with({"driver": "fake", "kernels": ""})) is None


def test_a_system_that_does_not_tell_is_left_out(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    assert memory.check(core_with({}), paths, tmp_path) is None
    paths.run.mkdir()
    for regions in ("[[0, 4096]]", "[]", "?"):
        paths.kv_regions(12).write_text(regions)
        assert memory.check(core_with({}), paths, tmp_path) is None


def test_a_draft_model_that_is_not_there_is_named(home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(home, monkeypatch, '[[models]]\npath = "pie-tiny"\ndraft_model = "pie-tiny"\n')
    assert any(message.startswith("draft model of pie-tiny in ") for message in findings(capsys)[1]["ok"])
    write_config(home, monkeypatch, f'[[models]]\npath = "pie-tiny"\ndraft_model = "{home}/gone"\n')
    code, found = findings(capsys)
    assert code == 1
    assert found["problem"][0].startswith("draft model of pie-tiny: ")


def test_fix_repairs_what_loses_nothing_and_looks_again(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = load_config().paths
    paths.run.mkdir(parents=True)
    paths.logs.mkdir()
    paths.logs.chmod(0o755)
    paths.api_socket.write_text("")
    kernels = paths.cache / "kernels" / "old"
    kernels.mkdir(parents=True)
    os.utime(kernels, (0, 0))
    monkeypatch.setattr(storage, "LOW_BYTES", 2**62)
    assert invoke(["doctor", "--fix"]) == 0
    out, err = capsys.readouterr()
    assert f"{paths.logs} is this user's own now\n" in err
    assert f"removed {paths.api_socket}\n" in err
    assert "of old caches\n" in err
    assert paths.logs.stat().st_mode & 0o777 == 0o700
    assert not paths.api_socket.exists()
    assert not kernels.exists()
    assert "others can look" not in out
    assert "a killed daemon" not in out


def test_what_cannot_be_repaired_says_why(home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    paths = load_config().paths
    paths.logs.mkdir(parents=True)
    paths.logs.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", refuse)
    assert invoke(["doctor", "--fix"]) == 0
    out, err = capsys.readouterr()
    assert "could not: [Errno 1] Operation not permitted" in err
    assert "others can look into" in out


def test_a_driver_that_this_version_lacks_is_a_problem() -> None:
    (found,) = models.check(EngineConfig(models=(ModelSection(driver="cuda"),)))
    assert (found.severity, found.fix) == ("problem", "pie config set models.driver cpu")


def test_two_models_of_one_name_are_a_problem_as_for_the_daemon() -> None:
    found, *others = models.check(EngineConfig(models=(ModelSection(), ModelSection(), ModelSection(name="b"))))
    assert (found.severity, found.message) == ("problem", "2 models are called `pie-tiny`")
    assert [each.severity for each in others] == ["ok"] * 3


def test_each_warning_and_each_problem_says_what_to_do() -> None:
    """In the code of the checks, since most of them are hard to bring about."""
    bare = [
        f"{path.name}:{call.lineno}"
        for path in Path(checks.__file__).parent.glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Finding"
        if {"warning", "problem"} & {getattr(word, "value", "") for word in ast.walk(call.args[1])}
        if len(call.args) < 4
    ]
    assert bare == []


def test_a_cache_that_cannot_be_written_is_a_problem_and_its_own_disk_is_looked_at(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "cache").write_text("")
    code, found = findings(capsys)
    assert (code, found["problem"]) == (1, [f"nothing can be written to the cache folder {home / 'cache'}"])
    other = Path("/dev/shm")
    if other.is_dir() and other.stat().st_dev != home.stat().st_dev:
        monkeypatch.setenv("PIE_CACHE", str(other / "pie-cache"))
        said = findings(capsys)[1]["ok"]
        assert any(text.endswith(f"MiB free for {home}") for text in said)
        assert any(text.endswith(f"MiB free for {other / 'pie-cache'}") for text in said)


@pytest.mark.parametrize(
    ("role", "folder", "died"),
    [
        ("core", "kernels", {"reason": "killed by SIGSEGV", "action": "started again"}),
        ("host", "runtime", {"reason": "exit status 78", "action": "cannot start: no", "code": "internal"}),
    ],
)
def test_compiled_code_that_kills_again_and_again_is_taken_away_by_fix(
    role: str, folder: str, died: dict[str, str], home: Path, capsys: Capture
) -> None:
    cache = load_config().paths.cache
    for name in ("kernels", "runtime"):
        (cache / name / "built").mkdir(parents=True)
        os.utime(cache / name, (time.time() - 60,) * 2)
    incident = {"time": time.time() - 30, "role": role, "name": "x", "os_pid": 12, **died}
    (home / "logs").mkdir(mode=0o700)
    (home / "logs" / "incidents.jsonl").write_text("\n".join([json.dumps(incident)] * 3))
    code, found = findings(capsys)
    assert (code, len(found["problem"])) == (1, 3)
    assert invoke(["doctor", "--fix"]) == 0
    out, err = capsys.readouterr()
    assert err == f"removed {cache / folder}\n"
    assert f"see {home}/logs/x.log" in out
    assert [(cache / name).exists() for name in ("kernels", "runtime")] == [folder != "kernels", folder != "runtime"]
    (cache / folder).mkdir()  # made again
    assert "problem" not in findings(capsys)[1]


def test_a_single_crash_of_a_core_is_no_problem(home: Path, capsys: Capture) -> None:
    incident = {
        "time": time.time(), "role": "core", "name": "x", "os_pid": 12, "reason": "killed by SIGSEGV",
        "action": "started again",
    }  # fmt: skip
    (home / "logs").mkdir(mode=0o700)
    (home / "logs" / "incidents.jsonl").write_text(json.dumps(incident))
    code, found = findings(capsys)
    assert (code, len(found["warning"])) == (0, 1)


def test_a_gpu_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (found,) = hardware.check()
    assert (found.severity, found.message) == ("ok", "GPU 0: NVIDIA H200")
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert hardware.check()[0].severity == "warning"
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert hardware.check()[0].severity == "note"


def test_the_tool_chain_of_rust_is_named_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = tools.check()
    assert (found.severity, found.fix) == ("note", "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh")
    for name, said in (("cargo", "cargo 1.90.0 (1159e78c4)"), ("rustc", str(tmp_path))):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{said}'\n")
        (tmp_path / name).chmod(0o755)
    (found,) = tools.check()
    assert (found.severity, found.fix) == ("note", "rustup target add wasm32-wasip2")
    (tmp_path / "lib" / "rustlib" / "wasm32-wasip2").mkdir(parents=True)
    (found,) = tools.check()
    assert (found.severity, found.message) == ("ok", "cargo 1.90.0 builds for wasm32-wasip2")
