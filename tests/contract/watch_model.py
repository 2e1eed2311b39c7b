"""What every view must show: a brute-force model that shares no code with the catalog's own views and filters."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import msgspec

from bridge.model import ServiceInstance, ServiceName

Content = tuple[int, Any]
"""A status, and the document that goes with 200 (None otherwise)."""

ENVIRONMENT = "eu"

PAGE = "ATAwMDAwMABzaG9wAGFwaQBldQBhAHM"  # behind shop/api of eu/a, id "s"

SPECS: tuple[tuple[str, str], ...] = (
    ("/v1/services", ""),
    ("/v1/services", "namespace=shop"),
    ("/v1/services", "environment=eu"),
    ("/v1/services", "environment=nowhere"),
    ("/v1/services", "health=ready"),
    ("/v1/services", "tag=v1"),
    ("/v1/services", "limit=2"),
    ("/v1/services", "stale=no"),
    ("/v1/services", "state=any"),
    ("/v1/services", "source=d"),
    ("/v1/instances", ""),
    ("/v1/instances", "health=any&lifecycle=any"),
    ("/v1/instances", "health=any&lifecycle=any&state=any"),
    ("/v1/instances", "state=expired"),
    ("/v1/instances", "zone=z1&zone=z2"),
    ("/v1/instances", "meta.role=web2&health=any"),
    ("/v1/instances", "port=http&tag=v2&tag=v1"),
    ("/v1/instances", "limit=3"),
    ("/v1/instances", f"limit=2&page={PAGE}"),
    ("/v1/instances", "near=z2&near=eu&limit=4&health=any"),
    ("/v1/instances", "near=z1"),
    ("/v1/instances", "stale=no"),
    ("/v1/instances", "source=c"),
    ("/v1/instances", "source=d"),
    ("/v1/services/shop/web", ""),
    ("/v1/services/shop/web", "health=any&lifecycle=any&state=any"),
    ("/v1/services/shop/web", "source=b"),
    ("/v1/services/shop/web", "limit=1"),
    ("/v1/services/shop/api", "state=expired&state=listed&health=any"),
    ("/v1/services/shop/api", "stale=no"),
    ("/v1/services/pay/db", ""),
    ("/v1/services/pay/db", "source=c"),
    ("/v1/services/pay/ghost", "source=a"),
    ("/v1/services/shop/web2", ""),
    ("/v1/services/nobody/has", ""),
    ("/v1/instances/eu/a/shop/web/1", ""),
    ("/v1/instances/eu/b/shop/api/2", ""),
    ("/v1/instances/eu/c/pay/db/0", ""),
    ("/v1/instances/eu/d/shop/web/0", ""),
    ("/v1/instances/eu/nobody/x", ""),
    ("/v1/environments", ""),
)
"""The views that readers ask for: path and query."""

STREAMED = tuple(
    spec for spec in SPECS if "limit" not in spec[1] and not spec[0].startswith(("/v1/instances/", "/v1/environments"))
)
"""Those that have streams."""


class SourceFacts(msgspec.Struct, frozen=True):
    """A source at one moment."""

    read: bool
    unread: bool
    stale: bool
    row: tuple[Any, ...]


class Facts:
    """The raw truth at one moment: instances, known services, sources."""

    def __init__(self, instances: list[ServiceInstance], known: set[ServiceName], sources: dict[str, SourceFacts]) -> None:
        self.instances = sorted(instances, key=lambda i: (i.namespace, i.service, i.environment, i.source, i.id))
        self.known = known
        self.sources = sources
        self._contents: dict[tuple[str, str], Content] = {}

    def content(self, spec: tuple[str, str]) -> Content:
        """What the view ``spec`` must show."""
        if spec not in self._contents:
            self._contents[spec] = self._make(*spec)
        return self._contents[spec]

    def _make(self, path: str, query: str) -> Content:
        asked: dict[str, list[str]] = {}
        for name, value in parse_qsl(query):
            asked.setdefault(name, []).append(value)
        segments = path.split("/")[2:]
        match segments:
            case ["services"]:
                return self._services(asked)
            case ["services", namespace, name]:
                return self._service(ServiceName(namespace, name), asked)
            case ["instances"]:
                status = self._list_status(asked)
                return status, self._page(self._matching(asked, None), asked, always=True) if status == 200 else None
            case ["instances", environment, source, *rest]:
                return self._instance(environment, source, "/".join(rest))
            case _:
                return 200, self._environments()

    def _reach(self, asked: dict[str, list[str]]) -> list[SourceFacts]:
        if "environment" in asked and ENVIRONMENT not in asked["environment"]:
            return []
        return [facts for name, facts in self.sources.items() if "source" not in asked or name in asked["source"]]

    def _list_status(self, asked: dict[str, list[str]]) -> int:
        reach = self._reach(asked)
        return 503 if reach and all(not facts.read for facts in reach) else 200

    def _degraded(self, service: ServiceName) -> bool:
        states = [i.state for i in self.instances if i.service_name == service]
        return "expired" in states and "listed" not in states

    def _matching(
        self, asked: dict[str, list[str]], service: ServiceName | None, default: str | None = None
    ) -> list[ServiceInstance]:
        def choice(name: str, usual: str) -> list[str] | None:
            values = asked.get(name, [usual])
            return None if "any" in values else values

        health, lifecycle = choice("health", default or "ready"), choice("lifecycle", default or "active")
        states = choice("state", "listed")
        found = []
        for instance in self.instances:
            if service is not None and instance.service_name != service:
                continue
            shown_as = {instance.state}
            if instance.state == "expired" and self._degraded(instance.service_name):
                shown_as.add("listed")
            singles: dict[str, set[str | None]] = {
                "environment": {instance.environment},
                "source": {instance.source},
                "namespace": {instance.namespace},
                "zone": {instance.zone},
                "node": {instance.node},
                "tag": set(instance.tags),
                "port": {port.name for port in instance.ports},
            }
            singles |= {name: {instance.meta.get(name[5:])} for name in asked if name.startswith("meta.")}
            if (
                (health is None or instance.health in health)
                and (lifecycle is None or instance.lifecycle in lifecycle)
                and (states is None or shown_as & set(states))
                and all(values & set(asked[name]) for name, values in singles.items() if name in asked)
                and not (asked.get("stale") == ["no"] and self.sources[instance.source].stale)
            ):
                found.append(instance)
        return found

    def _page(self, found: list[ServiceInstance], asked: dict[str, list[str]], *, always: bool) -> dict[str, Any]:
        near = asked.get("near", [])

        def rank(instance: ServiceInstance) -> int:
            return next((n for n, value in enumerate(near) if value in (instance.environment, instance.zone)), len(near))

        found = sorted(found, key=rank)
        if "page" in asked:
            found = [
                i for i in found if (i.namespace, i.service, i.environment, i.source, i.id) > ("shop", "api", "eu", "a", "s")
            ]
        more = False
        if "limit" in asked:
            limit = int(asked["limit"][0])
            found, more = found[:limit], len(found) > limit
        document: dict[str, Any] = {"instances": [plain(instance) for instance in found]}
        if always or "limit" in asked:
            document["next"] = more
        return document

    def _service(self, service: ServiceName, asked: dict[str, list[str]]) -> Content:
        if service not in self.known:
            return (503 if any(facts.unread or not facts.read for facts in self._reach(asked)) else 404), None
        document = {"namespace": service.namespace, "name": service.name}
        if self._degraded(service):
            document["degraded"] = "yes"
        return 200, document | self._page(self._matching(asked, service), asked, always=False)

    def _services(self, asked: dict[str, list[str]]) -> Content:
        if self._list_status(asked) != 200:
            return 503, None
        entries = []
        narrow = any(name not in ("environment", "namespace", "near", "limit", "page") for name in asked)
        for service in sorted(self.known):
            if "namespace" in asked and service.namespace not in asked["namespace"]:
                continue
            members = self._matching(asked, service, "any")
            elsewhere = "environment" in asked and ENVIRONMENT not in asked["environment"]
            if not members and (narrow or elsewhere):
                continue
            counts = {"ready": 0, "unready": 0, "draining": 0}
            for member in members:
                drains = member.lifecycle == "draining"
                counts["draining" if drains else "ready" if member.health == "ready" else "unready"] += 1
            entry: dict[str, Any] = {
                "namespace": service.namespace,
                "name": service.name,
                "ports": sorted({port.name for member in members for port in member.ports if port.name}),
                "tags": sorted({tag for member in members for tag in member.tags}),
                "environments": {} if elsewhere else {ENVIRONMENT: counts},
            }
            if self._degraded(service):
                entry["degraded"] = "yes"
            entries.append(entry)
        document: dict[str, Any] = {}
        if "limit" in asked:
            limit = int(asked["limit"][0])
            entries, document["next"] = entries[:limit], len(entries) > limit
        return 200, {"services": entries} | document

    def _instance(self, environment: str, source: str, id_: str) -> Content:
        for instance in self.instances:
            if (instance.environment, instance.source, instance.id) == (environment, source, id_):
                return 200, plain(instance)
        facts = self.sources.get(source)
        return (503 if facts is not None and (facts.unread or not facts.read) else 404), None

    def _environments(self) -> list[Any]:
        own = {"services": len(self.known), "instances": len(self.instances)}
        return [{"name": ENVIRONMENT, **own, "sources": [list(facts.row) for _, facts in sorted(self.sources.items())]}]


_plain: dict[int, tuple[ServiceInstance, Any]] = {}


def plain(instance: ServiceInstance) -> Any:
    """The instance as JSON shows it; each is converted once."""
    known = _plain.get(id(instance))
    if known is None or known[0] is not instance:
        if len(_plain) > 20_000:
            _plain.clear()
        known = _plain[id(instance)] = (instance, msgspec.json.decode(msgspec.json.encode(instance)))
    return known[1]


SOURCE_COLUMNS = ("name", "type", "state", "instances", "rejected", "held", "held_reason", "last_error")


def shown(spec: tuple[str, str], status: int, document: Any) -> Content:
    """An answer in the model's terms: without ages, and with whether there is a next page instead of its token."""
    if status != 200:
        return status, None
    if spec[0] == "/v1/environments":
        rows = [[[source[column] for column in SOURCE_COLUMNS] for source in row["sources"]] for row in document]
        keep = ("name", "services", "instances")
        return 200, [{**{key: row[key] for key in keep}, "sources": sources} for row, sources in zip(document, rows, strict=True)]
    if spec[0].startswith("/v1/instances/"):
        return 200, {key: value for key, value in document.items() if key not in ("held", "since", "age_ms")}
    document = dict(document)
    if "next" in document:
        document["next"] = document["next"] is not None
    if "degraded" in document:
        document["degraded"] = "yes"
    if "services" in document:
        document["services"] = [entry | {"degraded": "yes"} if "degraded" in entry else entry for entry in document["services"]]
    return 200, document


def entry_key(entry: dict[str, Any]) -> str:
    """What ``removed`` calls an entry of a list."""
    if "id" in entry:
        return f"{entry['environment']}/{entry['source']}/{entry['id']}"
    return f"{entry['namespace']}/{entry['name']}"


def as_entries(content: Content) -> dict[str, Any] | None:
    """A list's content as a stream's reader holds it: entries by key; None where there is no stream."""
    status, document = content
    if status != 200:
        return None
    items = document["services"] if "services" in document else document["instances"]
    return {entry_key(item): item for item in items}
