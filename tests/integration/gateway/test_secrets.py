"""Secrets over HTTP: named, kept, given to the launches that name them, and never shown."""

from __future__ import annotations

import pytest

from pie_client import InvalidInput, NotFound
from pie_engine.protocol.program import Bundle, Manifest

KEY = "sk-0123456789"


def program(*secrets):
    return Bundle(Manifest(name="caller", secrets=secrets), {"main.py": "async def main(): ..."})


async def test_a_launch_without_a_secret_that_it_names_is_refused(client):
    with pytest.raises(NotFound, match="`caller` needs the secret `API_KEY`, `OTHER`, which is not set") as caught:
        await client.launch_process(program("API_KEY", "OTHER"))
    assert caught.value.hint == "`pie secret set API_KEY`"
    await client.set_secret("API_KEY", KEY)
    await client.set_secret("OTHER", KEY)
    process = await client.launch_process(program("API_KEY", "OTHER"))
    assert [event async for event in process]
    await client.remove_secret("API_KEY")
    with pytest.raises(NotFound, match="needs the secret `API_KEY`, which"):
        await client.launch_process(program("API_KEY", "OTHER"))
    await client.remove_secret("OTHER")


async def test_values_are_shown_to_nobody(client, http):
    await client.set_secret("API_KEY", KEY)
    status, _, text = await http("GET", "/v1/secrets")
    assert (status, [view.name for view in await client.secrets()]) == (200, ["API_KEY"])
    assert KEY not in text
    status, _, text = await http("PUT", "/v1/secrets/API_KEY", b'{"value": "sk-0123456789", "other": 1}')
    assert (status, KEY in text) == (400, False)
    await client.remove_secret("API_KEY")
    assert await client.secrets() == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("1KEY", KEY, "`1KEY` cannot be the name of a secret"),
        ("a-b", KEY, "cannot be the name"),
        ("K" * 101, KEY, "cannot be the name"),
        ("KEY", "abc", "the value of `KEY` has 3 characters"),
        ("KEY", "", "the value of `KEY` has 0 characters"),
        ("KEY", "é" * 33_000, "the value of `KEY` has 33000 characters"),
    ],
)
async def test_what_cannot_be_one_is_refused(client, name, value, message):
    with pytest.raises(InvalidInput, match=message):
        await client.set_secret(name, value)
    assert await client.secrets() == []


async def test_without_a_name_nothing_is_asked(client, http):
    with pytest.raises(InvalidInput, match="needs a name"):
        await client.set_secret("", KEY)
    with pytest.raises(NotFound, match="has a name"):
        await client.remove_secret("")
    status, _, text = await http("PUT", "/v1/secrets/", b'{"value": "sk-0123456789"}')
    assert (status, "lists the routes" in text) == (404, True)


async def test_one_that_is_not_there_cannot_be_removed(client):
    with pytest.raises(NotFound, match="there is no secret `KEY`"):
        await client.remove_secret("KEY")
