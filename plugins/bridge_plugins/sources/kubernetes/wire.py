"""The API server's JSON, decoded field by field: only what is mapped is read, everything else is skipped unseen.

Lists and watch events keep their objects raw, so that a broken one costs only itself.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from bridge.errors import TransientError

from .cut import cut_line, cut_list, cut_slice
from .shapes import (
    AddressType,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Node,
    Service,
    SliceMetadata,
    TargetRef,
)
from .shapes import (
    SliceLabels as SliceLabels,
)

T = TypeVar("T")

_MALFORMED = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
LONGEST_NAME = 255
# The escape of a surrogate, with the one of its second half where that follows; an even run of backslashes escapes itself.
_SURROGATE = re.compile(
    rb"(?<!\\)(\\++)u(?:[dD][89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[dD][c-fC-F][0-9a-fA-F]{2})"
)
_REPLACEMENT = rb"\ufffd"


class BrokenError(Exception):
    """An object that cannot be read. ``name`` is None where not even that can be told."""

    def __init__(self, reason: str, namespace: str = "", name: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.namespace = namespace
        self.name = name


class UnreadableError(BrokenError):
    """What was cut out of a list or a line is no JSON at all: either that is broken, or the cut was wrong."""


class _LooseSlice(Struct, rename="camel"):
    metadata: SliceMetadata
    address_type: AddressType | None = None
    endpoints: list[Raw] | None = None
    ports: list[EndpointPort] | None = None


class SliceFrame(Struct, rename="camel"):
    """An EndpointSlice whose endpoints were cut out (`cut_slice`)."""

    metadata: SliceMetadata
    address_type: AddressType | None = None
    endpoints: Raw = Raw(b"null")  # immutable
    ports: list[EndpointPort] | None = None


class _Target(Struct, rename="camel"):
    target_ref: TargetRef | None = None


class _ListMetadata(Struct, rename="camel"):
    resource_version: str
    continue_: str | None = msgspec.field(default=None, name="continue")


class _Page(Struct):
    kind: str
    metadata: _ListMetadata
    items: list[Raw] | None


class _Event(Struct):
    type: str
    object: Raw


class _HeadMetadata(Struct, rename="camel"):
    name: str | None = None
    namespace: str | None = None
    resource_version: str | None = None
    annotations: Any = None


class _Head(Struct):
    metadata: _HeadMetadata


class Status(Struct):
    """The API server's answer to what it refuses (``kind: Status``), also inside a watch."""

    code: int = 0
    reason: str | None = None
    message: str | None = None


class Page(Struct):
    """One page of a list: its objects, the list's resourceVersion and the token of the next page."""

    items: list[Raw]
    version: str
    next: str | None


class Event(Struct):
    """One line of a watch: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR, and the object it is about."""

    type: str
    object: Raw


class Bookmark(Struct):
    """How far a watch has come; ``initial_end``: everything that was there when it began has been sent."""

    version: str
    initial_end: bool


_ANYTHING = msgspec.json.Decoder(Raw)
_PAGE = msgspec.json.Decoder(_Page)
_EVENT = msgspec.json.Decoder(_Event)
_HEAD = msgspec.json.Decoder(_Head)
_STATUS = msgspec.json.Decoder(Status)
_SLICE = msgspec.json.Decoder(EndpointSlice)
_LOOSE_SLICE = msgspec.json.Decoder(_LooseSlice)
_EMPTY = Raw(b"[]")
_FRAME = msgspec.json.Decoder(SliceFrame)
_ENDPOINTS = msgspec.json.Decoder(list[Endpoint])
_ENDPOINT = msgspec.json.Decoder(Endpoint)
_TARGET = msgspec.json.Decoder(_Target)
_SERVICE = msgspec.json.Decoder(Service)
_NODE = msgspec.json.Decoder(Node)
_EVENT_TYPES = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"})


def read_page(body: bytes, kind: str, *, cut: bool = True) -> Page:
    """The page of a list of ``kind``. Raises TransientError for anything else: truncated, HTML, another kind.

    cut: the objects may come unread (`cut_list`). Where reading one of them raises UnreadableError, read the page without.
    """
    pieces = cut_list(body) if cut else None
    try:
        page = _decode(_PAGE, body if pieces is None else pieces[0])
    except _MALFORMED as error:
        if pieces is not None:
            return read_page(body, kind, cut=False)
        raise TransientError(f"list of {kind}: the answer cannot be read: {error}") from error
    if page.kind != f"{kind}List":
        raise TransientError(f"list of {kind}: the answer is a {page.kind[:80]!r}")
    if not page.metadata.resource_version:
        raise TransientError(f"list of {kind}: the answer has no resourceVersion")
    items = page.items or [] if pieces is None else [Raw(piece) for piece in pieces[1]]
    return Page(items, page.metadata.resource_version, page.metadata.continue_ or None)


def read_event(line: bytes, kind: str) -> Event:
    """One line of a watch; its object may come unread (`cut_line`). Raises TransientError where it is none."""
    cut = cut_line(line)
    if cut is not None:
        return Event(cut[0], Raw(cut[1]))
    try:
        event = _decode(_EVENT, line)
    except _MALFORMED as error:
        raise TransientError(f"watch of {kind}: a line cannot be read: {error}") from error
    if event.type not in _EVENT_TYPES:
        raise TransientError(f"watch of {kind}: unknown event type {event.type[:80]!r}")
    return Event(event.type, event.object)


