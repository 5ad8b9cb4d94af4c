"""`pie model`: list, pull, info, check and remove, as they are typed."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pie_cli import console
from pie_cli.main import invoke
from pie_engine.config import load_config
from pie_engine.hub import facts
from pie_engine.hub.places import give_name, resolve
from tests.unit.cli_standin import StandIn, short_home
from tests.unit.hub_standin import HubStandIn

Capture = pytest.CaptureFixture[str]
TINY = resolve("pie-tiny")
FILES = {path.name: path.read_bytes() for path in TINY.iterdir() if path.suffix in (".json", ".safetensors")}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with short_home(monkeypatch) as folder:
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        monkeypatch.setenv("HF_HOME", str(folder / "hf"))
        monkeypatch.delenv("PIE_CONFIG", raising=False)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
        yield folder


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as running:
        running.add("org/tiny", dict(FILES))
        yield running


@pytest.fixture
def mine(home: Path) -> Path:
    """A model of the user's own."""
    folder = home / "mine"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


def listed(capsys: Capture) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert invoke(["model", "list", "--json"]) == 0
    return {model["name"]: model for model in json.loads(capsys.readouterr().out)["models"]}


class TestPull:
    def test_from_a_hub(self, hub: HubStandIn, capsys: Capture) -> None:
        assert invoke(["model", "pull", "org/tiny", "--endpoint", hub.endpoint]) == 0
        out, err = capsys.readouterr()
        assert out.strip() == str(resolve("org/tiny"))
        assert "fetching model.safetensors …" in err.splitlines()
        assert f"org/tiny at cccccccccccc: {len(FILES)} files" in err
        assert "checked: SHA-256 of 3, Git hash of 3" in err
        assert "`pie serve --model org/tiny` serves it" in err

    def test_a_revision_and_a_name(self, hub: HubStandIn, capsys: Capture) -> None:
        hub.add("org/tiny@v2", dict(FILES), commit="d" * 40)
        words = ["org/tiny", "--revision", "v2", "--name", "two", "--endpoint", hub.endpoint]
        assert invoke(["model", "pull", *words]) == 0
        assert "`pie serve --model two` serves it" in capsys.readouterr().err
        assert set(listed(capsys)) == {"pie-tiny", "two", "org/tiny@v2"}
        assert resolve("two", load_config().paths) == resolve("org/tiny@v2")

    @pytest.mark.parametrize(
        ("words", "code", "says"),
        [
            (["org/none"], 4, "has no model org/none"),
            (["org/tiny", "--revision", "v9"], 4, "org/tiny has no revision `v9`"),
            (["a b"], 2, "error: `a b` is neither a folder nor the id of a model\nhint: an id is ORG/NAME"),
            (["./none"], 4, "does not exist"),
        ],
    )
    def test_what_is_not_there(self, words: list[str], code: int, says: str, hub: HubStandIn, capsys: Capture) -> None:
        assert invoke(["model", "pull", *words, *([] if words == ["./none"] else ["--endpoint", hub.endpoint])]) == code
        assert says in capsys.readouterr().err

    def test_no_connection(self, capsys: Capture) -> None:
        assert invoke(["model", "pull", "org/tiny", "--endpoint", "http://127.0.0.1:9"]) == 1
        assert "error: the connection to http://127.0.0.1:9 failed" in capsys.readouterr().err

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert invoke(["model", "pull", "org/tiny"]) == 3
        err = capsys.readouterr().err
        assert "error: `pie model pull` needs huggingface_hub, which is not installed" in err
        assert "hint: install Pie with its extra `engine`" in err

    def test_a_folder_gets_a_name_and_stays(self, mine: Path, capsys: Capture) -> None:
        assert invoke(["model", "pull", str(mine)]) == 0
        assert f"`mine` is {mine}: LlamaForCausalLM, 7.6 MiB" in capsys.readouterr().err
        assert listed(capsys)["mine"]["folder"] == str(mine)

    def test_a_folder_that_is_no_model_is_refused(self, mine: Path, capsys: Capture) -> None:
        weights = mine / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-10])
        assert invoke(["model", "pull", str(mine)]) == 3
        assert "truncated" in capsys.readouterr().err
        (mine / "tokenizer.json").unlink()
        weights.write_bytes(FILES["model.safetensors"])
        assert invoke(["model", "pull", str(mine)]) == 3
        assert "has no tokenizer" in capsys.readouterr().err
        assert set(listed(capsys)) == {"pie-tiny"}

    def test_a_folder_has_no_revision(self, mine: Path, capsys: Capture) -> None:
        assert invoke(["model", "pull", str(mine), "--revision", "v2"]) == 2
        assert "`--revision` is for models of a hub" in capsys.readouterr().err

    def test_ctrl_c_leaves_what_came(self, hub: HubStandIn, home: Path) -> None:
        big = os.urandom(3 << 20)
        hub.add("org/tiny", FILES | {"model.safetensors": big})
        hub.cuts["model.safetensors"] = [2 << 20]
        hub.holds_rests = True
        hub.gate.clear()
        command = [sys.executable, "-m", "pie_cli", "model", "pull", "org/tiny", "--endpoint", hub.endpoint]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 30
        while time.monotonic() < end and len(hub.ranges.get("model.safetensors", [])) < 2:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        hub.gate.set()
        assert process.returncode == 130
        assert "interrupted; `pie model pull org/tiny` goes on from here" in err
        blobs = home / "hf" / "hub" / "models--org--tiny" / "blobs"
        assert [path.stat().st_size for path in blobs.glob("*.incomplete")] == [2 << 20]
        assert invoke(["model", "pull", "org/tiny", "--endpoint", hub.endpoint]) == 0
        assert hub.ranges["model.safetensors"][-1] == f"bytes={2 << 20}-"


