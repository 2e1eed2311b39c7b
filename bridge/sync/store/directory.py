"""The data directory: who may use it, and where damaged databases go."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

from bridge.errors import StoreError

KEPT_ASIDE = 5
"""Damaged databases kept for a look; older ones are deleted, so that a bad disk cannot fill itself."""

_SUFFIXES = ("", "-wal", "-shm", "-journal")

_logger = logging.getLogger("bridge.store")


class DirectoryLock:
    """The exclusive lock on a data directory, held until `release` or the end of the process.

    Creates the directory (mode 0700) where there is none. Raises StoreError when another process holds it, naming it.
    """

    def __init__(self, data_dir: Path) -> None:
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(data_dir / "envbridge.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"{data_dir} cannot be used: {error.strerror}. Make it a directory that this process may write to."
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise StoreError(
                f"{data_dir} is in use by another bridge (process {pid}). Stop that one, or give this one a data_dir of its own."
            ) from None
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:  # the lock holds without its note
            _logger.warning("process id cannot be noted", extra={"path": str(data_dir), "error": str(error.strerror)})

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._fd)


def companions(path: Path) -> list[Path]:
    """A database and the files that SQLite may put beside it."""
    return [path.with_name(path.name + suffix) for suffix in _SUFFIXES]


def move_aside(path: Path, now: float) -> None:
    """Rename a damaged database, with its companions, to ``<name>.corrupt-<unix seconds>``."""
    aside = path.with_name(f"{path.name}.corrupt-{int(now)}")
    number = 0
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.corrupt-{int(now)}.{number}")
    for part, target in zip(companions(path), companions(aside), strict=True):
        if part.exists():
            part.rename(target)
    kept = [entry for entry in path.parent.glob(f"{path.name}.corrupt-*") if not entry.name.endswith(_SUFFIXES[1:])]
    for entry in sorted(kept)[:-KEPT_ASIDE]:
        remove(entry)


def remove(path: Path) -> None:
    """Delete a database with its companions."""
    for part in companions(path):
        part.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Wait until renames in a directory are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
