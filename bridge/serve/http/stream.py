"""One reader of a stream: a snapshot as it is taken, changes while it keeps up, their net difference when it does not."""

from __future__ import annotations

from typing import Any, Protocol

from bridge.catalog.catalog import Catalog
from bridge.catalog.view import Delta, encode_json
from bridge.serve.http.message import Stream
from bridge.serve.http.render import PIECE, change_events, event, snapshot_piece


class Channel(Protocol):
    """Where a stream's bytes go."""

    @property
    def keeps_up(self) -> bool:
        """Whether more can be written now; else `StreamFollower.drained` is called later."""
        ...

    def write(self, data: bytes) -> bool:
        """Write; whether more can be written now."""
        ...

    def end(self) -> None:
        """The stream is over."""
        ...


class StreamFollower:
    """Follows a view for one connection.

    A reader that does not take its bytes costs what is in its buffer and nothing more: changes are left out, and once it
    has caught up it gets their net difference from the log, or a reset where the log does not reach back so far.
    """

    def __init__(self, channel: Channel, stream: Stream, catalog: Catalog) -> None:
        self._channel = channel
        self._view = stream.view
        self._stream = stream
        self._catalog = catalog
        self._pieces: list[Any] | None = None
        self._position = 0
        self._snapshot_id = ""
        self._seen = catalog.indexes.index
        self._behind = False
        self._restarts = False

    def begin(self) -> None:
        """Start: with nothing where the reader is up to date, with what it missed, or with a snapshot."""
        view, cursor = self._view, self._stream.cursor
        view.followers.add(self)
        _ = view.digest  # from here on it follows the changes
        if cursor is not None and view.holds(cursor):
            return
        if cursor is not None and self._catalog.indexes.handed_out(cursor) and self._catch_up(cursor.index):
            return
        if self._stream.given:
            self._channel.write(event("reset", b"{}"))
        self._begin_snapshot()

    def close(self) -> None:
        """Stop following."""
        self._view.followers.discard(self)

    def finish(self) -> None:
        """The daemon stops: a last bookmark, and the end."""
        self.bookmark()
        self.close()
        self._channel.end()

    def bookmark(self) -> None:
        """Tell where the reader stands, and how old what it sees is."""
        if self._is_current:
            self._channel.write(event("bookmark", encode_json(self._stream.bookmark()), str(self._view.cursor())))

    def follow(self, delta: Delta) -> None:
        """The view changed by ``delta``."""
        if not self._is_current:
            self._behind = True
            return
        self._seen = self._catalog.indexes.index
        self._channel.write(_frames(self._view, delta))

    def restart(self) -> None:
        """The view changed as a whole: reset, and a new snapshot, or the end where there is nothing to show any more."""
        if self._view.status != 200:
            self._channel.write(event("reset", b"{}"))
            self.close()
            self._channel.end()
        elif self._channel.keeps_up:
            self._channel.write(event("reset", b"{}"))
            self._begin_snapshot()
        else:
            self._pieces, self._restarts = None, True

    def drained(self) -> None:
        """The reader took what was written."""
        if self._restarts:
            self.restart()
        elif self._pieces is not None:
            self._write_pieces()
        elif self._behind:
            self._behind = False
            if not self._catch_up(self._seen):
                self.restart()

    @property
    def _is_current(self) -> bool:
        """Whether the reader was sent everything up to now, and takes it."""
        return self._pieces is None and not self._behind and not self._restarts and self._channel.keeps_up

    def _catch_up(self, index: int) -> bool:
        """Send the net difference since ``index``; False where the log does not reach back so far, or cannot tell."""
        changes = self._catalog.log.since(index)
        if changes is None or (self._view.stale_sensitive and index < self._catalog.stale_index):
            return False
        delta = self._view.delta_since(changes)
        if delta is None:
            return False
        self._seen = self._catalog.indexes.index
        if delta:
            self._channel.write(change_events(delta, str(self._view.cursor())))
        return True

    def _begin_snapshot(self) -> None:
        self._behind = self._restarts = False
        self._pieces = list(self._view.page().items)
        self._position = 0
        self._snapshot_id = str(self._view.cursor())
        self._seen = self._catalog.indexes.index
        self._write_pieces()

    def _write_pieces(self) -> None:
        pieces = self._pieces
        while pieces is not None:
            piece = pieces[self._position : self._position + PIECE]
            self._position += PIECE
            last = self._position >= len(pieces)
            keeps_up = self._channel.write(snapshot_piece(self._view, piece, last_id=self._snapshot_id if last else None))
            if last:
                self._pieces = None
                if self._behind and keeps_up:
                    self.drained()
                return
            if not keeps_up:
                return


def _frames(view: Any, delta: Delta) -> bytes:
    """The change's bytes, made once for all readers of the view."""
    frames: bytes | None = view.bodies.get("change")
    if frames is None:
        frames = view.bodies["change"] = change_events(delta, str(view.cursor()))
    return frames