class TestList:
    def test_what_is_here(self, hub: HubStandIn, capsys: Capture) -> None:
        invoke(["model", "pull", "org/tiny", "--endpoint", hub.endpoint])
        capsys.readouterr()
        assert invoke(["model", "list"]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert lines == [
            ["MODEL", "SIZE", "ARCHITECTURE", "DTYPE", "SOURCE", "STATE"],
            ["pie-tiny", "7.6", "MiB", "LlamaForCausalLM", "bfloat16", "shipped", "configured"],
            ["org/tiny", "7.6", "MiB", "LlamaForCausalLM", "bfloat16", "cached"],
        ]

    def test_what_is_configured_and_what_is_broken(
        self, home: Path, mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
    ) -> None:
        sections = f'[[models]]\npath = "{mine}"\n[[models]]\npath = "/gone"\n'
        (home / "config.toml").write_text(sections)
        monkeypatch.setenv("PIE_CONFIG", str(home / "config.toml"))
        models = listed(capsys)
        assert (models[str(mine)]["source"], models[str(mine)]["is_configured"]) == ("configured", True)
        assert models["/gone"]["problem"] == "model folder /gone does not exist"
        assert not models["pie-tiny"]["is_configured"]

    def test_what_the_daemon_uses(self, capsys: Capture) -> None:
        with StandIn(load_config().paths.api_socket) as daemon:
            daemon.health["members"][-1]["detail"] = {"folder": str(TINY)}
            assert listed(capsys)["pie-tiny"]["in_use"]

    @pytest.mark.parametrize(("asked", "used"), [("one", {"one"}), ("two", {"two"}), ("elsewhere", {"one", "two"})])
    def test_of_two_names_of_a_folder_the_one_that_was_asked_for_is_in_use(
        self, mine: Path, capsys: Capture, asked: str, used: set[str]
    ) -> None:
        for name in ("one", "two"):
            give_name(load_config().paths.names, name, mine)
        with StandIn(load_config().paths.api_socket) as daemon:
            detail = {"folder": str(mine), "path": asked}
            daemon.health["members"][-1]["detail"] = {
                "folder": str(TINY), "path": "pie-tiny", "draft_model": {"folder": str(mine), "model": asked}
            }  # fmt: skip
            assert {name for name, model in listed(capsys).items() if model["in_use"]} == {*used, "pie-tiny"}
            daemon.health["members"][-1]["detail"] = detail
            assert {name for name, model in listed(capsys).items() if model["in_use"]} == used


class TestInfo:
    def test_a_model_that_fits(self, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        monkeypatch.setattr(facts, "available_bytes", lambda: 8 << 30)
        assert invoke(["model", "info", "pie-tiny"]) == 0
        lines = capsys.readouterr().out.splitlines()
        rows = {line[:13].strip(): line[13:].strip() for line in lines}
        assert rows["weights"] == "15.1 MiB in float32, 7.6 MiB in bfloat16, 3.8 MiB in int8, 2.6 MiB in int4"
        assert rows["KV"] == "2.5 KiB a token, 5.0 MiB for 2,048 tokens"
        assert rows["fits here"].startswith(
            "yes in float32: 783 MiB of 8.0 GiB; yes in bfloat16: 776 MiB of 8.0 GiB; yes"
        )

    def test_a_model_that_does_not_fit(self, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        monkeypatch.setattr(facts, "available_bytes", lambda: 780 << 20)
        assert invoke(["model", "info", "pie-tiny"]) == 0
        assert "no in float32: 783 MiB of 780 MiB; yes in bfloat16" in capsys.readouterr().out

    def test_as_json(self, capsys: Capture) -> None:
        assert invoke(["model", "info", "pie-tiny", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["shape"]["num_parameters"] == 3_967_744
        assert told["has_chat_template"] is True
        assert told["memory"]["weights"]["bfloat16"] == 2 * 3_967_744
        assert told["memory"]["kv_per_token"] == 2 * 5 * 2 * 64 * 2

    def test_a_model_that_pie_cannot_load(self, mine: Path, capsys: Capture) -> None:
        (mine / "config.json").write_text('{"architectures": ["T5Model"], "dtype": "float16"}')
        assert invoke(["model", "info", str(mine)]) == 1
        out, err = capsys.readouterr()
        assert "architecture   T5Model" in out
        assert "T5Model" in err

    def test_without_torch(self) -> None:
        command = [sys.executable, "-X", "importtime", "-m", "pie_cli", "model", "info", "pie-tiny"]
        err = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stderr
        modules = {line.rsplit("|", 1)[-1].strip() for line in err.splitlines()}
        assert modules & {"torch", "numpy", "jinja2", "tokenizers", "huggingface_hub"} == set()


class TestCheck:
    def findings(self, capsys: Capture, *words: str) -> tuple[int, dict[str, tuple[str, str]]]:
        capsys.readouterr()
        code = invoke(["model", "check", *words, "--json"])
        found = json.loads(capsys.readouterr().out)["findings"]
        return code, {finding["check"]: (finding["severity"], finding["message"]) for finding in found}

    def test_a_whole_model(self, capsys: Capture) -> None:
        code, found = self.findings(capsys, "pie-tiny")
        assert code == 0
        assert {severity for severity, _ in found.values()} == {"ok"}
        assert found["tensors"][1].startswith("LlamaForCausalLM: 47 tensors, 3,967,744 parameters in 1 file")

    def test_checksums_of_the_hub(self, hub: HubStandIn, capsys: Capture) -> None:
        invoke(["model", "pull", "org/tiny", "--endpoint", hub.endpoint])
        code, found = self.findings(capsys, "org/tiny")
        assert (code, found["files"]) == (0, ("ok", "3 files have the hub's SHA-256, 3 its Git hash"))
        weights = resolve("org/tiny") / "model.safetensors"
        weights.resolve().write_bytes(FILES["model.safetensors"][:-1] + b"\0")
        code, found = self.findings(capsys, "org/tiny")
        assert (code, found["files"]) == (1, ("problem", "the checksum of model.safetensors is not the hub's"))

    @pytest.mark.parametrize(
        ("name", "text", "check", "says"),
        [
            ("tokenizer.json", "{}", "tokenizer", "tokenizer.json"),
            ("tokenizer_config.json", '{"chat_template": "{% if %}"}', "template", "syntax error in line 1"),
            ("tokenizer_config.json", '{"chat_template": "hello"}', "template", "loses the user's message"),
            ("config.json", "{}", "tensors", "names no architecture"),
        ],
    )
    def test_what_is_broken_is_named(
        self, name: str, text: str, check: str, says: str, mine: Path, capsys: Capture
    ) -> None:
        (mine / name).write_text(text)
        code, found = self.findings(capsys, str(mine))
        assert code == 1
        severity, message = found[check]
        assert severity == "problem"
        assert says in message

    def test_a_tokenizer_of_another_model(self, mine: Path, capsys: Capture) -> None:
        config = json.loads(FILES["config.json"])
        (mine / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
        code, found = self.findings(capsys, str(mine))
        assert code == 1
        assert "the model knows 100" in found["tokenizer"][1]

    def test_what_it_says_is_shown(self, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        commands = []

        def run(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
            commands.append(command[1:])
            said = {"text": "I am Pie.", "num_tokens": 4, "dtype": "bfloat16", "ms_per_token": 2.0, "load_s": 0.5}
            return subprocess.CompletedProcess(command, 0, json.dumps(said), "")

        monkeypatch.setattr("subprocess.run", run)
        code, found = self.findings(capsys, "pie-tiny", "--run")
        assert (code, commands) == (0, [["-m", "pie_engine.driver.tryout", str(TINY)]])
        assert re.match(r"4 tokens in bfloat16 at .*: \"I am Pie\.\"", found["run"][1]), found["run"]

    @pytest.mark.slow
    def test_running_it(self, capsys: Capture) -> None:
        code, found = self.findings(capsys, "pie-tiny", "--run")
        assert code == 0
        assert re.match(r"\d+ tokens in bfloat16 at ", found["run"][1])
        assert '"I am' in found["run"][1]

    @pytest.mark.parametrize(
        ("out", "err", "says"),
        [
            ('{"error": {"code": "model_error", "message": "it is broken"}}', "", "it is broken"),
            ("", "Killed", "running it failed: Killed"),
            ("", "", "running it failed: exit status -9"),
        ],
    )
    def test_what_does_not_run_is_a_problem(
        self, out: str, err: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
    ) -> None:
        done = subprocess.CompletedProcess([], -9, out, err)
        monkeypatch.setattr("subprocess.run", lambda *args, **options: done)
        code, found = self.findings(capsys, "pie-tiny", "--run")
        assert (code, found["run"]) == (1, ("problem", says))


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hugging Face's home after two pulls."""
    folder = tmp_path_factory.mktemp("pulled")
    with pytest.MonkeyPatch.context() as patch, short_home(patch), HubStandIn() as hub:
        patch.delenv("HF_HUB_CACHE", raising=False)
        patch.setenv("HF_HOME", str(folder))
        hub.add("org/tiny", dict(FILES))
        hub.add("org/tiny@v2", FILES | {"tokenizer_config.json": b"{ }"}, commit="d" * 40)
        for model in ("org/tiny", "org/tiny@v2"):
            assert invoke(["model", "pull", model, "--endpoint", hub.endpoint]) == 0
    return folder


class TestRemove:
    @pytest.fixture(autouse=True)
    def _copied(self, pulled: Path, home: Path) -> None:
        shutil.copytree(pulled, home / "hf", symlinks=True)

    def test_a_model_with_everything(self, home: Path, capsys: Capture) -> None:
        assert invoke(["model", "remove", "org/tiny", "--yes"]) == 0
        assert "removed org/tiny (7.7 MiB)" in capsys.readouterr().err
        assert not list((home / "hf" / "hub").glob("models--*"))

    def test_one_revision_keeps_what_others_need(self, capsys: Capture) -> None:
        assert invoke(["model", "remove", "org/tiny@v2", "--yes"]) == 0
        assert "removed org/tiny@v2 (3 B)" in capsys.readouterr().err
        assert set(listed(capsys)) == {"pie-tiny", "org/tiny"}
        assert invoke(["model", "check", "org/tiny"]) == 0
        assert invoke(["model", "remove", "org/tiny@main", "--yes"]) == 0
        assert set(listed(capsys)) == {"pie-tiny"}

    def test_a_name_only(self, mine: Path, capsys: Capture) -> None:
        invoke(["model", "pull", str(mine)])
        assert invoke(["model", "remove", "mine", "--yes"]) == 0
        assert f"removed the name mine ({mine} stays)" in capsys.readouterr().err
        assert (mine / "config.json").exists()
        assert "mine" not in listed(capsys)

    def test_it_asks(self, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        monkeypatch.setattr(console, "is_asked", lambda: True)
        for answer, is_there in (("", True), ("n\n", True), ("yes\n", False)):
            monkeypatch.setattr("sys.stdin", io.StringIO(answer))
            assert invoke(["model", "remove", "org/tiny"]) == 0
            assert "remove org/tiny (7.7 MiB)? [y/N]" in capsys.readouterr().err
            assert ("org/tiny" in listed(capsys)) is is_there

    def test_nobody_to_ask(self, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        monkeypatch.setattr(console, "is_asked", lambda: False)
        assert invoke(["model", "remove", "org/tiny"]) == 2
        assert "hint: add --yes" in capsys.readouterr().err

    def test_what_is_in_use_stays(self, capsys: Capture) -> None:
        with StandIn(load_config().paths.api_socket) as daemon:
            daemon.health["members"][-1]["detail"] = {"folder": str(resolve("org/tiny"))}
            assert invoke(["model", "remove", "org/tiny", "--yes"]) == 1
            assert "org/tiny is in use by the running daemon (core pie-tiny)" in capsys.readouterr().err
            assert invoke(["model", "remove", "org/tiny@main", "--yes"]) == 1
            assert invoke(["model", "remove", "org/tiny@v2", "--yes"]) == 0
        assert "org/tiny" in listed(capsys)

    def test_a_gguf_file_in_use_keeps_its_name(self, home: Path, capsys: Capture) -> None:
        file, unpacked = home / "a.gguf", home / "cache" / "a"
        file.write_bytes(b"GGUF")
        unpacked.mkdir(parents=True)
        (unpacked / "gguf.json").write_text(json.dumps({"file": str(file), "size": 4, "tensors": {}}))
        give_name(load_config().paths.names, "mine", file)
        with StandIn(load_config().paths.api_socket) as daemon:
            daemon.health["members"][-1]["detail"] = {"folder": str(unpacked)}
            assert invoke(["model", "remove", "mine", "--yes"]) == 1
        assert "in use by the running daemon" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("model", "code", "says"),
        [
            ("pie-tiny", 2, "comes with Pie"),
            ("org/none", 4, "there is no model `org/none`"),
            ("org/tiny@v9", 4, "revision `v9` of org/tiny is not in the cache"),
            (".", 2, ". is a folder of yours"),
        ],
    )
    def test_what_cannot_be_removed(self, model: str, code: int, says: str, capsys: Capture) -> None:
        assert invoke(["model", "remove", model, "--yes"]) == code
        assert says in capsys.readouterr().err
