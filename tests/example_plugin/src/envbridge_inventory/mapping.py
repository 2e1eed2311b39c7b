"""From an inventory to groups of instances. Pure: no clock, no I/O, no state.

{"machines": [{"name": "m1", "address": "192.0.2.1", "roles": {"web": 8080}, "up": true}]}
"""

from __future__ import annotations

import ipaddress
import json
from sys import intern
from typing import Any, NamedTuple

from bridge.errors import TransientError
from bridge.model import DEFAULT_NAMESPACE, Health, InstanceGroup, Port, ServiceInstance, ServiceName


class Inventory(NamedTuple):
    """What an answer says. ``rejected``: the place of a machine -> why it cannot be shown."""

    groups: tuple[InstanceGroup, ...]
    rejected: dict[str, str]


def read_inventory(body: bytes) -> Inventory:
    """One group for each role, in the order of their names.

    One broken machine costs itself; raises TransientError where the answer as a whole cannot be read, because then it is
    not known what is there.
    """
    try:
        machines = json.loads(body)["machines"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise TransientError("the answer is no inventory") from None
    if not isinstance(machines, list):
        raise TransientError("the answer has no list of machines")
    roles: dict[str, dict[str, ServiceInstance]] = {}
    rejected: dict[str, str] = {}
    for position, machine in enumerate(machines):
        place = f"machines[{position}]"
        try:
            _read_machine(machine, roles)
        except ValueError as error:
            rejected[place] = f"{place}: {error}"
    groups = tuple(_group(role, roles[role]) for role in sorted(roles))
    return Inventory(groups, rejected)


def _group(role: str, instances: dict[str, ServiceInstance]) -> InstanceGroup:
    return InstanceGroup(f"{DEFAULT_NAMESPACE}/{role}", tuple(instances.values()), (ServiceName(DEFAULT_NAMESPACE, role),))


def _read_machine(machine: Any, roles: dict[str, dict[str, ServiceInstance]]) -> None:
    """Add a machine to each of its roles, or to none: raises ValueError."""
    if not isinstance(machine, dict):
        raise ValueError("is no object")
    name, roles_of_it = machine.get("name"), machine.get("roles")
    if not isinstance(name, str) or not name:
        raise ValueError("has no name")
    if not isinstance(roles_of_it, dict):
        raise ValueError("has no roles")
    address = str(ipaddress.ip_address(str(machine.get("address"))))  # raises ValueError, with the value
    up = machine.get("up")
    health: Health = "ready" if up is True else "unready" if up is False else "unknown"
    made = []
    for role, port in roles_of_it.items():
        if type(port) is not int or not 0 < port < 65536:
            raise ValueError(f"the role {role!r} has no port")
        made.append(
            ServiceInstance(
                id=f"{role}/{name}",  # unique in the source, and it contains the service
                namespace=DEFAULT_NAMESPACE,
                service=intern(role),
                addresses=(address,),
                ports=(Port(None, port),),
                health=health,
                node=name,
            )
        )
    for instance in made:
        roles.setdefault(instance.service, {})[instance.id] = instance
