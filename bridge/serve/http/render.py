"""Views as bytes. A body is made once per change and shared by all who read the same view."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from typing import Any

from bridge.catalog.query import encode_page
from bridge.catalog.view import Delta, View, encode_json, encode_msgpack
from bridge.serve.http.negotiate import MSGPACK

PIECE = 1000
"""Entries in one event of a stream at most."""

COMPRESS_FROM = 512
"""Bytes below which compression is not worth its header."""


def body(view: View, media: str, *, compressed: bool) -> tuple[bytes, bool]:
    """The body of a list view, and whether it is compressed."""
    plain = view.bodies.get(media)
    if plain is None:
        plain = view.bodies[media] = _render(view, media)
    if not compressed or len(plain) < COMPRESS_FROM:
        return plain, False
    packed = view.bodies.get((media, "gzip"))
    if packed is None:
        packed = view.bodies[media, "gzip"] = gzip.compress(plain, compresslevel=6, mtime=0)
    return packed, True


def _render(view: View, media: str) -> bytes:
    shows_next = view.resource == "instances" or view.query.paged
    page, fragments = (view.page(), []) if media == MSGPACK else view.fragments()
    following = encode_page(page.next) if page.next is not None else None
    if media == MSGPACK:
        document = {**view.document(), view.collection: page.items}
        return encode_msgpack({**document, "next": following} if shows_next else document)
    head = b"".join(encode_json(key) + b":" + encode_json(value) + b"," for key, value in view.document().items())
    tail = b',"next":' + encode_json(following) if shows_next else b""
    return b"{" + head + encode_json(view.collection) + b":[" + b",".join(fragments) + b"]" + tail + b"}"


def event(name: str, data: bytes, id_: str | None = None) -> bytes:
    """One Server-Sent Event (WHATWG HTML, section 9.2)."""
    mark = f"id: {id_}\n".encode() if id_ is not None else b""
    return mark + b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def snapshot_piece(view: View, items: Sequence[Any], *, last_id: str | None) -> bytes:
    """A piece of a snapshot; ``last_id`` (the cursor) marks the last."""
    listed = encode_json(view.collection) + b":[" + b",".join(map(encode_json, items)) + b"]"
    head = b"".join(encode_json(key) + b":" + encode_json(value) + b"," for key, value in view.document().items())
    tail = b',"complete":true' if last_id is not None else b""
    return event("snapshot", b"{" + head + listed + tail + b"}", last_id)


def change_events(delta: Delta, id_: str) -> bytes:
    """A change as one event, or as several pieces of which the last is marked."""
    entries: list[tuple[str, Any]] = [
        *(("added", item) for item in delta.added),
        *(("updated", item) for item in delta.updated),
        *(("removed", key) for key in delta.removed),
    ]
    if len(entries) <= PIECE:
        return event("change", _change(entries, complete=False), id_)
    pieces = [entries[start : start + PIECE] for start in range(0, len(entries), PIECE)]
    frames = [event("change", _change(piece, complete=False)) for piece in pieces[:-1]]
    return b"".join([*frames, event("change", _change(pieces[-1], complete=True), id_)])


def _change(entries: Iterable[tuple[str, Any]], *, complete: bool) -> bytes:
    lists: dict[str, list[Any]] = {"added": [], "updated": [], "removed": []}
    for name, item in entries:
        lists[name].append(item)
    document: dict[str, Any] = {**lists, "complete": True} if complete else {**lists}
    return encode_json(document)
