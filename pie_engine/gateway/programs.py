"""The program shelf: bundles by content, references to them, and their signatures."""

from __future__ import annotations

import asyncio
import difflib
import itertools
import time
from collections import OrderedDict

import msgspec

from pie_engine.builder.fit import refuse_other_interfaces
from pie_engine.builder.record import record_of
from pie_engine.builder.wasm import WasmError
from pie_engine.config import MIB
from pie_engine.errors import Busy, InvalidProgram, Lost, NotFound
from pie_engine.gateway.bundles import check_bundle
from pie_engine.gateway.hosts import Host, HostPool, lane_of
from pie_engine.gateway.turn import Turn
from pie_engine.protocol.http import ProgramView
from pie_engine.protocol.program import COMPONENT_FILE, Bundle, Signature
from pie_engine.protocol.to_gateway import Described
from pie_engine.protocol.to_host import Describe
from pie_engine.store.records import ProgramRecord
from pie_engine.store.store import Store

MAX_CACHED_BYTES = 160 * MIB
"""Some components, too."""
HOST_TIMEOUT_S = 30.0
HOST_POLL_S = 0.02
DESCRIBE_TIMEOUT_S = 60.0
"""The first one waits for the shared runtime to be built."""


class Programs:
    """Every program of this gateway. A digest that was once admitted is never checked or stored again."""

    def __init__(self, store: Store, turn: Turn, hosts: HostPool) -> None:
        self._store = store
        self._turn = turn
        self._hosts = hosts
        self._cache = BundleCache(MAX_CACHED_BYTES)
        self._requests = itertools.count(1)
        self._asked: dict[int, tuple[str, asyncio.Future[Signature]]] = {}

    def admit(self, bundle: Bundle) -> tuple[str, bool]:
        """Digest of a bundle that has come in, and whether the store must still be given it."""
        digest = bundle.digest
        if digest in self._cache:
            return digest, False
        check_bundle(bundle)
        return digest, not self._store.has_program(digest)

    def remember(self, digest: str, bundle: Bundle) -> None:
        """It is in the store now."""
        self._cache.add(digest, bundle)

    def forget_cached(self) -> None:
        """After old programs were deleted from the store."""
        self._cache.clear()

    def resolve(self, user: str, reference: str) -> str:
        """Digest of `reference`: a digest, `name@version`, or `name` for what was published last."""
        name, _, version = reference.partition("@")
        digest = self._store.released(user, name, version or None)
        if digest is None and self._store.has_program(reference):
            digest = reference
        if digest is None:
            raise NotFound(f"no program `{reference}`", hint=self._hint(user, name))
        return digest

    def _hint(self, user: str, name: str) -> str:
        known = {record.name: record.version for record in self._store.releases(user)}
        if not known:
            return "no program has been uploaded yet: `pie upload FOLDER`, or POST /v1/programs"
        if name in known:
            return f"the newest `{name}` is `{name}@{known[name]}`"
        near = difflib.get_close_matches(name, known, n=1)
        return f"did you mean `{near[0]}`?" if near else "GET /v1/programs lists what has been uploaded"

    def bundle(self, digest: str) -> Bundle:
        cached = self._cache.get(digest)
        if cached is not None:
            return cached
        bundle = self._store.bundle(digest)
        if bundle is None:
            raise NotFound(f"no program `{digest}`")
        self._cache.add(digest, bundle)
        return bundle

    async def upload(self, user: str, bundle: Bundle, *, publishes: bool = True) -> ProgramView:
        """Checks it, has a host read its signature, and publishes it under its name and version if that is wanted.

        Of what is published every module of its own has to compile, whatever imports it.
        """
        digest, is_new = self.admit(bundle)
        compiles = publishes and not self._store.is_released(digest)
        signature = await self._signature(user, digest, bundle, compiles=compiles)
        name, version = bundle.manifest.name, bundle.manifest.version

        def change(store: Store) -> None:
            if is_new:
                store.add_program(digest, bundle)
            store.set_signature(digest, msgspec.json.encode(signature).decode())
            if publishes:
                store.publish(user, name, version, digest)

        await self._turn.write(change, lambda: self.remember(digest, bundle))
        return self.view(user, digest)

    def view(self, user: str, reference: str) -> ProgramView:
        record = self._store.program(self.resolve(user, reference))
        assert record is not None
        return _view(record)

    def list(self, user: str) -> list[ProgramView]:
        return [_view(record) for record in self._store.releases(user)]

    def described(self, reply: Described) -> None:
        _, waiter = self._asked.pop(reply.request, ("", None))
        if waiter is None or waiter.done():
            return
        if reply.error is not None:
            waiter.set_exception(reply.error.raised())
        else:
            waiter.set_result(reply.signature or Signature())

    def host_died(self, boot_id: str, error: Lost) -> None:
        for request, (asked, waiter) in list(self._asked.items()):
            if asked == boot_id:
                del self._asked[request]
                if not waiter.done():
                    waiter.set_exception(error)

    async def _signature(self, user: str, digest: str, bundle: Bundle, *, compiles: bool) -> Signature:
        known = self._store.program(digest)
        if known is not None and known.signature is not None and not compiles:
            return msgspec.json.decode(known.signature, type=Signature)
        recorded = signature_in(bundle)
        if recorded is not None:
            return recorded
        host = await self._any_host(lane_of(bundle.manifest, user))
        request = next(self._requests)
        waiter: asyncio.Future[Signature] = asyncio.get_running_loop().create_future()
        self._asked[request] = (host.boot_id, waiter)
        self._turn.say(host.boot_id, Describe(request, digest, host.parcel(digest, bundle), compiles))
        try:
            return await asyncio.wait_for(waiter, DESCRIBE_TIMEOUT_S)
        except TimeoutError:
            raise Busy(f"the host did not read the program within {DESCRIBE_TIMEOUT_S:g} s") from None
        finally:
            self._asked.pop(request, None)

    async def _any_host(self, lane: str) -> Host:
        """One that is starting, or being started again, is worth a moment."""
        end = time.monotonic() + HOST_TIMEOUT_S
        while (host := self._hosts.least_loaded(lane)) is None:
            if time.monotonic() > end:
                raise Busy("no host is ready to read the program", hint="`pie doctor` says what keeps it from starting")
            await asyncio.sleep(HOST_POLL_S)
        return host


