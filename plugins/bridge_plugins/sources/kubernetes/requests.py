"""What is asked of the API server, and what its refusals mean."""

from __future__ import annotations

import random
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from bridge.errors import ForbiddenError, SourceError, TransientError

from .state import Kind
from .wire import Status

PAGE_SIZE = 500
_WATCH_SECONDS = (240, 480)
_LONGEST_RETRY_AFTER = 3600
_SHOWN = 200


class StatusError(TransientError):
    """The API server answered with an error ``status`` other than 401 and 403."""

    def __init__(self, message: str, status: int, *, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.status = status


class UnauthorizedError(ForbiddenError):
    """401: the credentials are unknown or have expired."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object as the API server names it. ``group`` is empty for the core group."""

    kind: Kind
    plural: str
    group: str
    namespaced: bool = True

    @property
    def qualified(self) -> str:
        """``endpointslices.discovery.k8s.io``, as RBAC and kubectl call it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str) -> str:
        """The path of its collection in one namespace; ``""`` for all."""
        root = f"/apis/{self.group}/v1" if self.group else "/api/v1"
        where = f"/namespaces/{quote(namespace, safe='')}" if namespace and self.namespaced else ""
        return f"{root}{where}/{self.plural}"

    def right(self, verb: str, namespace: str) -> str:
        """The right that a request needs, in words."""
        where = f'in namespace "{namespace}"' if namespace and self.namespaced else "in all namespaces"
        return f"{verb} {self.qualified} {where if self.namespaced else 'in the cluster'}"


SLICES = Resource("EndpointSlice", "endpointslices", "discovery.k8s.io")
SERVICES = Resource("Service", "services", "")
NODES = Resource("Node", "nodes", "", namespaced=False)


@dataclass(frozen=True, slots=True)
class Question:
    """One GET: what it is for, and where."""

    resource: Resource
    verb: str
    namespace: str
    target: str

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace and self.resource.namespaced else ""
        return f"{self.verb} {self.resource.plural}{where}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of one namespace (``""``: all) are wanted."""

    namespace: str = ""
    label_selector: str | None = None
    field_selector: str | None = None

    def page(self, resource: Resource, token: str | None) -> Question:
        """One page of a list. resourceVersion stays unset: nothing older than what was seen before may answer."""
        query = {"limit": str(PAGE_SIZE), **({"continue": token} if token else {})}
        return self._question(resource, "list", query)

    def newest(self, resource: Resource) -> Question:
        """The smallest list: it tells how far the store has come."""
        return self._question(resource, "list", {"limit": "1"})

    def watch(self, resource: Resource, version: str) -> Question:
        """What happened since ``version``, for four to eight minutes."""
        return self._question(resource, "watch", {**_watch_query(), "resourceVersion": version})

    def stream(self, resource: Resource) -> Question:
        """What is there now, as events, and then what happens (KEP-3157)."""
        query = {**_watch_query(), "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        return self._question(resource, "watch", query)

    def _question(self, resource: Resource, verb: str, query: dict[str, str]) -> Question:
        if resource.namespaced:
            if self.label_selector:
                query["labelSelector"] = self.label_selector
            if self.field_selector:
                query["fieldSelector"] = self.field_selector
        return Question(resource, verb, self.namespace, f"{resource.path(self.namespace)}?{urlencode(query)}")


def refusal(question: Question, code: int, status: Status, retry_after: str | None = None) -> SourceError:
    """The error for an HTTP status, or for the ``code`` of an ERROR event. retry_after: the header, whole seconds."""
    said = _printable(status.message or status.reason or "")
    if code == 401:
        return UnauthorizedError(f"{question}: 401, the credentials are not accepted")
    if code == 403:
        right = question.resource.right(question.verb, question.namespace)
        return ForbiddenError(f"{question}: 403, the right to {right} is missing")
    if code == 404:
        api = f"/apis/{question.resource.group}/v1" if question.resource.group else "/api/v1"
        text = f"{question}: 404, this server does not offer {api} {question.resource.plural}"
        return StatusError(text, code)
    if 300 <= code < 400:
        return StatusError(f"{question}: {code}, a redirect, which is not followed", code)
    wait = float(min(int(retry_after), _LONGEST_RETRY_AFTER)) if retry_after and retry_after.isdecimal() else None
    return StatusError(f"{question}: {code} {said}".rstrip(), code, retry_after=wait)


def _watch_query() -> dict[str, str]:
    return {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(random.randint(*_WATCH_SECONDS))}


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text[:_SHOWN])
