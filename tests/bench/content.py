"""Services and instances as a file source reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Object = dict[str, Any]


def instance(service: str, number: int, **more: Any) -> Object:
    """One instance of a service, with an address of its own; ``more`` adds or overrides keys."""
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return {"id": f"{service}-{number}", "address": address, "ports": {"http": 8080}, "zone": "eu-west-1a", **more}


def service(name: str, instances: int, *, namespace: str = "shop", first: int = 1) -> Object:
    """A service with that many instances, numbered from ``first``."""
    return {"name": name, "namespace": namespace, "instances": [instance(name, first + index) for index in range(instances)]}


def write(path: Path, services: Iterable[Object]) -> None:
    """Write a file of services (JSON is YAML) and rename it into place, so that it is read at once."""
    written = path.with_suffix(".new")
    written.write_text(json.dumps({"services": list(services)}))
    written.replace(path)
