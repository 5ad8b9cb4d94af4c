import math

import pytest
from msgspec import inspect

from pie_engine.config import (
    EngineConfig,
    GatewaySection,
    HostSection,
    ModelSection,
    Quota,
    SchedulingSection,
    UserSection,
    decode_config,
    load_config,
    load_paths,
)
from pie_engine.errors import InvalidConfig


def write(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text)
    return {"PIE_CONFIG": str(path)}


def test_defaults_without_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr("platformdirs.user_config_dir", lambda _name: str(tmp_path))
    assert load_config({}, {}) == EngineConfig()


def test_order_is_file_then_environment_then_overrides(tmp_path):
    environ = write(tmp_path, 'home = "/from-file"\nlog_level = "debug"\n[host]\nnum_hosts = 2\nmemory_mb = 64\n')
    environ["PIE_HOME"] = "/from-environment"
    config = load_config({"host": {"num_hosts": 3}}, environ)
    assert config.home == "/from-environment"
    assert config.log_level == "debug"
    assert (config.host.num_hosts, config.host.memory_mb) == (3, 64)


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("[host]\nnum_host = 1\n", "host.num_host", "num_hosts"),
        ("[[models]]\npth = 'x'\n", "models.pth", "path"),
        ("gatway = {}\n", "gatway", "gateway"),
        ("[scheduling]\npolcy = 'fcfs'\n", "scheduling.polcy", "policy"),
        ("[scheduling.users.ann]\npriorty = 1\n", "scheduling.users.ann.priorty", "priority"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path, text, key, near):
    with pytest.raises(InvalidConfig) as caught:
        load_config({}, write(tmp_path, text))
    assert f"`{key}`" in caught.value.message
    assert f"`{near}`" in caught.value.hint


def numbers():
    """Every numeric setting: where it stands and its type."""
    sections = {"host": HostSection, "gateway": GatewaySection, "models": ModelSection, "scheduling": SchedulingSection}
    for table, section in sections.items():
        for field in inspect.type_info(section).fields:
            if isinstance(field.type, inspect.IntType | inspect.FloatType):
                yield pytest.param(table, field.name, field.type, id=f"{table}.{field.name}")


def with_value(table, key, value):
    return {"models": [{key: value}]} if table == "models" else {table: {key: value}}


@pytest.mark.parametrize(("table", "key", "kind"), list(numbers()))
def test_every_number_has_a_least_and_a_most(table, key, kind):
    for value in (kind.ge, kind.le):
        decode_config(with_value(table, key, value))
    beyond = [-1, kind.ge - 1, kind.le + 1, 10**30, True, "5"]
    for value in [*beyond, *([math.nan, math.inf] if isinstance(kind, inspect.FloatType) else [])]:
        with pytest.raises(InvalidConfig) as caught:
            decode_config(with_value(table, key, value), source="the file")
        path = f"models[0].{key}" if table == "models" else f"{table}.{key}"
        assert caught.value.message.startswith(f"the file: `{path}` is ")
        assert f", {kind.ge:.15g} to {kind.le:.15g}" in caught.value.message
        assert "the default" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[host]\nnum_hosts = 0\n", "`host.num_hosts` is 0; it must be a whole number, 1 to 256"),
        ("[host]\nnum_hosts = 'two'\n", '`host.num_hosts` is "two"; it must be a whole number, 1 to 256'),
        ("[host]\nnum_hosts = 1.5\n", "`host.num_hosts` is 1.5; it must be a whole number, 1 to 256"),
        ("[host]\ncpu_s = nan\n", "`host.cpu_s` is NaN; it must be a number, 0.01 to 86400"),
        ("[host]\ncpu_s = 1979-05-27\n", '`host.cpu_s` is "1979-05-27"; it must be a number, 0.01 to 86400'),
        ("models = []\n", "`models` is []; it must be a list of tables, and not empty"),
        ("models = [3]\n", "`models[0]` is 3; it must be a table"),
        ("host = 3\n", "`host` is 3; it must be a table"),
        ("[[models]]\n[[models]]\npage_size = 0\n", "`models[1].page_size` is 0; it must be a whole number, 1 to 1024"),
        ("[[models]]\npath = ''\n", '`models[0].path` is ""; it must be text in quotes, and not empty'),
        ("[[models]]\ndriver = 'gpu'\n", '`models[0].driver` is "gpu"; it must be one of `cpu`, `cuda`, `fake`'),
        (
            "[[models]]\nadapters = 3\n",
            "`models[0].adapters` is 3; it must be a table of names, each with text in quotes",
        ),
        (
            "[[models]]\nadapters = {a = ''}\n",
            '`models[0].adapters` is {"a": ""}; it must be a table of names, each with text in quotes',
        ),
        ("home = 3\n", "`home` is 3; it must be text in quotes"),
        (
            "[scheduling]\npolicy = 'auction'\n",
            '`scheduling.policy` is "auction"; it must be one of `fcfs`, `market`, `priority`',
        ),
        ("[scheduling]\nusers = 3\n", "`scheduling.users` is 3; it must be a table of tables"),
        ("[scheduling.users]\nann = 3\n", "`scheduling.users.ann` is 3; it must be a table"),
        (
            "[scheduling.users.bob]\npriority = 1\n[scheduling.users.ann]\nendowment = -1\n",
            "`scheduling.users.ann.endowment` is -1; it must be a number, 0 to 1000000",
        ),
        ("[gateway]\nmax_body_mb = 0\n", "`gateway.max_body_mb` is 0; it must be a number, 1 to 512"),
    ],
)
def test_a_wrong_value_is_said_in_a_sentence(tmp_path, text, message):
    with pytest.raises(InvalidConfig) as caught:
        load_config({}, write(tmp_path, text))
    line = len(text.splitlines())
    assert caught.value.message == f"{tmp_path / 'config.toml'}, line {line}: {message}"


