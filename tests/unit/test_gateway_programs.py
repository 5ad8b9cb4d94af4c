"""The gateway's programs: what a bundle may be, what a component says of itself, names and versions."""

from __future__ import annotations

import msgspec
import pytest

from pie_engine.builder.componentize import wit_digest
from pie_engine.builder.record import Record, with_record
from pie_engine.errors import (
    InvalidProgram,
    NotFound,
)
from pie_engine.gateway.bundles import check_bundle
from pie_engine.gateway.hosts import HostPool
from pie_engine.gateway.programs import BundleCache, Programs, signature_in
from pie_engine.gateway.turn import Turn
from pie_engine.protocol.program import Bundle, Limits, Manifest, Signature


def programs_of(store):
    return Programs(store, Turn(store, lambda _boot, _orders: None, lambda _events: None), HostPool(1))


def python(files, **manifest):
    return Bundle(Manifest(**{"name": "a", **manifest}), files)


def a_component(**changes):
    signature = Signature(doc="Answer.")
    built = Record(Manifest(name="c"), "python", "d", "0.0.9", wit_digest(), signature=signature)
    component = with_record(b"\0asm\x0d\0\x01\0", msgspec.structs.replace(built, **changes), {})
    return Bundle(Manifest(name="c", runtime="component"), blobs={"program.wasm": component})


async def test_a_component_that_says_its_signature_is_not_run_for_it(store):
    programs = programs_of(store)
    view = await programs.upload("ann", a_component())
    assert view.signature == Signature(doc="Answer.")
    assert programs.view("ann", "c").digest == view.digest
    assert signature_in(a_component(signature=None)) is None
    with pytest.raises(InvalidProgram, match=r"built by Pie 0\.0\.9"):
        await programs.upload("ann", a_component(wit="other"))
    with pytest.raises(InvalidProgram, match="not a WebAssembly component"):
        signature_in(Bundle(Manifest(name="c", runtime="component"), blobs={"program.wasm": b"x"}))


@pytest.mark.parametrize(
    "bundle",
    [
        python({"main.py": ""}),
        python({"pkg/__init__.py": "", "pie.toml": ""}, entry="pkg"),
        python({"deep/app.py": ""}, entry="deep.app", name="my-program_2", version="1.0.0+x"),
        Bundle(Manifest(name="c", runtime="component"), blobs={"program.wasm": b""}),
    ],
)
def test_good_bundles_pass(bundle):
    check_bundle(bundle)


@pytest.mark.parametrize(
    ("bundle", "part"),
    [
        (python({}), "no module `main`"),
        (python({"main.py": ""}, name=""), "name"),
        (python({"main.py": ""}, name="a@1"), "a@1"),
        (python({"main.py": ""}, version="1 0"), "version"),
        (python({"main.py": "", "/etc/x": ""}), "/etc/x"),
        (python({"main.py": "", "a/../../x": ""}), "a/../../x"),
        (python({"main.py": "", "a//x": ""}), "a//x"),
        (python({"main.py": "", "a\\x": ""}), "a\\x"),
        (python({"main.py": "", "numpy/core.cpython-311.so": ""}), "native"),
        (python({"main.py": "", "lib.so.6": ""}), "native"),
        (Bundle(Manifest(name="c", runtime="component")), "program.wasm"),
        (python({"main.py": ""}, limits=Limits(memory_mb=-4)), "`limits.memory_mb` is -4"),
        (python({"main.py": ""}, limits=Limits(cpu_s=-0.5)), "`limits.cpu_s` is -0.5"),
    ],
)
def test_bad_bundles_are_refused_by_name(bundle, part):
    with pytest.raises(InvalidProgram, match=part.replace("\\", "\\\\")):
        check_bundle(bundle)


@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ("helo", "did you mean `hello`?"),
        ("hello@3", "the newest `hello` is `hello@0.2.0`"),
        ("nothing-like-it", "GET /v1/programs lists what has been uploaded"),
    ],
)
async def test_an_unknown_program_has_a_way_out(store, reference, hint):
    programs = programs_of(store)
    with pytest.raises(NotFound) as caught:
        programs.resolve("ann", reference)
    assert caught.value.hint.startswith("no program has been uploaded yet")
    with store.transaction():
        store.add_program("d", python({"main.py": ""}))
        for version in ("0.1.0", "0.2.0"):
            store.publish("ann", "hello", version, "d")
    with pytest.raises(NotFound) as caught:
        programs.resolve("ann", reference)
    assert caught.value.hint == hint


def test_the_cache_keeps_what_was_used_last_within_its_size():
    cache = BundleCache(max_bytes=250)
    bundles = {name: python({"main.py": name * 100}) for name in "abc"}
    cache.add("a", bundles["a"])
    cache.add("b", bundles["b"])
    assert cache.get("a") is bundles["a"]
    cache.add("c", bundles["c"])
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, False, True)
