"""One value of a file each: checked, and turned into what the model holds. Pure.

A function that finds a mistake names it relative to the value it was given; who called it puts its own place before
that (`MistakeError.under`), so that places cost nothing where all is well.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import sys
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from bridge.model import Port
from bridge_plugins.sources.file.document import Number, Value

NAME_BYTES = 255
WEIGHT_DIGITS = 9
PROTOCOLS = ("TCP", "UDP", "SCTP")

_PORT_KEYS = frozenset(("port", "protocol", "app_protocol"))
_WHOLE = re.compile(r"[0-9]+")
_HOSTNAME = re.compile(r"(?:(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\.)*(?!-)(?![0-9]+\.?$)[A-Za-z0-9_-]{1,63}(?<!-)\.?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

T = TypeVar("T")


class MistakeError(Exception):
    """Something in the file is not as it must be. ``place``: where, such as ``ports.http``; empty for the value itself."""

    def __init__(self, problem: str, place: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.place = place

    def under(self, place: str) -> MistakeError:
        """The same mistake, seen from further out."""
        inner = self.place if not self.place or self.place.startswith("[") else f".{self.place}"
        return MistakeError(self.problem, place + inner)

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


class Endpoint(NamedTuple):
    """Where an instance is reached."""

    addresses: tuple[str, ...]
    hostname: str | None
    ports: tuple[Port, ...]

    @property
    def derived_id(self) -> str:
        """The id of an instance that is given none: ``<address>:<first port>``."""
        host = self.addresses[0] if self.addresses else self.hostname
        return f"{host}:{self.ports[0].port}" if self.ports else str(host)


def show(value: Value) -> str:
    """An untrusted value for a message: one line, and short."""
    if value is None:
        return "missing"
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a mapping"
    if isinstance(value, bool):
        return f"the boolean {'true' if value else 'false'}"
    short = value if len(value) <= 60 else value[:60] + "..."
    return f"the number {short}" if isinstance(value, Number) else ascii(short)


def part(entry: dict[str, Any], key: str, read: Callable[[Any], T]) -> T:
    """What ``read`` makes of ``entry[key]`` (None where it is missing), its mistakes placed under the key."""
    try:
        return read(entry.get(key))
    except MistakeError as error:
        raise error.under(key) from None


def mapping(value: Value, keys: Collection[str] | None = None) -> dict[str, Any]:
    """A mapping, with no keys but ``keys``."""
    if type(value) is not dict:
        raise MistakeError(f"must be a mapping, is {show(value)}")
    if keys is not None and not value.keys() <= set(keys):
        unknown = min(value.keys() - keys)
        near = nearest(unknown, keys)
        raise MistakeError(f"unknown key {show(unknown)}" + (f", did you mean `{near}`?" if near else ""))
    return value


def nearest(word: str, keys: Collection[str]) -> str | None:
    """The one of ``keys`` that ``word`` may be a misspelling of."""
    return next(iter(difflib.get_close_matches(word, keys, 1)), None)


def sequence(value: Value) -> list[Any]:
    """A list."""
    if type(value) is not list:
        raise MistakeError(f"must be a list, is {show(value)}")
    return value


def label(value: Value) -> str:
    """Text of 1 to 255 bytes in UTF-8 without control characters."""
    if type(value) is not str:
        remedy = "; in quotes it would be text" if isinstance(value, (Number, bool)) else ""
        raise MistakeError(f"must be text, is {show(value)}{remedy}")
    return _label(value)


@lru_cache(maxsize=4096)  # zones, tags and port names repeat
def _label(value: str) -> str:
    if not value:
        raise MistakeError("is empty")
    well_formed(value)
    if len(value.encode()) > NAME_BYTES:
        raise MistakeError(f"is longer than {NAME_BYTES} bytes")
    if _CONTROL.search(value):
        raise MistakeError(f"has a control character: {show(value)}")
    return sys.intern(value)


def well_formed(value: str) -> str:
    """Text that UTF-8 can hold: JSON can spell half of a surrogate pair."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise MistakeError("is not valid Unicode") from None
    return value


def name(value: Value) -> str:
    """A `label` that can be a part of a path: without ``/``."""
    text = label(value)
    if "/" in text:
        raise MistakeError(f"a name has no `/`: {show(text)}")
    return text


def optional_label(value: Value) -> str | None:
    """A `label`, or None where it is missing."""
    return None if value is None else label(value)


