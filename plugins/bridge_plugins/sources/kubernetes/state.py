"""What is known of one scope: its slices, Services and Nodes, and which groups a change of one of them touches.

No I/O and no waiting. Changes go in one object at a time (`put`, `drop`) and mark groups as dirty; `event` renders
one dirty group. A state is made anew for each listing; the one before lends it what has not changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from sys import intern
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from bridge.contracts import Count
from bridge.errors import SourceError, TransientError
from bridge.model import NOWHERE, Gone, InstanceGroup, Listing, Origin, Rejected, ServiceName, SourceEvent

from . import wire
from .mapping import (
    NodeFacts,
    SliceGroup,
    group_from_service,
    is_foreign,
    is_own,
    node_facts,
    service_key,
    slice_key,
)
from .policy import Policy, Publish, service_policy
from .rows import SliceRows, pack, rows_of
from .shapes import Service
from .slices import Digest, Renderer, SliceInput, SliceRecord, digest_of
from .wire import BrokenError, UnreadableError

Kind = Literal["EndpointSlice", "Service", "Node"]
Input = tuple[object, ...]
"""Everything a group was rendered from: equal input, equal group."""

_UNREAD = 16
"""An object that is known by its digest is so many times less work than one that has to be read."""
_MANAGED_BY = "app.kubernetes.io/managed-by"


class ServiceRecord(Struct):
    """A Service as it is kept. group: its own one, where that depends on nothing else."""

    digest: Digest
    service: Service
    policy: Policy
    group: InstanceGroup | None = None


class ScopeState:
    """The objects of one scope, by group key (Nodes by name).

    publish: the mode of Services that name none. nodes: whether Nodes are followed. before: the state of the listing
    before; its slices need no decoding where their bytes are the same, and stand in for what cannot be read now.
    complain: told once per Service what on it is not understood. origin: stamped on each instance.
    renderer: shared by all states of a source; the groups it remembers are used again.

    A Node holds no group: one that cannot be read is rejected under a key of its own, and what was known of it counts on.
    """

    def __init__(
        self,
        scope: str,
        publish: Publish,
        *,
        nodes: bool,
        count: Count,
        complain: Callable[[str, str], None],
        before: ScopeState | None = None,
        origin: Origin = NOWHERE,
        renderer: Renderer | None = None,
    ) -> None:
        self.scope = scope
        self._origin = origin
        self.dirty: dict[str, None] = {}
        self.rejected: dict[str, str] = {}
        self.unknown: dict[Kind, str] = {}
        self._publish: Publish = publish
        self._default = Policy(publish=publish)
        self._renderer = renderer or Renderer()
        self._follows_nodes = nodes
        self._count = count
        self._complain = complain
        self._before = before
        self._known = {record.digest: record for record in before.slices.values()} if before else {}
        self._known_services = {record.digest: (key, record) for key, record in before.services.items()} if before else {}
        self.slices: dict[str, SliceRecord] = {}
        self.services: dict[str, ServiceRecord] = {}
        self.nodes: dict[str, NodeFacts] = {}
        # Keys of what cannot be read, also after it was told; why, by name of the Node, by "" where it has none.
        self._broken: set[str] = set()
        self._broken_nodes: dict[str, str] = {}
        self._members: dict[str, set[str]] = {}
        self._places: bytes | None = None
        # Groups rendered where their slices were read, until they are told.
        self._rendered: dict[str, tuple[SliceInput, SliceGroup]] = {}
        self._lists = True
        self.work = 0  # bytes that were read or rendered: a measure of the time it took

    def put(self, kind: Kind, raw: Raw, *, cut: bool = False) -> None:
        """Take in an object that is there. One that cannot be read is noted in ``rejected`` or ``unknown``.

        cut: it was cut out unread; raises UnreadableError where it is no JSON at all.
        """
        try:
            if kind == "EndpointSlice":
                key = self._put_slice(raw)
            elif kind == "Service":
                key = self._put_service(raw)
            else:
                key = self._put_node(raw)
        except BrokenError as broken:
            if cut and isinstance(broken, UnreadableError):
                raise
            self._reject(kind, broken)
        else:
            self._accept(key)

    def drop(self, kind: Kind, raw: Raw, *, cut: bool = False) -> None:
        """Take out an object that is gone; only its name has to be readable. cut: as in `put`."""
        try:
            namespace, name = wire.read_name(raw)
            if kind != "Node":
                namespace = self._namespace(namespace, name)
        except BrokenError as broken:
            if cut and isinstance(broken, UnreadableError):
                raise
            self._reject(kind, broken)
            return
        if kind == "EndpointSlice":
            key = slice_key(namespace, name)
            self._forget_slice(key)
        elif kind == "Service":
            key = service_key(namespace, name)
            self._forget_service(key)
        else:
            key = self._node_key(name)
            self._broken_nodes.pop(name, None)
            self._set_node(name, None)
        self._accept(key)

    def restart(self, kind: Kind) -> None:
        """Forget what was put in of a kind: its list begins again."""
        self.unknown.pop(kind, None)
        if kind == "Node":
            self.nodes, self._places, self._broken_nodes = {}, None, {}
        elif kind == "Service":
            self.services = {}
        else:
            self.slices, self._members, self._rendered = {}, {}, {}
        place = {"EndpointSlice": "/slice/", "Service": "/service/", "Node": f"/{self._node_key()}/"}[kind]
        self.rejected = {key: reason for key, reason in self.rejected.items() if place not in f"/{key}/"}
        self._broken = set(self.rejected)

    def settle(self) -> None:
        """End the listing: what could not be read stays as it was, and everything is to be rendered."""
        for key in self.rejected:
            self._adopt(key)
        if "" in self._broken_nodes and self._before is not None:  # it may be any of those that are missing
            for name in self._before.nodes.keys() - self.nodes.keys():
                self._set_node(name, self._before.nodes[name])
        self._before = None
        self._known, self._known_services = {}, {}
        self._lists = False
        self.dirty = {key: None for key in (*self.services, *self.slices) if key not in self.rejected}

    def clean(self) -> None:
        """Forget what was touched and what could not be read: it has been told."""
        self.dirty = {}
        self.rejected = {}
        self._rendered = {}

    def event(self, key: str) -> tuple[list[SourceEvent], Input | None]:
        """What is to be said about one group now, and from what: None where it must be said again next time."""
        if (record := self.slices.get(key)) is not None:
            made_from = self._slice_input(record)
            if made_from.policy.publish != "pod":
                return [InstanceGroup(key, (), (record.name,))], made_from
            mapped = self._render(key, made_from)
            if mapped.unresolved_ports:
                self._count("ports_unresolved", mapped.unresolved_ports)
            rejections: list[SourceEvent] = [Rejected(own_id, reason) for own_id, reason in mapped.rejected.items()]
            return [mapped.group, *rejections], None if rejections else made_from
        if key in self.services:
            group, missing = self._service_group(key), self._missing_nodes(key)
            return [group, *missing], None if missing else (group,)
        return [Gone(key)], None

    def input(self, key: str) -> Input | None:
        """Everything the group of ``key`` depends on; None where there is no such group."""
        if (record := self.slices.get(key)) is not None:
            return self._slice_input(record)
        if key in self.services:
            return (self._service_group(key),)
        return None

    def listing(self, groups: list[InstanceGroup], unchanged: list[str], rejected: dict[str, str]) -> Listing:
        """The listing of this state, with what `event` rendered for it."""
        unknown: dict[str, SourceError] = {}
        if self.unknown:
            unknown[self.scope] = TransientError(next(iter(self.unknown.values())))
        return Listing(self.scope, tuple(groups), tuple(unchanged), unknown=unknown, rejected={**self.rejected, **rejected})

    def _put_slice(self, raw: Raw) -> str:
        text = bytes(raw)
        digest = digest_of(text)
        if (known := self._known.get(digest)) is not None:
            self.work += len(text) // _UNREAD
            self._keep_slice(known)
            return known.key
        self.work += len(text)
        if not self._lists and (changed := self._put_change(text, digest)) is not None:
            return changed
        item = wire.read_slice(raw)
        name = item.metadata.name
        namespace = self._namespace(item.metadata.namespace, name)
        key = slice_key(namespace, name)
        labels = item.metadata.labels
        if labels is not None and is_foreign(labels):
            self._count("slices_foreign")
            self._ignore_slice(key)
        elif labels is None or not labels.service:
            self._count("slices_without_service")
            self._ignore_slice(key)
        elif not wire.is_name(labels.service):
            raise BrokenError("its service name cannot be used", namespace, name)
        else:
            self._put_whole(key, ServiceName(intern(namespace), intern(labels.service)), digest, rows_of(item), text)
        return key

    def _put_change(self, text: bytes, digest: Digest) -> str | None:
        """Take in a slice that is known and of which only some endpoints changed: its key; None where that is not so."""
        frame = wire.read_frame(text)
        if frame is None:
            return None
        metadata = frame.metadata
        key, labels = slice_key(metadata.namespace, metadata.name), metadata.labels
        old = self.slices.get(key)
        if old is None or labels is None or labels.service != old.name.name or is_foreign(labels):
            return None
        changed = self._renderer.change(key, self._slice_input(old), frame, text, self.nodes, self._origin)
        if changed is None:
            return None
        self._keep_slice(SliceRecord(key, old.name, digest, changed[0].packed))
        self._rendered[key] = changed
        return key

    def _put_whole(self, key: str, owner: ServiceName, digest: Digest, rows: SliceRows, text: bytes) -> None:
        packed = pack(rows)
        former = self.slices.get(key) or (self._before.slices.get(key) if self._before is not None else None)
        if former is not None and former.packed == packed and former.name == owner:
            former.digest = digest  # something else of the object changed
            self._keep_slice(former)
            return
        record = SliceRecord(key, owner, digest, packed)
        made_from = self._slice_input(record)
        if made_from.policy.publish == "pod":  # while it is unpacked; as a rule nothing changes before it is told
            mapped = self._renderer.render(key, made_from, self.nodes, self._origin, rows, text)
            self._rendered[key] = (made_from, mapped)
        self._keep_slice(record)

    def _slice_input(self, record: SliceRecord) -> SliceInput:
        policy = self._policy(service_key(*record.name))
        return SliceInput(record.packed, record.name, policy, self._places_digest() if policy.publish == "pod" else b"")

    def _render(self, key: str, made_from: SliceInput) -> SliceGroup:
        rendered = self._rendered.get(key)
        if rendered is not None and rendered[0] == made_from:
            return rendered[1]
        self.work += len(made_from.packed)
        return self._renderer.render(key, made_from, self.nodes, self._origin)

    def _keep_slice(self, record: SliceRecord) -> None:
        key = record.key
        old = self.slices.get(key)
        owner = service_key(*record.name)
        if old is not None and old.name != record.name:
            self._leave(key, old)
        self.slices[key] = record
        self._members.setdefault(owner, set()).add(key)
        if old is None or old.packed != record.packed or old.name != record.name:
            self.dirty[key] = None
            self._touch_service(owner)

    def _ignore_slice(self, key: str) -> None:
        if key in self.slices:  # its labels changed
            self._forget_slice(key)

    def _forget_slice(self, key: str) -> None:
        old = self.slices.pop(key, None)
        self._renderer.forget(key)
        self.dirty[key] = None
        if old is not None:
            self._leave(key, old)

    def _leave(self, key: str, old: SliceRecord) -> None:
        owner = service_key(*old.name)
        members = self._members.get(owner, set())
        members.discard(key)
        if not members:
            self._members.pop(owner, None)
        self._touch_service(owner)

    def _put_service(self, raw: Raw) -> str:
        text = bytes(raw)
        digest = digest_of(text)
        if (known := self._known_services.get(digest)) is not None:
            self.work += len(text) // _UNREAD
            self._keep_service(*known)
            return known[0]
        self.work += len(text)
        item = wire.read_service(raw)
        metadata = item.metadata
        metadata.namespace = self._namespace(metadata.namespace, metadata.name)
        key = service_key(metadata.namespace, metadata.name)
        if is_own((metadata.labels or {}).get(_MANAGED_BY)):
            self._count("services_own")
            if key in self.services:
                self._forget_service(key)
            return key
        policy, complaints = service_policy(item, self._publish)
        metadata.labels = metadata.annotations = None  # read into the policy; they can be large
        for complaint in complaints:
            self._complain(key, complaint)
        group = group_from_service(key, item, policy, (), {}) if policy.publish == "pod" else None
        self._keep_service(key, ServiceRecord(digest, item, policy, group))
        return key

    def _keep_service(self, key: str, record: ServiceRecord) -> None:
        old, old_policy = self.services.get(key), self._policy(key)
        self.services[key] = record
        publish = (old_policy.publish, record.policy.publish)
        changed = old is None or old_policy != record.policy or old.service != record.service
        if old is None or record.service.spec != old.service.spec or (changed and publish != ("pod", "pod")):
            self.dirty[key] = None
        if record.policy != old_policy:
            self.dirty.update(dict.fromkeys(self._members.get(key, ())))

    def _forget_service(self, key: str) -> None:
        old_policy = self._policy(key)
        self.services.pop(key, None)
        self.dirty[key] = None
        if old_policy != self._default:
            self.dirty.update(dict.fromkeys(self._members.get(key, ())))

    def _policy(self, key: str) -> Policy:
        """The policy of a Service, also of one that is not there."""
        record = self.services.get(key)
        return self._default if record is None else record.policy

    def _touch_service(self, key: str) -> None:
        if key in self.services and self._policy(key).publish != "pod":
            self.dirty[key] = None

    def _put_node(self, raw: Raw) -> str:
        item = wire.read_node(raw)
        name = intern(item.metadata.name)
        if not wire.is_name(name):
            raise BrokenError("a Node without a usable name")
        self._broken_nodes.pop(name, None)
        self._set_node(name, node_facts(item))
        return self._node_key(name)

    def _set_node(self, name: str, facts: NodeFacts | None) -> None:
        old = self.nodes.get(name)
        if old == facts:
            return
        if facts is None:
            del self.nodes[name]
        else:
            self.nodes[name] = facts
        if old is None or facts is None or (old.region, old.zone) != (facts.region, facts.zone):
            self._places = None
            mark = name.encode()
            # Too many is harmless, and searching packed bytes is far cheaper than reading them.
            self.dirty.update((key, None) for key, record in self.slices.items() if mark in record.packed)
        self.dirty.update((key, None) for key, record in self.services.items() if record.policy.publish == "node-port")

    def _service_group(self, key: str) -> InstanceGroup:
        record = self.services[key]
        if record.group is not None:
            return record.group
        policy, ready_on = record.policy, set[str]()
        for member in self._members.get(key, ()):
            ready_on |= self.slices[member].ready_nodes()
        if policy.publish == "node-port" and not self._follows_nodes:
            self._complain(key, "publish: node-port needs `nodes: true`; shown without instances")
        return group_from_service(key, record.service, policy, ready_on, self.nodes)

    def _missing_nodes(self, key: str) -> list[SourceEvent]:
        """What a Service's group may lack because of Nodes that cannot be read, and of which nothing is known."""
        record = self.services[key]
        if record.policy.publish != "node-port":
            return []
        metadata = record.service.metadata
        prefix = f"{metadata.namespace}/{metadata.name}"
        return [
            Rejected(f"{prefix}/{name}" if name else f"{key}/Node", f"Node {name}".rstrip() + f": {reason}")
            for name, reason in self._broken_nodes.items()
            if name not in self.nodes
        ]

    def _node_key(self, name: str = "") -> str:
        """What a Node is rejected under; without ``name``, those without one. No namespace has capitals: it is no group's."""
        return "/".join(part for part in (self.scope, "Node", name) if part)

    def _namespace(self, namespace: str, name: str) -> str:
        if not wire.is_name(name) or not wire.is_name(namespace) or (self.scope and namespace != self.scope):
            raise BrokenError("an object without a usable name, or of another namespace")
        return intern(namespace)

    def _accept(self, key: str) -> None:
        """Note that the object of a key can be read, or is gone. Where it could not be read, that is told."""
        if key in self._broken:
            self._broken.discard(key)
            self.rejected.pop(key, None)
            self.dirty[key] = None

    def _reject(self, kind: Kind, broken: BrokenError) -> None:
        if kind == "Node":
            name = broken.name or ""
            self._broken_nodes[name] = broken.reason
            self._note_broken(self._node_key(name), f"Node {name}".rstrip() + f": {broken.reason}")
            if self._before is not None and name in self._before.nodes and name not in self.nodes:
                self._set_node(name, self._before.nodes[name])
        elif broken.name is None:
            self.unknown[kind] = f"{kind}: {broken.reason}"
        else:
            try:
                namespace = self._namespace(broken.namespace, broken.name)
            except BrokenError as worse:
                self.unknown[kind] = f"{kind}: {worse.reason}"
                return
            key = (slice_key if kind == "EndpointSlice" else service_key)(namespace, broken.name)
            self._note_broken(key, f"{kind} {namespace}/{broken.name}: {broken.reason}")

    def _note_broken(self, key: str, reason: str) -> None:
        self._broken.add(key)
        self.rejected[key] = reason

    def _adopt(self, key: str) -> None:
        before = self._before
        if before is None:
            return
        if key in before.slices and key not in self.slices:
            self._keep_slice(before.slices[key])
        elif key in before.services and key not in self.services:
            self.services[key] = before.services[key]

    def _places_digest(self) -> bytes:
        if self._places is None:
            places = sorted((name, facts.region or "", facts.zone or "") for name, facts in self.nodes.items())
            self._places = hashlib.blake2b(msgspec.msgpack.encode(places), digest_size=16).digest()
        return self._places
