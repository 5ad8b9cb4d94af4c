import pytest

from pie_engine.config import EngineConfig, decode_config, load_config
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
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path, text, key, near):
    with pytest.raises(InvalidConfig) as caught:
        load_config({}, write(tmp_path, text))
    assert f"`{key}`" in caught.value.message
    assert f"`{near}`" in caught.value.hint


def test_a_wrong_type_names_the_file_and_the_key(tmp_path):
    with pytest.raises(InvalidConfig, match=r"config\.toml: .*int.*host\.num_hosts"):
        load_config({}, write(tmp_path, "[host]\nnum_hosts = 'two'\n"))


def test_broken_toml_names_the_line(tmp_path):
    with pytest.raises(InvalidConfig, match="line 2"):
        load_config({}, write(tmp_path, "[host]\n= 3\n"))


def test_a_named_file_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(InvalidConfig, match="does not exist"):
        load_config({}, {"PIE_CONFIG": str(tmp_path / "nothing.toml")})


def test_sockets_stay_within_the_path_limit_of_the_system(tmp_path):
    deep = tmp_path / ("d" * 120)
    assert len(str(decode_config({"home": str(deep)}).paths.api_socket)) < 100
    assert decode_config({"home": "/h"}).paths.api_socket.as_posix() == "/h/run/api.sock"