def _as_text(value: Value) -> str:
    """What tags and meta hold: text; a number as it was written, a boolean as ``true`` or ``false``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):  # a number too
        return str(value)
    raise MistakeError(f"must be text, is {show(value)}")


def tags(value: Value) -> tuple[str, ...]:
    """Each tag once, in the order they are written."""
    if value is None:
        return ()
    found: dict[str, None] = {}
    for position, tag in enumerate(sequence(value)):
        try:
            found[_label(_as_text(tag))] = None
        except MistakeError as error:
            raise error.under(f"[{position}]") from None
    return tuple(found)


def meta(value: Value) -> dict[str, str]:
    """Meta entries: any text under labels."""
    if value is None:
        return {}
    found: dict[str, str] = {}
    for key, entry in mapping(value).items():
        try:
            found[_label(key)] = well_formed(_as_text(entry))
        except MistakeError as error:
            raise error.under(_key(key)) from None
    return found


def choice(value: Value, choices: tuple[str, ...]) -> str:
    """One of ``choices``."""
    if type(value) is not str or value not in choices:
        raise MistakeError(f"must be {' or '.join(choices)}, is {show(value)}")
    return choices[choices.index(value)]


def weight(value: Value) -> int:
    """A weight: 0 or more."""
    if type(value) is not Number or not _WHOLE.fullmatch(value) or len(value) > WEIGHT_DIGITS:
        raise MistakeError(f"must be a whole number of at most {WEIGHT_DIGITS} digits, 0 or more, is {show(value)}")
    return int(value)


def address(value: Value) -> str:
    """An IPv4 or IPv6 address in its canonical spelling (RFC 5952)."""
    if type(value) is not str:
        raise MistakeError(f"must be an IPv4 or IPv6 address, is {show(value)}")
    try:
        found = ipaddress.ip_address(value)
    except ValueError:
        raise MistakeError(f"must be an IPv4 or IPv6 address, is {show(value)}") from None
    if isinstance(found, ipaddress.IPv6Address) and found.scope_id:
        raise MistakeError(f"an address with a zone means nothing on another host: {show(value)}")
    return str(found)


def addresses(value: Value) -> tuple[str, ...]:
    """A list of addresses, each once."""
    found: dict[str, None] = {}
    for position, each in enumerate(sequence(value)):
        try:
            found[address(each)] = None
        except MistakeError as error:
            raise error.under(f"[{position}]") from None
    return tuple(found)


def hostname(value: Value) -> str:
    """A host name (RFC 1123, with ``_``), which a mistyped IPv4 address is not."""
    text = label(value)
    if len(text) > 254 or not _HOSTNAME.fullmatch(text):
        raise MistakeError(f"must be a host name, is {show(text)}")
    return text


def port_number(value: Value) -> int:
    """A port's number: 1 to 65535."""
    if type(value) is not Number or not _WHOLE.fullmatch(value) or len(value) > 5 or not 1 <= int(value) <= 65535:
        raise MistakeError(f"must be a whole number from 1 to 65535, is {show(value)}")
    return int(value)


def protocol(value: Value) -> str:
    """A transport protocol in upper case; TCP where it is missing."""
    return "TCP" if value is None else choice(value.upper() if type(value) is str else value, PROTOCOLS)


def ports(value: Value) -> tuple[Port, ...]:
    """Ports by name: a number, or a mapping of ``port``, ``protocol`` and ``app_protocol``."""
    found: list[Port] = []
    for key, entry in mapping(value).items():
        try:
            found.append(_port(_label(key), entry))
        except MistakeError as error:
            raise error.under(_key(key)) from None
    return tuple(found)


def _port(port_name: str, value: Value) -> Port:
    if type(value) is not dict:
        return Port(port_name, port_number(value))
    entry = mapping(value, _PORT_KEYS)
    return Port(
        port_name,
        part(entry, "port", port_number),
        part(entry, "protocol", protocol),
        part(entry, "app_protocol", optional_label),
    )


def endpoint(entry: dict[str, Any]) -> Endpoint:
    """Addresses, host name and ports of an instance; one of the first two must be there."""
    found: tuple[str, ...] = ()
    if entry.get("address") is not None:
        if entry.get("addresses") is not None:
            raise MistakeError("has both `address` and `addresses`")
        found = (part(entry, "address", address),)
    elif entry.get("addresses") is not None:
        found = part(entry, "addresses", addresses)
    host = part(entry, "hostname", hostname) if entry.get("hostname") is not None else None
    if not found and host is None:
        raise MistakeError("has no `address`, no `addresses` and no `hostname`")
    return Endpoint(found, host, part(entry, "ports", ports) if "ports" in entry else ())


def _key(key: str) -> str:
    """An untrusted key as a part of a place."""
    return key if len(key) <= 60 and re.fullmatch(r"[\w./-]+", key, re.ASCII) else f"[{show(key)}]"
