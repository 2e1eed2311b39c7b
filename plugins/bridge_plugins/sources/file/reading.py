"""One file: whether it changed, whether it is whole, and what it says. Blocking; runs in a thread.

Half a file can be valid YAML, so a file is read only when it can be trusted to be whole: it was renamed into place, or
its size and times stayed as they are for `STILL` seconds by our own clock. The file system's clock may be another host's.
"""

# Paths are strings here: they are keys, and thousands of them are looked at each time.
# ruff: noqa: PTH116, PTH120, PTH123

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from bridge.aio import Clock
from bridge_plugins.sources.file.document import SIZE_LIMIT, DocumentError, parse
from bridge_plugins.sources.file.mapping import Mapped, map_document

STILL = 0.3
"""Seconds without a change after which a file counts as whole: longer than an editor or `cp` pauses between two writes."""

RESTLESS = 10.0
"""Seconds of changing without a pause after which what we have of the file is no longer taken for current."""

GONE_AFTER = 300.0
"""Seconds after which a file that is missing is taken for deleted. Deployments and remounts take less."""


class Signature(NamedTuple):
    """What tells one state of a file from another without reading it."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Signature:
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class FileState:
    """What is known of one file between two looks; never its content.

    signature, digest: of the content last taken, good or broken. No signature: it must be read again.
    keys, rejected: of the groups it last had.
    problem: why what it last had is all there is; it does not name the file. None: it is up to date, or changed a moment ago.
    read: whether it was ever read and understood.
    pending, whole_at: the changed state it is in until that is read, and when it counts as whole if it stays so.
    restless_since: since when it changes.
    missing_since: since when it is not there although its directory can be read.
    gone: it has been missing for so long that what it had is let go.
    """

    signature: Signature | None = None
    digest: bytes = b""
    keys: tuple[str, ...] = ()
    rejected: Mapping[str, str] | None = None
    problem: str | None = None
    read: bool = False
    pending: Signature | None = None
    whole_at: float = 0.0
    restless_since: float | None = None
    missing_since: float | None = None
    gone: bool = False


class Look(NamedTuple):
    """What one look at a file gave.

    mapped: what it says, where that is new. taken: whether its content was read. again: seconds until it should be
    looked at again, or None.
    """

    state: FileState
    mapped: Mapped | None = None
    taken: bool = False
    again: float | None = None


def key_of(path: str) -> str:
    """The key of a file: its path, in UTF-8 whatever bytes its name has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def restored() -> FileState:
    """The state of a file that was read before, by a source before this one: the catalog holds groups of it."""
    return FileState(read=True, problem="it was not read yet")


def look(path: str, state: FileState, clock: Clock, *, renamed: bool) -> Look:
    """Look at a file, and read it if it changed and is whole. ``renamed``: a notification told a rename onto it."""
    now = clock.monotonic()
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Look(_missing(path, state, now))
    except OSError as error:
        return Look(_failing(state, f"cannot be read: {error.strerror}"))
    state = replace(state, missing_since=None, gone=False)
    if not stat.S_ISREG(found.st_mode):
        kind = "a directory" if stat.S_ISDIR(found.st_mode) else "not a regular file"
        return Look(_failing(state, f"cannot be read: it is {kind}"))
    if found.st_size > SIZE_LIMIT:
        return Look(_failing(state, f"larger than {SIZE_LIMIT // 1024 // 1024} MiB"))
    signature = Signature.of(found)
    if signature == state.signature:
        return Look(replace(state, pending=None, restless_since=None))
    if signature != state.pending:
        whole = renamed and state.signature is not None and signature[:2] != state.signature[:2]
        state = _pending(state, signature, now)
        if not whole:
            return Look(state, again=STILL)
    elif now < state.whole_at:
        return Look(state, again=state.whole_at - now)
    return _take(path, state, signature, clock)


def _missing(path: str, state: FileState, now: float) -> FileState:
    """A file that is not there. Only a directory that answers tells that; the time counts from when it began to."""
    try:
        with os.scandir(os.path.dirname(path)) as entries:
            next(entries, None)
    except OSError as error:
        return replace(_failing(state, f"its directory cannot be read: {error.strerror}"), missing_since=None)
    since = now if state.missing_since is None else state.missing_since
    state = _failing(state, "the file is gone" if state.read else "there is no such file")
    if state.read and now - since >= GONE_AFTER:
        return replace(state, missing_since=since, gone=True, keys=(), rejected=None)
    return replace(state, missing_since=since)


def _failing(state: FileState, problem: str) -> FileState:
    return replace(state, signature=None, pending=None, restless_since=None, problem=problem)


def _pending(state: FileState, signature: Signature, now: float) -> FileState:
    """A file in a state it was not seen in before."""
    since = now if state.restless_since is None else state.restless_since
    if now - since >= RESTLESS:
        problem = f"it has been changing for {RESTLESS:.0f} s without a pause of {STILL} s"
        state = replace(state, signature=None, problem=problem)
    return replace(state, pending=signature, whole_at=now + STILL, restless_since=since)


def _take(path: str, state: FileState, signature: Signature, clock: Clock) -> Look:
    """Read a whole file."""
    try:
        data, before, after = _read(path)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        return Look(replace(state, signature=None, restless_since=None, problem=problem))
    if not signature == before == after:
        return Look(_pending(state, after, clock.monotonic()), again=STILL)
    digest = hashlib.blake2b(data, digest_size=16).digest()
    state = replace(state, signature=signature, pending=None, restless_since=None)
    if digest == state.digest and state.problem is None:
        return Look(state, taken=True)
    state = replace(state, digest=digest)
    try:
        document = parse(data, is_json=path.endswith(".json"))
        del data
        mapped = map_document(document, key_of(path))
    except DocumentError as error:
        return Look(replace(state, problem=str(error)), taken=True)
    keys = tuple(group.key for group in mapped.groups)
    return Look(replace(state, keys=keys, rejected=mapped.rejected, problem=None, read=True), mapped, taken=True)


def _read(path: str) -> tuple[bytes, Signature, Signature]:
    """The content, and what the file was before reading it and the path is after."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe put there now must not block us
    with open(descriptor, "rb") as file:
        before = Signature.of(os.fstat(descriptor))
        data = file.read(SIZE_LIMIT + 1)
    return data, before, Signature.of(os.stat(path))
