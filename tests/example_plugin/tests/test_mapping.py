"""What becomes what. Mapping is pure, so its tests are tables."""

from __future__ import annotations

import json
from typing import Any

import pytest
from envbridge_inventory.mapping import read_inventory

from bridge.errors import TransientError
from bridge.model import Port

MACHINE = {"name": "m1", "address": "192.0.2.1", "roles": {"web": 8080}, "up": True}


def inventory(*machines: Any) -> bytes:
    return json.dumps({"machines": machines}).encode()


def test_a_machine_is_an_instance_of_each_of_its_roles() -> None:
    found = read_inventory(inventory(MACHINE | {"roles": {"web": 8080, "api": 9090}}))
    assert [(group.key, [i.id for i in group.instances]) for group in found.groups] == [
        ("default/api", ["api/m1"]),
        ("default/web", ["web/m1"]),
    ]
    web = found.groups[1].instances[0]
    assert (web.addresses, web.ports, web.node) == (("192.0.2.1",), (Port(None, 8080),), "m1")


@pytest.mark.parametrize(("up", "health"), [(True, "ready"), (False, "unready"), (None, "unknown")])
def test_health(up: bool | None, health: str) -> None:
    (group,) = read_inventory(inventory(MACHINE | {"up": up})).groups
    assert group.instances[0].health == health


@pytest.mark.parametrize("broken", [{"name": ""}, {"address": "nowhere"}, {"roles": None}, {"roles": {"web": "8080"}}])
def test_one_broken_machine_costs_itself(broken: dict[str, Any]) -> None:
    found = read_inventory(inventory(MACHINE | broken, MACHINE | {"name": "m2"}))
    assert [i.id for group in found.groups for i in group.instances] == ["web/m2"]
    assert list(found.rejected) == ["machines[0]"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"machines": {}}', b'{"machines": [1'])
def test_what_is_no_inventory_is_unknown_and_not_empty(body: bytes) -> None:
    with pytest.raises(TransientError):
        read_inventory(body)