def signature_in(bundle: Bundle) -> Signature | None:
    """What `pie build` has read of a component, which need not be compiled and run for it. None: nothing."""
    component = bundle.blobs.get(COMPONENT_FILE)
    if bundle.manifest.runtime != "component" or component is None:
        return None
    try:
        record = record_of(component)
    except WasmError as error:
        raise InvalidProgram(f"{COMPONENT_FILE}: {error}", hint="`pie build` makes one") from error
    if record is None or record.signature is None:
        return None
    refuse_other_interfaces(component)
    return record.signature


class BundleCache:
    """The bundles used last, bounded by the size of their files."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._bundles: OrderedDict[str, Bundle] = OrderedDict()

    def __contains__(self, digest: str) -> bool:
        return digest in self._bundles

    def get(self, digest: str) -> Bundle | None:
        bundle = self._bundles.get(digest)
        if bundle is not None:
            self._bundles.move_to_end(digest)
        return bundle

    def add(self, digest: str, bundle: Bundle) -> None:
        if digest in self._bundles:
            self._bundles.move_to_end(digest)
            return
        self._bundles[digest] = bundle
        self._num_bytes += _size(bundle)
        while self._num_bytes > self._max_bytes and len(self._bundles) > 1:
            _, oldest = self._bundles.popitem(last=False)
            self._num_bytes -= _size(oldest)

    def clear(self) -> None:
        self._bundles.clear()
        self._num_bytes = 0


def _size(bundle: Bundle) -> int:
    return sum(map(len, bundle.files.values())) + sum(map(len, bundle.blobs.values()))


def _view(record: ProgramRecord) -> ProgramView:
    signature = None if record.signature is None else msgspec.json.decode(record.signature, type=Signature)
    return ProgramView(record.digest, record.name, record.version, signature, record.created)
