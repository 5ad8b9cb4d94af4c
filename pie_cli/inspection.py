"""What is in a program, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from pie_cli.sizes import bytes_text
from pie_engine.builder.record import Record, package_versions, read_record
from pie_engine.builder.wasm import imports_of
from pie_engine.errors import InvalidProgram, NotFound
from pie_engine.protocol.program import Bundle, Manifest, Signature

_PERMISSIONS = (
    ({"context", "generate", "forward", "model", "matcher"}, "generates text with the models of the engine"),
    ({"session"}, "exchanges messages with its client"),
    ({"log"}, "prints, and writes to its log"),
)
_ALL = [f"pie:core/{name}" for names, _ in _PERMISSIONS for name in names]
"""What a Python program can do from its source."""
NEVER = "no network, no processes, no files to write"
"""What no sandbox gives, whatever a component imports."""


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a program."""

    kind: str
    """`component`, `bundle`, or `source`."""
    bytes: int
    digest: str
    """Of the bundle as it travels: what the daemon calls it."""
    manifest: Manifest | None = None
    built_from: str = ""
    """A component: digest of the bundle that it was built from."""
    built_by: dict[str, str] = {}
    fits: bool | None = None
    """A component: whether it was built for the interfaces of this version of Pie. None: it does not say."""
    imports: list[str] = []
    permissions: list[str] = []
    packages: dict[str, str] = {}
    files: dict[str, int] = {}
    """Size of each file of a bundle, in bytes, and of the data files of a component."""
    signature: Signature | None = None


def facts_of(path: Path) -> Facts:
    """Raises `NotFound` or `InvalidProgram`."""
    if not path.exists():
        raise NotFound(f"there is no file or folder `{path}`", hint="`pie build` makes a component of a folder")
    if path.is_file() and path.suffix == ".wasm":
        return _of_component(path)
    from pie_client.bundle import pack

    bundle = pack(path)
    if bundle.manifest.runtime == "component":
        return _of_component(path / "program.wasm", bundle)
    files = {name: len(text.encode()) for name, text in bundle.files.items()}
    files |= {name: len(blob) for name, blob in bundle.blobs.items()}
    return Facts(
        kind="bundle" if path.suffix == ".pie" else "source",
        bytes=path.stat().st_size if path.is_file() else sum(files.values()),
        digest=bundle.digest,
        manifest=bundle.manifest,
        permissions=_permissions(_ALL, bundle.guest_files()[1], bundle.manifest),
        packages=package_versions(bundle),
        files=dict(sorted(files.items())),
    )


def _of_component(path: Path, bundle: Bundle | None = None) -> Facts:
    from pie_engine.builder.fit import fits
    from pie_engine.builder.record import bundle_of_component, data_files_of

    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidProgram(f"cannot read {path}: {error.strerror}") from error
    record = read_record(data, str(path))
    names = imports_of(data)
    if record is None:
        digest = "" if bundle is None else bundle.digest
        manifest = None if bundle is None else bundle.manifest
        return Facts(
            "component", len(data), digest, manifest, imports=names, permissions=_permissions(names, {}, manifest)
        )
    data_files = data_files_of(data)
    return Facts(
        kind="component",
        bytes=len(data),
        digest=(bundle or bundle_of_component(data, record)).digest,
        manifest=record.manifest,
        built_from=record.digest,
        built_by=_builders(record),
        fits=fits(record),
        imports=names,
        permissions=_permissions(names, data_files, record.manifest),
        packages=record.packages,
        files={name: len(content) for name, content in data_files.items()},
        signature=record.signature,
    )


def _builders(record: Record) -> dict[str, str]:
    return {"pie": record.pie, **record.tools}


def _permissions(imports: list[str], data: dict[str, Any], manifest: Manifest | None) -> list[str]:
    ours = set(grouped(imports).get("pie:core", ()))
    texts = [text for names, text in _PERMISSIONS if names & ours]
    if data:
        texts.append(f"reads its own {len(data)} data file{'s' if len(data) > 1 else ''}")
    if manifest is not None and manifest.secrets:
        texts.append(f"reads the secrets {', '.join(manifest.secrets)}")
    return [*texts, NEVER]


def grouped(imports: list[str]) -> dict[str, list[str]]:
    """`pie:core/context@0.1.0` as `context` under `pie:core`; of WASI the packages alone."""
    groups: dict[str, list[str]] = {}
    for name in imports:
        package, _, interface = name.partition("@")[0].partition("/")
        if package.startswith("wasi:"):
            package, interface = "wasi", package.removeprefix("wasi:")
        names = groups.setdefault(package, [])
        if interface not in names:
            names.append(interface)
    return groups


# For people.


def lines_of(facts: Facts) -> list[str]:
    """One fact a line, aligned."""
    rows = [*_head(facts), *_content(facts)]
    width = max(len(name) for name, _ in rows) + 1
    return [f"{(name + ':' if name else ''):<{width}} {text}" for name, text in rows]


def _head(facts: Facts) -> list[tuple[str, str]]:
    rows = [("kind", facts.kind), ("size", bytes_text(facts.bytes))]
    if facts.manifest is not None:
        manifest = facts.manifest
        rows = [("name", f"{manifest.name} {manifest.version}"), *rows]
        if manifest.description:
            rows.append(("description", manifest.description))
        if manifest.endowment is not None:
            rows.append(("endowment", f"{manifest.endowment:g} credits"))
        limits = msgspec.structs.asdict(manifest.limits)
        rows += _listed("limits", [f"{key} {value:g}" for key, value in limits.items() if value is not None])
    if facts.digest:
        rows.append(("digest", facts.digest))
    if facts.built_from:
        rows.append(("built from", facts.built_from))
        rows.append(("built by", ", ".join(f"{tool} {version}" for tool, version in facts.built_by.items())))
    if facts.fits is False:
        rows.append(("note", "built for other interfaces than those of this version of Pie; build it again"))
    return rows


def _content(facts: Facts) -> list[tuple[str, str]]:
    rows = _listed("permissions", facts.permissions)
    rows += _listed("imports", [f"{package}: {', '.join(names)}" for package, names in grouped(facts.imports).items()])
    rows += _listed("packages", [f"{name} {version}" for name, version in facts.packages.items()])
    rows += _listed("files", [f"{name} ({bytes_text(size)})" for name, size in facts.files.items()])
    if facts.signature is not None:
        rows += _listed("parameters", [_parameter(p.name, p.required, p.default) for p in facts.signature.parameters])
    return rows


def _parameter(name: str, is_required: bool, default: object) -> str:
    return name if is_required else f"{name} = {msgspec.json.encode(default).decode()}"


def _listed(name: str, texts: list[str]) -> list[tuple[str, str]]:
    return [(name if number == 0 else "", text) for number, text in enumerate(texts)]
