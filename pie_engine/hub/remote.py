"""What a hub has: the files of a model at a revision, with sizes and checksums; and its errors in our words.

Through the `huggingface_hub` library, which knows tokens, redirects and proxies. It is imported when it is needed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pie_engine.errors import NotFound, PieError, PullFailed
from pie_engine.hub.checksum import kind_of
from pie_engine.hub.places import MAIN, HubId


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository; `checksum` is what `checksum.kind_of` knows."""

    path: str
    size: int
    checksum: str


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A repository at one commit."""

    hub_id: HubId
    endpoint: str
    commit: str
    files: dict[str, RemoteFile]

    def url(self, path: str) -> str:
        from urllib.parse import quote

        return f"{self.endpoint}/{self.hub_id.repository}/resolve/{self.commit}/{quote(path)}"


def look_up(hub_id: HubId, endpoint: str = "") -> RemoteModel:
    """Ask the hub for the files of a model. Raises `NotFound` or `PullFailed`."""
    from huggingface_hub import HfApi, constants

    endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
    if constants.HF_HUB_OFFLINE:
        raise PullFailed(f"cannot pull {hub_id}: HF_HUB_OFFLINE is set", hint="unset it to reach the hub")
    with translated(hub_id, endpoint):
        revision = None if hub_id.revision == MAIN else hub_id.revision
        info = HfApi(endpoint=endpoint).model_info(hub_id.repository, revision=revision, files_metadata=True)
    files = {}
    for sibling in info.siblings or []:
        checksum = (sibling.lfs.sha256 if sibling.lfs else sibling.blob_id) or ""
        size = sibling.lfs.size if sibling.lfs else sibling.size
        if size is not None and kind_of(checksum) and _is_inside(sibling.rfilename):
            files[sibling.rfilename] = RemoteFile(sibling.rfilename, size, checksum)
    if not info.sha or not files:
        raise PullFailed(
            f"{endpoint} does not say which files {hub_id} has", hint="is it a hub? see --endpoint and HF_ENDPOINT"
        )
    return RemoteModel(hub_id, endpoint, info.sha, files)


def _is_inside(path: str) -> bool:
    """Paths and checksums become paths of ours."""
    return not path.startswith("/") and ".." not in path.split("/")


def http_error() -> type[Exception]:
    """The base of what the library's HTTP client raises: of httpx2, or of httpx in older versions."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(cls for cls in HfHubHTTPError.__mro__ if cls.__name__ == "HTTPError")


@contextmanager
def translated(hub_id: HubId, endpoint: str) -> Iterator[None]:
    """Errors of the library, of the connection and of the disk as ours."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except PieError:
        raise
    except HFValidationError as error:
        raise NotFound(f"`{hub_id}` is no id of a model", hint="it is ORG/NAME, or the path of a folder") from error
    except (http_error(), OSError, ValueError, KeyError, TypeError) as error:
        raise _ours(error, hub_id, endpoint) from error


def _ours(error: Exception, hub_id: HubId, endpoint: str) -> PieError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return PullFailed(
            f"{hub_id} is gated: {endpoint} does not give it to this user",
            hint=f"accept its terms on {endpoint}/{hub_id.repository}, then `hf auth login` or set HF_TOKEN",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return NotFound(f"{hub_id.repository} has no revision `{hub_id.revision}`", hint="a branch, a tag or a commit")
    if isinstance(error, errors.RepositoryNotFoundError):
        return NotFound(
            f"{endpoint} has no model {hub_id.repository}",
            hint="check the spelling; a private model needs `hf auth login` or HF_TOKEN",
        )
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        hint = "log in anew: `hf auth login`" if status in (401, 403) else "try again later: what came is kept"
        return PullFailed(f"{endpoint} answered {status} for {hub_id}", hint=hint)
    if isinstance(error, http_error()):
        reason = str(error) or type(error).__name__
        return PullFailed(
            f"the connection to {endpoint} failed: {reason}",
            hint="check the network; then the same command goes on where it stopped",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PullFailed(
            f"the disk is full: {error.filename or os.strerror(error.errno)}",
            hint="make room, or set HF_HOME to another disk; then the same command goes on where it stopped",
        )
    if isinstance(error, OSError) and error.filename is not None:
        return PullFailed(f"cannot write {error.filename}: {error.strerror}", hint="set HF_HOME to a folder of yours")
    return PullFailed(
        f"{endpoint} gave something else than a hub gives: {type(error).__name__}: {error}",
        hint="see --endpoint, HF_ENDPOINT",
    )
