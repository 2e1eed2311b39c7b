"""`wait`: 10,000 readers blocked on one service, one change answers all.

The change comes in through the watch of a Kubernetes API server (the kit's fake, on the load's core), the one input that tells
the daemon of a change at once. Reference: nginx with nchan, its long-poll readers answered with the same bytes.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median

from tests.bench.goals import Goal
from tests.bench.machine import cpu, rss
from tests.bench.session import Figures, Measure, Session
from tests.bench.waiters import Waiters, request
from tests.kit.background import Background
from tests.kit.daemon import Daemon
from tests.kit.fakes.kubeobjects import endpoint, endpointslice, service
from tests.kit.fakes.kubernetes import FakeKubernetes
from tests.kit.servers.nginx import Nginx
from tests.kit.servers.process import wait_for

NAME = "wait"
PATH = "/v1/services/shop/web"
OTHER = "/v1/services/shop/api"
"""What the prober reads: nothing of it changes."""

INSTANCES = 10
ROUNDS = 3
"""Changes of each repetition: its figures are their medians, its memory that of the first."""

_NCHAN = (
    "location = /publish { nchan_publisher; nchan_channel_id web; nchan_message_buffer_length 1; }",
    "location = /wait { nchan_subscriber longpoll; nchan_channel_id web; nchan_subscriber_first_message newest; }",
    "location = /subscribers { nchan_stub_status; }",
)


@dataclass(frozen=True)
class Subject:
    """What the readers of one server need: how to ask, whether they all wait, and the change that answers them."""

    port: int
    pid: int
    probe: str
    question: Callable[[], str]
    waiting: Callable[[], int]
    change: Callable[[], object]


def run(session: Session) -> None:
    """10,000 readers, 1,000 in a smoke test; each repetition starts its server anew, so that memory is of one wave only."""
    readers = session.scale(10_000, 1_000)
    loop = session.enter(Background())
    cluster = Cluster(loop, session.folder())
    session.enter(cluster)
    nchan = session.reference("nginx with nchan", lambda: Nchan(session, readers, cluster.body(session)), ["nchan"])
    measures = [
        Measure("last", f"{readers:,} readers answered", "ms", Goal("ratio <= 1"), scale=1000),
        Measure("memory", "memory per waiting reader", "KiB", Goal("ours <= 3"), scale=1 / 1024),
        Measure("stall", "longest other read meanwhile", "ms", Goal("ours <= 5"), scale=1000),
        Measure("first", "first reader answered", "ms", scale=1000),
        Measure("cpu", "processor time per reader answered", "\u00b5s", scale=1e6),
    ]
    session.compare(measures, lambda: cluster.measure(session, readers), nchan, lambda server: server.measure())


def measured(subject: Subject, readers: int) -> Figures:
    """Connect, let them wait, and make changes."""
    before = rss(subject.pid)
    with Waiters(subject.port, readers) as waiters:
        waiters.probe(request(subject.probe, subject.port))
        rounds, grown, used = [], 0, []
        for _ in range(ROUNDS):
            waiters.ask(request(subject.question(), subject.port))
            wait_for(f"{readers} blocked readers", lambda: subject.waiting() == readers, 60.0, 0.1)
            grown = grown or rss(subject.pid) - before
            began = cpu(subject.pid)
            rounds.append(waiters.wake(subject.change))
            used.append(cpu(subject.pid) - began)
    return {
        "memory": grown / readers,
        "last": median(woken.last for woken in rounds),
        "first": median(woken.first for woken in rounds),
        "cpu": median(used) / readers,
        "stall": median(woken.stall for woken in rounds),
    }


class Cluster:
    """The daemon's input: a service of ten endpoints, and another one. As a context manager it listens."""

    def __init__(self, loop: Background, folder: Path) -> None:
        self._loop = loop
        self._api = FakeKubernetes(bookmark_every=10.0)
        self._kubeconfig = folder / "kubeconfig"
        self._turn = count()

    def __enter__(self) -> None:
        self._loop.run(self._api.accept())
        self._kubeconfig.write_text(self._api.kubeconfig())
        self._loop.call(self._api.put, "services", service("web"), service("api"))
        self._loop.call(self._api.put, "endpointslices", endpointslice("api-1", "api", [endpoint("10.0.1.1")]))
        self.change()

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._api.refuse())

    def change(self) -> None:
        """Move one endpoint to another zone."""
        zone = f"z{next(self._turn)}"
        endpoints = [endpoint(f"10.0.0.{number}") for number in range(1, INSTANCES)] + [endpoint("10.0.0.99", zone=zone)]
        self._loop.call(self._api.put, "endpointslices", endpointslice("web-1", "web", endpoints))

    def daemon(self, session: Session) -> Daemon:
        """The daemon over it, not started yet."""
        source = {"type": "kubernetes", "kubeconfig": str(self._kubeconfig)}
        return session.pin(Daemon(session.folder(), {"sources": {"cluster": source}}))

    def body(self, session: Session) -> bytes:
        """What the daemon's readers are answered."""
        with self.daemon(session) as daemon:
            daemon.wait_ready()
            connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10.0)
            try:
                connection.request("GET", PATH)
                return connection.getresponse().read()
            finally:
                connection.close()

    def measure(self, session: Session, readers: int) -> Figures:
        """One repetition of ours."""
        with self.daemon(session) as daemon:
            daemon.wait_ready()
            subject = Subject(
                daemon.port,
                daemon.pid,
                OTHER,
                question=lambda: f"{PATH}?after={daemon.get(PATH).cursor}&wait=60s",
                waiting=lambda: int(_number(str(daemon.get("/metrics").body), "envbridge_http_blocked_reads ")),
                change=self.change,
            )
            return measured(subject, readers)


class Nchan:
    """nginx with nchan: readers wait on a channel, a message published there answers them all."""

    def __init__(self, session: Session, readers: int, body: bytes) -> None:
        self._session, self._readers, self._body = session, readers, body

    def measure(self) -> Figures:
        """One repetition of the reference."""
        folder = self._session.folder()
        (folder / "other").write_bytes(self._body)
        # nginx begins to close idle connections when a sixteenth of what it can hold is left.
        directives = (*_NCHAN, f"location = /other {{ root {folder}; }}")
        with self._session.pin(Nginx(folder, directives, nchan=True, connections=2 * self._readers)) as nginx:
            publisher = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=60.0)
            self._publish(publisher)  # the connection is open before the change that is timed
            subject = Subject(
                nginx.port,
                nginx.worker_pid,
                "/other",
                question=lambda: "/wait",
                waiting=lambda: int(_number(_ask(publisher, "GET", "/subscribers"), "subscribers: ")),
                change=lambda: self._publish(publisher),
            )
            try:
                return measured(subject, self._readers)
            finally:
                publisher.close()

    def _publish(self, publisher: http.client.HTTPConnection) -> None:
        _ask(publisher, "POST", "/publish", self._body)


def _ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> str:
    connection.request(method, path, body)
    response = connection.getresponse()
    text = response.read().decode()
    if response.status not in (200, 201, 202):
        raise RuntimeError(f"{method} {path}: {response.status} {text}")
    return text


def _number(text: str, after: str) -> float:
    """The number behind a label at the beginning of a line."""
    return next(float(line.removeprefix(after)) for line in text.splitlines() if line.startswith(after))