def test_a_wrong_value_is_looked_for_where_it_stands(tmp_path):
    environ = write(tmp_path, "[host]\nnum_hosts = 2\n")
    with pytest.raises(InvalidConfig) as caught:
        load_config({}, {**environ, "PIE_LOG_LEVEL": "foo"})
    assert caught.value.message.startswith('PIE_LOG_LEVEL: `log_level` is "foo"; it must be one of `debug`, `error`, ')
    assert caught.value.hint == 'unset it for the default, "info"'
    with pytest.raises(InvalidConfig, match=r"^the command line: `host\.num_hosts` is 0"):
        load_config({"host": {"num_hosts": 0}}, environ)


def test_broken_toml_names_the_line(tmp_path):
    with pytest.raises(InvalidConfig, match="line 2"):
        load_config({}, write(tmp_path, "[host]\n= 3\n"))


def test_a_named_file_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(InvalidConfig, match="does not exist"):
        load_config({}, {"PIE_CONFIG": str(tmp_path / "nothing.toml")})


def test_the_daemon_is_found_while_other_settings_are_wrong(tmp_path):
    wrong = write(tmp_path, f'home = "{tmp_path / "here"}"\nmodles = []\n')
    assert load_paths({}, wrong).home == tmp_path / "here"
    assert load_paths({}, {**wrong, "PIE_HOME": str(tmp_path / "there")}).home == tmp_path / "there"
    broken = write(tmp_path, "[host]\n= 3\n")
    assert load_paths({}, {**broken, "PIE_HOME": str(tmp_path / "there")}).home == tmp_path / "there"
    with pytest.raises(InvalidConfig, match="line 2"):
        load_paths({}, broken)
    with pytest.raises(InvalidConfig, match="`home`"):
        load_paths({}, write(tmp_path, "home = 3\n"))


def test_sockets_stay_within_the_path_limit_of_the_system(tmp_path):
    deep = tmp_path / ("d" * 120)
    assert len(str(decode_config({"home": str(deep)}).paths.api_socket)) < 100
    assert decode_config({"home": "/h"}).paths.api_socket.as_posix() == "/h/run/api.sock"


def test_quotas_of_users_stand_before_those_of_all():
    scheduling = SchedulingSection(
        endowment=100,
        max_endowment=500,
        users={
            "ann": UserSection(endowment=2000, max_endowment=3000, priority=7, max_processes=2, credits_per_hour=9),
            "bob": UserSection(),
        },
    )
    assert scheduling.quota_of("ann") == Quota(2000, 3000, 7, 2, 9)
    assert scheduling.quota_of("bob") == scheduling.quota_of("eve") == Quota(100, 500, 0, 0, 0)


def test_nobody_gets_more_by_default_than_he_may_ask_for():
    assert SchedulingSection(endowment=1000, max_endowment=200).quota_of("ann")[:2] == (200, 200)
    users = {"ann": UserSection(max_endowment=5)}
    assert SchedulingSection(users=users).quota_of("ann")[:2] == (5, 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# mine\n\n[host] # hosts\nnum_hosts = 1\ncpu_ss = 3\n", "line 5: unknown key `host.cpu_ss`"),
        ('log_level = "info"\nhost.num_hosts = 0\n', "line 2: `host.num_hosts` is 0"),
        ('[[models]]\nname = "a"\n\n[[models]]\nname = "b"\nnum_pages = "x"\n', "line 6: `models[1].num_pages`"),
        ('[[models]]\nname = "a"\n[[models]]\npth = "x"\n', "line 4: unknown key `models.pth`"),
        ('[scheduling.users."ann.b"]\npriority = 5\nendowment = -1\n', "line 3: `scheduling.users.ann.b.endowment`"),
        ('[[models]]\n[models.adapters]\n"a" = 5\n', "line 2: `models[0].adapters"),
        ("host = {num_hosts = 0}\n", "line 1: `host.num_hosts`"),
        ("[[models]]\ndeterministic = 'maybe'\n", "it must be `true` or `false`"),
        ("[host\n", "at line 1, column 6"),
        ("# a\nlog_level = 'caf\udce9'\n", "line 2: not UTF-8"),
    ],
)
def test_an_error_names_the_line(tmp_path, text, said):
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidConfig) as caught:
        load_config({}, {"PIE_CONFIG": str(path)})
    assert caught.value.message.startswith(f"{path}")
    assert said in caught.value.message


def test_the_header_of_a_list_is_shown(tmp_path):
    with pytest.raises(InvalidConfig) as caught:
        load_config({}, write(tmp_path, "[models]\npath = 'pie-tiny'\n"))
    assert caught.value.hint == "write `[[models]]` above each of them"


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path):
    for path, said in ((tmp_path, "cannot be read: Is a directory"), (tmp_path / "no", "which does not exist")):
        with pytest.raises(InvalidConfig) as caught:
            load_config({}, {"PIE_CONFIG": str(path)})
        assert said in caught.value.message
        assert caught.value.hint
