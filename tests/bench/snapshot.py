"""One msgpack file with all instances, the least that can be done about a restart: `python -m tests.bench.snapshot FILE`.

Nothing of the bridge is imported, so that what it costs to start it is no part of the reference.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec


class Port(msgspec.Struct, frozen=True, gc=False):
    """The fields of `bridge.model.Port`."""

    name: str | None
    port: int
    protocol: str
    app_protocol: str | None


class Instance(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The fields of `bridge.model.ServiceInstance`, in their order."""

    environment: str
    source: str
    id: str
    namespace: str
    service: str
    addresses: tuple[str, ...]
    hostname: str | None
    ports: tuple[Port, ...]
    health: str
    lifecycle: str
    state: str
    weight: int
    region: str | None
    zone: str | None
    node: str | None
    tags: tuple[str, ...]
    meta: dict[str, str]


def read(path: Path) -> dict[tuple[str, str], Instance]:
    """Every instance by source and id, with one copy of what repeats."""
    text, pool, made = sys.intern, dict[Any, Any](), dict[tuple[str, str], Instance]()
    for it in msgspec.msgpack.Decoder(list[Instance]).decode(path.read_bytes()):
        source = text(it.source)
        made[source, it.id] = Instance(
            text(it.environment),
            source,
            it.id,
            text(it.namespace),
            text(it.service),
            it.addresses,
            it.hostname,
            pool.setdefault(it.ports, it.ports),
            text(it.health),
            text(it.lifecycle),
            text(it.state),
            it.weight,
            None if it.region is None else text(it.region),
            None if it.zone is None else text(it.zone),
            None if it.node is None else text(it.node),
            pool.setdefault(it.tags, it.tags),
            pool.setdefault(tuple(it.meta.items()), it.meta),
        )
    return made


if __name__ == "__main__":
    held = read(Path(sys.argv[1]))
    print(len(held), flush=True)
    sys.stdin.read()
