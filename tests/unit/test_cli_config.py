"""`pie config`: what a user's file says, what it is changed to, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pie_cli import settings
from pie_cli.main import invoke
from pie_engine.config import load_config
from pie_engine.config_fields import settings_of, top_settings

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PIE_CACHE", "PIE_LOG_LEVEL", "PIE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("platformdirs.user_config_dir", lambda _name: str(tmp_path / "conf"))
    return tmp_path / "conf" / "config.toml"


def config(*words: str) -> int:
    return invoke(["config", *words])


def test_init_names_every_setting_and_changes_nothing(path: Path) -> None:
    before = load_config()
    assert config("init") == 0
    text = path.read_text()
    for section in settings.SECTIONS.values():
        for each in settings_of(section):
            assert f"# {each.key} = {settings.toml_value(each.default)}\n" in text
    assert all(f"# {each.key} = " in text for each in top_settings())
    assert load_config() == before


def test_every_line_of_the_template_is_one_that_the_daemon_takes(path: Path) -> None:
    config("init")
    lines = path.read_text().splitlines()
    bare = [line.removeprefix("# ") if " = " in line and line.startswith("# ") else line for line in lines]
    # `home` and `cache` at their defaults are empty, which is what they are without a line.
    path.write_text("\n".join(line for line in bare if not line.startswith("#")))
    assert load_config().models == load_config(environ={}).models


def test_init_does_not_replace_a_file_unasked(path: Path, capsys: Capture) -> None:
    path.parent.mkdir()
    path.write_text('log_level = "debug"\n')
    assert config("init") == 2
    assert f"error: {path} is there already" in capsys.readouterr().err
    assert config("init", "--force") == 0
    assert path.with_name("config.toml.bak").read_text() == 'log_level = "debug"\n'
    assert load_config().log_level == "info"


def test_set_keeps_comments_and_what_else_is_there(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('# mine\nlog_level = "debug"  # for now\n\n[host]\nnum_hosts = 1 # one\n')
    path.chmod(0o640)
    assert config("set", "host.num_hosts", "2") == 0
    assert config("set", "gateway.retention_days", "1.5") == 0
    assert path.read_text().startswith('# mine\nlog_level = "debug"  # for now\n\n[host]\nnum_hosts = 2 # one\n')
    assert path.stat().st_mode & 0o777 == 0o640
    assert (load_config().host.num_hosts, load_config().gateway.retention_days) == (2, 1.5)


def test_set_writes_through_a_link(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    real = tmp_path / "dotfiles.toml"
    real.write_text("")
    path.symlink_to(real)
    config("set", "log_level", "error")
    assert path.is_symlink()
    assert real.read_text() == 'log_level = "error"\n'


def test_models_are_named_where_there_are_several(path: Path, capsys: Capture) -> None:
    assert config("set", "models.kv_memory_mb", "64") == 0
    assert [(m.path, m.kv_memory_mb) for m in load_config().models] == [("pie-tiny", 64)]
    assert config("set", "models.big.7b.path", "/models/big") == 0
    assert [(m.label, m.path) for m in load_config().models] == [("pie-tiny", "pie-tiny"), ("big.7b", "/models/big")]
    assert config("set", "models.kv_memory_mb", "32") == 2
    assert "error: there are 2 models\nhint: say which: `models.pie-tiny.path`" in capsys.readouterr().err
    assert config("set", "models.big.7b.adapters.sql", "/adapters/sql") == 0
    assert config("set", "models.big.7b.deterministic", "yes") == 0
    big = load_config().models[1]
    assert (big.adapters, big.deterministic) == ({"sql": "/adapters/sql"}, True)


def test_users_have_tables_of_their_own(path: Path, capsys: Capture) -> None:
    assert config("set", "scheduling.policy", "priority") == 0
    assert config("set", "scheduling.users.ann.smith.priority", "5") == 0
    assert config("set", "scheduling.users.bob.endowment", "2.5") == 0
    users = load_config().scheduling.users
    assert (users["ann.smith"].priority, users["bob"].endowment) == (5, 2.5)
    assert config("set", "scheduling.users.bob.priority", "high") == 2
    assert '`scheduling.users.bob.priority` is "high"; it must be a whole number' in capsys.readouterr().err
    assert config("set", "scheduling.users.bob", "1") == 2
    assert "error: `scheduling.users.bob` is a table\nhint: name one of its settings" in capsys.readouterr().err
    assert config("show", "scheduling.users.bob.endowment") == 0
    assert capsys.readouterr().out == "2.5\n"
    assert config("show", "--changed") == 0
    shown = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert ["scheduling.users.ann.smith.priority", "5"] in shown
    assert ["scheduling.policy", '"priority"'] in shown


def test_default_takes_a_setting_out(path: Path, capsys: Capture) -> None:
    config("set", "host.num_hosts", "3")
    assert config("set", "host.num_hosts", "--default") == 0
    assert load_config().host.num_hosts == 1
    assert config("set", "host.num_hosts", "--default") == 4
    assert "does not set `host.num_hosts`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("host.num_hots", "2"), "error: there is no setting `host.num_hots`\nhint: did you mean `num_hosts`?\n"),
        (("num_hosts", "2"), "error: there is no setting `num_hosts`\nhint: did you mean `host.num_hosts`?\n"),
        (("host", "2"), "error: `host` is a table\nhint: name one of its settings: `host.num_hosts`\n"),
        (("models.kv_memory_md", "2"), "hint: did you mean `kv_memory_mb`?\n"),
        (("host.num_hosts", "two"), '`host.num_hosts` is "two"; it must be a whole number, 1 to 256'),
        (("host.num_hosts", "0"), "`host.num_hosts` is 0; it must be a whole number, 1 to 256"),
        (("host.num_hosts", "-1"), "`host.num_hosts` is -1; it must be a whole number, 1 to 256"),
        (
            ("gateway.listen", "0.0.0.0:80"),
            "is `0.0.0.0:80`; it must be a loopback address and a port",
        ),
        (("telemetry.otlp_endpoint", "collector"), "is `collector`, which is not the address of a collector"),
        (("log_level", "loud"), "it must be one of"),
        (("host.num_hosts",), "error: `host.num_hosts` needs a VALUE or `--default`"),
        (("host.num_hosts", "2", "--default"), "needs a VALUE or `--default`"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_written(
    words: tuple[str, ...], text: str, path: Path, capsys: Capture
) -> None:
    assert config("set", *words) == 2
    assert text in capsys.readouterr().err
    assert not path.exists()


def test_a_file_that_is_no_toml_is_left_alone(path: Path, capsys: Capture) -> None:
    path.parent.mkdir()
    path.write_text("[host\n")
    assert config("set", "host.num_hosts", "2") == 2
    assert f"error: {path}: " in capsys.readouterr().err
    assert path.read_text() == "[host\n"
    assert config("check") == 2


def test_a_value_that_the_environment_overrides_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("PIE_LOG_LEVEL", "error")
    assert config("set", "log_level", "debug") == 0
    assert "warning: PIE_LOG_LEVEL is set in this shell and wins over the file" in capsys.readouterr().err
    assert config("show", "log_level") == 0
    assert capsys.readouterr().out == "error\n"


def test_show_says_where_each_comes_from(path: Path, tmp_path: Path, capsys: Capture) -> None:
    config("set", "host.num_hosts", "2")
    capsys.readouterr()
    assert config("show", "--changed", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {
        "file": str(path),
        "settings": [
            {"key": "home", "value": str(tmp_path / "home"), "source": "PIE_HOME"},
            {"key": "host.num_hosts", "value": 2, "source": str(path)},
        ],
    }
    assert config("show") == 0
    out = capsys.readouterr().out
    assert "models.pie-tiny.kv_memory_mb" in out
    assert f"host.num_hosts                        2                           {path}".split() in [
        line.split() for line in out.splitlines()
    ]


@pytest.mark.parametrize(
    ("key", "value"), [("models.page_size", "16"), ("models.pie-tiny.page_size", "16"), ("models.adapters", "{}")]
)
def test_show_one_value_alone(key: str, value: str, path: Path, capsys: Capture) -> None:
    assert config("show", key) == 0
    assert capsys.readouterr().out == f"{value}\n"


def test_show_of_an_unknown_key(path: Path, capsys: Capture) -> None:
    assert config("show", "models.page_sise") == 2
    assert "did you mean `models.page_size`?" in capsys.readouterr().err


def test_check_looks_for_the_models(path: Path, tmp_path: Path, capsys: Capture) -> None:
    assert config("check") == 0
    assert f"{path} is not there: the defaults hold" in capsys.readouterr().err
    other = tmp_path / "other.toml"
    other.write_text('[[models]]\npath = "/no/such/model"\n')
    assert config("check", str(other)) == 2
    assert "problem" in capsys.readouterr().out
    other.write_text('[telemetry]\notlp_endpoint = "http://"\n')
    assert config("check", str(other)) == 2
    absent = tmp_path / "absent.toml"
    capsys.readouterr()
    assert config("check", str(absent)) == 2
    hint = "hint: without FILE the user's own settings are checked\n"
    assert capsys.readouterr().err == f"error: there is no file `{absent}`\n{hint}"
