"""`pie secret`, and a program that uses one, as a user sees them."""

from __future__ import annotations

from tests.e2e.terminal import OnTerminal

SOURCE = """
from inferlet import runtime

async def main() -> int:
    key = runtime.secret("API_KEY")
    print("the key is", key)
    return len(key)
"""


def test_a_secret_is_set_used_and_removed(daemon, tmp_path):
    folder = tmp_path / "caller"
    folder.mkdir()
    (folder / "main.py").write_text(SOURCE)
    (folder / "pie.toml").write_text('[program]\nname = "caller"\nsecrets = ["API_KEY"]\n')
    refused = daemon.pie("run", str(folder))
    assert (refused.returncode, refused.stderr) == (
        4,
        "error: `caller` needs the secret `API_KEY`, which is not set\nhint: `pie secret set API_KEY`\n",
    )
    set_it = daemon.pie("secret", "set", "API_KEY", input_text="sk-0123456789\n")
    assert (set_it.returncode, set_it.stderr) == (0, "set API_KEY\n")
    done = daemon.pie("run", str(folder))
    assert (done.returncode, done.stdout) == (0, "the key is [secret API_KEY]\n13\n")
    listed = daemon.pie("secret", "list")
    assert listed.stdout.splitlines()[1].startswith("API_KEY  20")
    assert daemon.pie("secret", "remove", "API_KEY").stderr == "removed API_KEY\n"
    assert daemon.pie("secret", "list").stderr == "no secrets yet: `pie secret set NAME`\n"


def test_a_value_is_typed_unseen_and_ctrl_c_leaves_the_terminal_as_it_was(daemon):
    with OnTerminal(daemon, "secret", "set", "TYPED") as shell:
        shell.until("value of TYPED: ")
        shell.press("sk-0123456789\n")
        shell.until("set TYPED")
        assert (shell.end(), "sk-" in shell.rest) == (0, False)
    assert daemon.pie("secret", "remove", "TYPED").returncode == 0
    with OnTerminal(daemon, "secret", "set", "TYPED") as shell:
        shell.until("value of TYPED: ")
        shell.press("sk-01\x03")
        assert shell.end() == 130
    assert "TYPED" not in daemon.pie("secret", "list").stdout


def test_a_wrong_name_is_refused_before_the_value_is_asked_for(daemon):
    with OnTerminal(daemon, "secret", "set", "api key") as shell:
        assert shell.end() == 2
        assert "`api key` cannot be the name of a secret" in shell.rest
        assert "value of" not in shell.rest
