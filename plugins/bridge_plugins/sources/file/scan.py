"""Which files the patterns mean right now, and what could not be told about that.

`glob.glob` answers "nothing" for a directory it may not read. Here that is an error, named by the directory.
"""

# Paths are strings here: they are keys, and thousands of them are looked at each time.
# ruff: noqa: PTH114, PTH116, PTH118, PTH120

from __future__ import annotations

import fnmatch
import glob
import os
import stat
from collections.abc import Iterable
from typing import NamedTuple

from bridge.model import covers

RECURSIVE = "**"


class Problem(NamedTuple):
    """What is wrong with a directory or a pattern."""

    place: str
    text: str


class Scan(NamedTuple):
    """What the patterns match.

    files: paths that match, and each pattern without wildcards, whether it is there or not.
    literal: those of the files that are such patterns.
    directories: where files come and go, with device and inode, so that a directory put in another's place is noticed.
    unread: directory or pattern -> why it is unknown what it holds.
    matched: the patterns that have matched a file, now or before.
    """

    files: frozenset[str]
    literal: frozenset[str]
    directories: frozenset[tuple[str, int, int]]
    unread: dict[str, Problem]
    matched: frozenset[str]


def fits(pattern: str, path: str) -> bool:
    """Whether `scan` would find ``path`` by ``pattern``, if it were there."""
    if not glob.has_magic(pattern):
        return path == pattern
    return _fit(_parts(pattern), _parts(path))


def scan(patterns: Iterable[str], matched: frozenset[str]) -> Scan:
    """Look for the files of ``patterns``: absolute, with the wildcards of a shell (``*``, ``?``, ``[..]``, ``**``).

    A name that starts with a dot is matched by a pattern that does, as a shell has it. ``matched``: what the last scan said.
    """
    walk = _Walk()
    literal: set[str] = set()
    barren: list[str] = []
    for pattern in patterns:
        if not glob.has_magic(pattern):
            literal.add(pattern)
            walk.directory(os.path.dirname(pattern))
            continue
        before = len(walk.unread)
        if walk.expand("/", _parts(pattern)):
            matched |= {pattern}
        elif pattern not in matched and len(walk.unread) == before:
            barren.append(pattern)
    files = walk.files | literal
    for path in files:
        walk.target(path)
    for pattern in barren:
        # The whole directory is unknown: nothing says that it was ever filled, it may be a mount that is late.
        directory = _fixed_part(pattern)
        key = pattern if any(covers(directory, path) for path in files) else directory
        walk.unread[key] = Problem(pattern, "no file matches")
    return Scan(frozenset(files), frozenset(literal), frozenset(walk.directories), walk.unread, matched)


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)


def _fit(parts: tuple[str, ...], names: tuple[str, ...]) -> bool:
    """Whether the names along a path fit the parts of a pattern; as `_Walk.expand` goes."""
    if not names:
        return False
    part, rest, name = parts[0], parts[1:], names[0]
    if part == RECURSIVE:
        deeper = len(names) > 1 and not name.startswith(".") and _fit(parts, names[1:])
        return deeper or _fit(rest or ("*",), names)
    if not (_matches(name, part) if glob.has_magic(part) else name == part):
        return False
    return _fit(rest, names[1:]) if rest else len(names) == 1


def _matches(name: str, part: str) -> bool:
    """Whether a name fits one part of a pattern; one that starts with a dot only where the part does."""
    return (not name.startswith(".") or part.startswith(".")) and fnmatch.fnmatchcase(name, part)


def _fixed_part(pattern: str) -> str:
    """The directory below which all files of a pattern lie."""
    parts = pattern.split("/")
    return "/".join(parts[: next(n for n, part in enumerate(parts) if glob.has_magic(part))]) or "/"


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # what is wrong with it (a loop of links, no right) is told when it is read as a file


class _Walk:
    """Collects what is found on the way along the patterns."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.directories: set[tuple[str, int, int]] = set()
        self.unread: dict[str, Problem] = {}

    def directory(self, path: str) -> None:
        """Take note of a directory, where it is one."""
        try:
            found = os.stat(path)
        except OSError:
            return  # the file in it is told as missing, which is looked into there
        if stat.S_ISDIR(found.st_mode):
            self.directories.add((path, found.st_dev, found.st_ino))

    def target(self, path: str) -> None:
        """Take note of the directory that a symbolic link leads to: that is where such a file is changed in place."""
        if os.path.islink(path):
            self.directory(os.path.dirname(os.path.realpath(path)))

    def expand(self, base: str, parts: tuple[str, ...]) -> bool:
        """Collect the files below ``base`` that match ``parts``; whether there were any."""
        part, rest = parts[0], parts[1:]
        if not glob.has_magic(part):
            path = os.path.join(base, part)
            if rest:
                return self.expand(path, rest)
            self.directory(base)
            if os.path.lexists(path):
                self.files.add(path)
            return os.path.lexists(path)
        entries = self._entries(base)
        if part == RECURSIVE:
            found = self.expand(base, rest or ("*",))
            for entry in entries:
                if not entry.name.startswith(".") and not entry.is_symlink() and _is_directory(entry):
                    found |= self.expand(entry.path, parts)
            return found
        found = False
        for entry in entries:
            if not _matches(entry.name, part):
                continue
            if rest:
                found |= _is_directory(entry) and self.expand(entry.path, rest)
            elif not _is_directory(entry):
                self.files.add(entry.path)
                found = True
        return found

    def _entries(self, base: str) -> list[os.DirEntry[str]]:
        self.directory(base)
        try:
            with os.scandir(base) as entries:
                return list(entries)
        except OSError as error:
            self.unread[base] = Problem(base, f"the directory cannot be read: {error.strerror}")
            return []