def read_bookmark(raw: Raw, kind: str) -> Bookmark:
    """How far a bookmark, or any other event's object, brings the watch. Raises TransientError where that cannot be told."""
    try:
        metadata = _decode_object(_HEAD, raw).metadata
    except (*_MALFORMED, UnreadableError) as error:
        raise TransientError(f"watch of {kind}: an object without metadata: {error}") from error
    if not metadata.resource_version:
        raise TransientError(f"watch of {kind}: an object without resourceVersion")
    annotations = metadata.annotations
    ends = isinstance(annotations, dict) and annotations.get("k8s.io/initial-events-end") == "true"
    return Bookmark(metadata.resource_version, ends)


def read_status(body: bytes | Raw) -> Status:
    """The refusal in a body; an empty one where there is none to be read."""
    try:
        return _STATUS.decode(body)
    except _MALFORMED:
        return Status()


def read_slice(raw: Raw) -> EndpointSlice:
    """An EndpointSlice; endpoints that cannot be read are ``broken``. Raises BrokenError where it is more than those."""
    try:
        return _decode_object(_SLICE, raw)
    except _MALFORMED:
        return _read_endpoint_by_endpoint(raw)


def read_frame(text: bytes) -> SliceFrame | None:
    """An EndpointSlice but for its endpoints, which stay unread; None where it has to be read whole."""
    cut = cut_slice(text)
    if cut is None:
        return None
    try:
        frame = _FRAME.decode(cut[0])
    except _MALFORMED:
        return None
    if frame.endpoints != _EMPTY:
        return None
    frame.endpoints = Raw(cut[1])
    return frame


def read_endpoints(text: bytes) -> list[Endpoint] | None:
    """A list of endpoints; None where one of them cannot be read."""
    try:
        return _ENDPOINTS.decode(text)
    except _MALFORMED:
        return None


def read_service(raw: Raw) -> Service:
    """A Service. Raises BrokenError."""
    return _read(raw, _SERVICE)


def read_node(raw: Raw) -> Node:
    """A Node. Raises BrokenError."""
    return _read(raw, _NODE)


def read_name(raw: Raw) -> tuple[str, str]:
    """Namespace (empty where it has none) and name of any object. Raises BrokenError, without a name."""
    try:
        metadata = _decode_object(_HEAD, raw).metadata
    except _MALFORMED as error:
        raise BrokenError(f"an object without a readable name: {error}") from error
    namespace = metadata.namespace or ""
    if not is_name(metadata.name) or (namespace and not is_name(namespace)):
        raise BrokenError("an object without a usable name")
    return namespace, str(metadata.name)


def is_name(text: str | None) -> bool:
    """Whether a text can be part of a key: not empty, no ``/``, no control characters, at most 255 bytes."""
    if not text or "/" in text or not text.isprintable():
        return False
    return len(text) <= LONGEST_NAME and (text.isascii() or len(text.encode()) <= LONGEST_NAME)


def _decode(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    """What a text says. Half a surrogate pair in it does not cost the rest: it reads as U+FFFD.

    Raises what the decoder raises.
    """
    try:
        return decoder.decode(text)
    except _MALFORMED:
        whole = _SURROGATE.sub(_without_half, text)
        if whole == text:
            raise
        return decoder.decode(whole)


def _decode_object(decoder: msgspec.json.Decoder[T], raw: Raw) -> T:
    """What an object says, read for the first time. Raises what the decoder raises, UnreadableError where it is no JSON."""
    try:
        return decoder.decode(raw)
    except _MALFORMED:
        try:
            whole = _decode(_ANYTHING, bytes(raw))
        except _MALFORMED as error:
            raise UnreadableError(f"no JSON: {error}") from error
        return decoder.decode(whole)


def _without_half(found: re.Match[bytes]) -> bytes:
    backslashes, second = found[1], found[2]
    if len(backslashes) % 2:  # an escape, of a whole pair or of half of one
        return found[0] if second else backslashes[:-1] + _REPLACEMENT
    return found[0].removesuffix(second) + _REPLACEMENT if second else found[0]


def _read_endpoint_by_endpoint(raw: Raw) -> EndpointSlice:
    loose = _read(raw, _LOOSE_SLICE)
    endpoints: list[Endpoint] = []
    broken: dict[int, str] = {}
    for position, item in enumerate(loose.endpoints or ()):
        try:
            endpoints.append(_ENDPOINT.decode(item))
        except _MALFORMED as error:
            broken[position] = str(error)
            endpoints.append(Endpoint(target_ref=_target(item)))
    return EndpointSlice(loose.address_type, endpoints, loose.ports, broken, metadata=loose.metadata)


def _target(raw: Raw) -> TargetRef | None:
    try:
        return _TARGET.decode(raw).target_ref
    except _MALFORMED:
        return None


def _read(raw: Raw, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return _decode_object(decoder, raw)
    except _MALFORMED as error:
        namespace, name = read_name(raw)
        raise BrokenError(str(error), namespace, name) from error
