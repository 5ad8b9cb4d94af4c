"""Models from a hub: only what is needed, resumed, checked, safe when two come at once, and clear when it fails."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pie_engine.errors import InvalidInput, ModelError, NotFound, PieError, PullFailed, Unsupported
from pie_engine.hub import fetch
from pie_engine.hub import pull as pull_module
from pie_engine.hub.places import HubId, cached_ids, resolve
from pie_engine.hub.pull import Pulled, pull
from tests.unit.hub_standin import HubStandIn, checksum_of, git_hash

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
WEIGHTS = bytes(range(256)) * 2000
FILES = {
    "README.md": b"about it",
    ".gitattributes": b"lfs",
    "config.json": json.dumps(CONFIG).encode(),
    "tokenizer.json": b"{}" * 600,
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"p" * 5000,
    "consolidated.safetensors": b"c" * 5000,
    "original/params.json": b"{}",
    "modeling_own.py": b"import os",
}
NEEDED = {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"}
ID = HubId("org/tiny")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(fetch, "CHUNK_BYTES", 10_000)
    return tmp_path / "hf" / "hub"


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as running:
        running.add("org/tiny", dict(FILES))
        yield running


def fetched(hub: HubStandIn, hub_id: HubId = ID, **options: Any) -> Pulled:
    return pull(hub_id, lambda text, fraction: None, endpoint=hub.endpoint, **options)


def test_only_what_a_model_needs_is_fetched_and_all_of_it_is_checked(hub: HubStandIn) -> None:
    pulled = fetched(hub)
    assert set(hub.ranges) == NEEDED
    assert resolve("org/tiny") == pulled.folder
    assert {path.name for path in pulled.folder.iterdir()} == NEEDED
    assert (pulled.folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (pulled.num_files, pulled.num_fetched, pulled.num_sha256) == (5, 5, 2)
    assert pulled.num_bytes == sum(len(FILES[path]) for path in NEEDED)
    assert list(cached_ids()) == [ID]


def test_the_cache_is_the_one_of_the_hugging_face_libraries(hub: HubStandIn, cache: Path) -> None:
    from huggingface_hub import snapshot_download

    folder = fetched(hub).folder
    found = snapshot_download("org/tiny", cache_dir=cache, local_files_only=True)
    assert Path(found) == folder
    assert (cache / "models--org--tiny" / "blobs" / git_hash(b"{}")).read_bytes() == b"{}"


def test_a_second_pull_fetches_nothing(hub: HubStandIn) -> None:
    fetched(hub)
    before = hub.num_bodies
    assert fetched(hub).num_fetched == 0
    assert hub.num_bodies == before


def test_a_cut_connection_is_resumed_where_it_broke(hub: HubStandIn) -> None:
    hub.cuts["model.safetensors"] = [100_000, 50_000]
    folder = fetched(hub).folder
    assert hub.ranges["model.safetensors"] == ["", "bytes=100000-", "bytes=150000-"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_what_is_in_the_middle_is_no_model_and_the_next_pull_goes_on(
    hub: HubStandIn, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(text: str, fraction: float | None) -> None:
        if text == "fetching model.safetensors" and fraction and fraction > 0.1:
            raise KeyboardInterrupt

    hub.cuts["model.safetensors"] = [100_000]
    with pytest.raises(KeyboardInterrupt):
        pull(ID, stop, endpoint=hub.endpoint)
    with pytest.raises(NotFound):
        resolve("org/tiny")
    (partial,) = (cache / "models--org--tiny" / "blobs").glob("*.incomplete")
    size = partial.stat().st_size
    assert size > 0
    assert fetched(hub).num_fetched == 1
    assert hub.ranges["model.safetensors"][-1] == f"bytes={size}-"
    assert not partial.exists()


def test_a_damaged_file_is_refused_and_fetched_again(hub: HubStandIn) -> None:
    hub.damaged["model.safetensors"] = 1
    folder = fetched(hub).folder
    assert hub.ranges["model.safetensors"] == ["", ""]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_damaged_partial_file_is_thrown_away(hub: HubStandIn, cache: Path) -> None:
    blobs = cache / "models--org--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{checksum_of(WEIGHTS)}.incomplete").write_bytes(b"rubbish")
    folder = fetched(hub).folder
    assert hub.ranges["model.safetensors"] == ["bytes=7-", ""]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_file_that_is_always_damaged_is_an_error_and_leaves_nothing(hub: HubStandIn, cache: Path) -> None:
    hub.damaged["model.safetensors"] = 9
    with pytest.raises(PullFailed, match=r"model.safetensors of org/tiny arrived twice with another checksum"):
        fetched(hub)
    with pytest.raises(NotFound):
        resolve("org/tiny")
    blobs = cache / "models--org--tiny" / "blobs"
    assert not list(blobs.glob(f"{checksum_of(WEIGHTS)}*"))


def test_pulling_again_mends_a_file_that_rotted(hub: HubStandIn) -> None:
    weights = (fetched(hub).folder / "model.safetensors").resolve()
    weights.write_bytes(WEIGHTS[:-1] + b"x")
    assert fetched(hub).num_fetched == 1
    assert weights.read_bytes() == WEIGHTS


def test_a_small_file_is_checked_by_its_git_hash(hub: HubStandIn) -> None:
    hub.damaged["config.json"] = 1
    fetched(hub)
    assert hub.ranges["config.json"] == ["", ""]


def test_shards_are_those_that_the_index_names(hub: HubStandIn) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    shards = {name: name.encode() * 100 for name in index["weight_map"].values()}
    others = {"model-00003-of-00003.safetensors": b"old", "model.safetensors.index.json": json.dumps(index).encode()}
    files = {path: data for path, data in FILES.items() if path != "model.safetensors"} | shards | others
    hub.add("org/sharded", files)
    fetched(hub, HubId("org/sharded"))
    assert {path for path in hub.ranges if path.endswith(".safetensors")} == set(shards)


def test_a_revision_is_fetched_beside_main(hub: HubStandIn) -> None:
    hub.add("org/tiny@v2", FILES | {"model.safetensors": WEIGHTS[::-1]}, commit="d" * 40)
    main, other = fetched(hub).folder, fetched(hub, HubId("org/tiny", "v2")).folder
    assert main != other
    assert resolve("org/tiny@v2") == other
    assert resolve("org/tiny") == main
    assert hub.ranges["tokenizer.json"] == [""], "the same content is fetched once"


def test_a_new_commit_replaces_main(hub: HubStandIn) -> None:
    fetched(hub)
    hub.add("org/tiny", FILES | {"tokenizer_config.json": b"{ }"}, commit="d" * 40)
    assert fetched(hub).num_fetched == 1
    assert (resolve("org/tiny") / "tokenizer_config.json").read_bytes() == b"{ }"


def test_one_gguf_file_is_chosen_by_a_part_of_its_name(hub: HubStandIn) -> None:
    hub.add("org/gguf", {"m-Q4_K_M.gguf": b"4" * 2000, "m-Q8_0.gguf": b"8" * 2000, "config.json": b"{}"})
    pulled = fetched(hub, HubId("org/gguf"), gguf="q8_0")
    assert pulled.folder.name == "m-Q8_0.gguf"
    assert pulled.folder.read_bytes() == b"8" * 2000
    with pytest.raises(InvalidInput, match="holds GGUF files only") as refused:
        fetched(hub, HubId("org/gguf"))
    assert "m-Q4_K_M.gguf, m-Q8_0.gguf" in refused.value.hint
    with pytest.raises(InvalidInput, match="`Q` fits 2 GGUF files"):
        fetched(hub, HubId("org/gguf"), gguf="Q")
    with pytest.raises(NotFound, match="has no GGUF file `Q2`"):
        fetched(hub, HubId("org/gguf"), gguf="Q2")


def test_two_processes_at_once_fetch_each_file_once(hub: HubStandIn, cache: Path) -> None:
    code = (
        "import sys; from pie_engine.hub.places import HubId; from pie_engine.hub.pull import pull\n"
        "print(pull(HubId('org/tiny'), lambda text, fraction: None, endpoint=sys.argv[1]).num_fetched)"
    )
    hub.gate.clear()
    command = [sys.executable, "-c", code, hub.endpoint]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    threading.Timer(1.0, hub.gate.set).start()
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(counts) == len(NEEDED)
    assert hub.num_bodies == len(NEEDED)
    assert (resolve("org/tiny") / "model.safetensors").read_bytes() == WEIGHTS


def refusals(hub: HubStandIn, hub_id: HubId = ID) -> PieError:
    with pytest.raises(PieError) as refused:
        fetched(hub, hub_id)
    return refused.value


def test_a_gated_model_says_where_to_accept_its_terms(hub: HubStandIn) -> None:
    hub.models["org/tiny"].is_gated = True
    error = refusals(hub)
    assert isinstance(error, PullFailed)
    assert error.message == f"org/tiny is gated: {hub.endpoint} does not give it to this user"
    assert f"{hub.endpoint}/org/tiny" in error.hint
    assert "HF_TOKEN" in error.hint


def test_a_model_or_a_revision_that_is_not_there(hub: HubStandIn) -> None:
    error = refusals(hub, HubId("org/none"))
    assert isinstance(error, NotFound)
    assert error.message == f"{hub.endpoint} has no model org/none"
    error = refusals(hub, HubId("org/tiny", "v9"))
    assert isinstance(error, NotFound)
    assert error.message == "org/tiny has no revision `v9`"
    assert isinstance(refusals(hub, HubId("a" * 200)), NotFound)


def test_a_hub_that_cannot_be_reached(hub: HubStandIn) -> None:
    with pytest.raises(PullFailed, match=r"the connection to http://127.0.0.1:9 failed") as refused:
        pull(ID, lambda text, fraction: None, endpoint="http://127.0.0.1:9")
    assert "goes on where it stopped" in refused.value.hint


def test_a_hub_in_trouble_and_what_is_no_hub(hub: HubStandIn) -> None:
    hub.status = 503
    assert refusals(hub).message == f"{hub.endpoint} answered 503 for org/tiny"
    hub.status = 200
    assert refusals(hub).message.startswith(f"{hub.endpoint} gave something else than a hub gives")
    hub.status = 0
    hub.add("org/tiny", {})
    assert refusals(hub).message == f"{hub.endpoint} does not say which files org/tiny has"


def test_a_full_disk_is_refused_with_the_numbers_before_anything_is_fetched(
    hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1 << 20))
    error = refusals(hub)
    assert isinstance(error, PullFailed)
    assert "needs 1 MiB more, 1 MiB are free for" in error.message
    assert hub.num_bodies == 0


def test_a_disk_that_fills_up_keeps_what_came(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, data: bytes) -> int:
        raise OSError(28, "No space left on device", "/the/disk")

    monkeypatch.setattr(fetch._Watched, "write", full)
    error = refusals(hub)
    assert (type(error), error.message) == (PullFailed, "the disk is full: /the/disk")


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"config.json": None}, ModelError, "org/tiny has no config.json"),
        ({"config.json": None, "adapter_config.json": b"{}"}, Unsupported, "is an adapter"),
        ({"model.safetensors": None}, Unsupported, "no safetensors weights, only pickled ones"),
        ({"model.safetensors": None, "pytorch_model.bin": None}, Unsupported, "no safetensors weights"),
        ({"tokenizer.json": None}, Unsupported, "neither tokenizer.json nor tokenizer.model"),
        ({"config.json": b'{"architectures": ["T5Model"]}'}, Unsupported, "T5Model"),
    ],
)
def test_what_pie_cannot_load_is_refused_before_the_weights_are_fetched(
    hub: HubStandIn, changes: dict[str, bytes | None], error: type[PieError], says: str
) -> None:
    files = {path: data for path, data in (FILES | changes).items() if data is not None}
    hub.add("org/tiny", files)
    with pytest.raises(error, match=says):
        fetched(hub)
    assert "model.safetensors" not in hub.ranges


def test_an_index_cannot_lead_out_of_the_repository(hub: HubStandIn) -> None:
    index = {"weight_map": {"a": "../../x.safetensors"}}
    files = {path: data for path, data in FILES.items() if path != "model.safetensors"}
    hub.add("org/tiny", files | {"model.safetensors.index.json": json.dumps(index).encode()})
    with pytest.raises(ModelError, match=r"\.\./\.\./x.safetensors"):
        fetched(hub)
