"""`read`: one service, ten instances, read as fast as it goes.

References: nginx with the same bytes as a static file, and a Consul agent with the same ten instances.
"""

from __future__ import annotations

import urllib.request
from functools import partial
from pathlib import Path

from tests.bench import content
from tests.bench.goals import Goal
from tests.bench.machine import cpu
from tests.bench.session import Figures, Measure, Session
from tests.bench.wrk import wrk
from tests.kit.daemon import Daemon
from tests.kit.servers.consul import Consul
from tests.kit.servers.nginx import Nginx
from tests.kit.servers.process import wait_for

NAME = "read"
PATH = "/v1/services/shop/web"
INSTANCES = 10


def run(session: Session) -> None:
    """64 and 256 connections; a smoke test takes the first. Then requests of which no two are alike, which have no goal."""
    daemon = start(session)
    body = fetch(daemon.url + PATH)
    session.say(f"{NAME}: {INSTANCES} instances, {len(body)} bytes")
    nginx = session.reference("nginx static file", lambda: static_file(session, body), ["nginx"])
    consul = session.reference("Consul agent", lambda: consul_agent(session), ["consul"])
    seconds = session.scale(5, 1)

    def read(connections: int, url: str, pid: int, *, distinct: bool = False) -> Figures:
        size, began = len(fetch(url)), cpu(pid)
        seen = wrk(url, connections=connections, seconds=seconds, distinct=distinct)
        if seen.size < 0.99 * size * seen.reads:  # wrk looks at the status only, and rounds the size
            raise RuntimeError(f"{seen.reads} answers of {size} bytes cannot be {seen.size:.0f} bytes in all")
        return {"rate": seen.rate, "p99": seen.p99, "cpu": (cpu(pid) - began) / seen.reads}

    def theirs(connections: int, server: Nginx, *, distinct: bool = False) -> Figures:
        return read(connections, server.url + PATH, server.worker_pid, distinct=distinct)

    def consuls(connections: int, agent: Consul) -> Figures:
        return read(connections, f"{agent.url}/v1/health/service/web", agent.process.pid)

    for connections in (64,) if session.quick else (64, 256):
        ours = partial(read, connections, daemon.url + PATH, daemon.pid)
        session.compare(measures(f"{connections} connections", goals=True), ours, nginx, partial(theirs, connections))
        session.compare(
            [Measure("rate", f"reads, {connections} connections, and Consul's", "reads/s", Goal("ratio >= 10"))],
            ours,
            consul,
            partial(consuls, connections),
        )
    session.compare(
        measures("64 connections, no two requests alike", goals=False),
        partial(read, 64, daemon.url + PATH, daemon.pid, distinct=True),
        nginx,
        partial(theirs, 64, distinct=True),
    )


def measures(how: str, *, goals: bool) -> list[Measure]:
    """What is measured against nginx."""
    return [
        Measure("rate", f"reads, {how}", "reads/s", Goal("ratio >= 0.9") if goals else None),
        Measure("p99", f"p99, {how}", "ms", Goal("ratio <= 1.5") if goals else None, scale=1000),
        Measure("cpu", f"processor time per read, {how}", "\u00b5s", scale=1e6),
    ]


def start(session: Session) -> Daemon:
    """The daemon with the service, read by a first reader."""
    folder = session.folder()
    content.write(folder / "shop.json", [content.service("web", INSTANCES)])
    daemon = session.serve(Daemon(folder, {"sources": {"shop": {"type": "file", "paths": ["shop.json"]}}}))
    daemon.wait_ready()
    return daemon


def fetch(url: str) -> bytes:
    """The answer's body as it is sent."""
    with urllib.request.urlopen(url, timeout=10.0) as response:
        body: bytes = response.read()
    return body


def static_file(session: Session, body: bytes) -> Nginx:
    """nginx with the same bytes under the same path."""
    folder = session.folder()
    file = folder / "root" / Path(PATH).relative_to("/")
    file.parent.mkdir(parents=True)
    file.write_bytes(body)
    locations = [f"root {folder}/root;", "location /v1/ { open_file_cache max=100 inactive=1h; open_file_cache_valid 1h; }"]
    return session.serve(Nginx(folder, locations))


def consul_agent(session: Session) -> Consul:
    """An agent that may use one core, as all the others here, with the same instances, all of them passing."""
    agent = session.serve(Consul(session.folder(), {"GOMAXPROCS": "1"}))
    for item in content.service("web", INSTANCES)["instances"]:
        agent.register({"ID": item["id"], "Name": "web", "Address": item["address"], "Port": item["ports"]["http"]})
    wait_for("the instances in Consul", lambda: len(agent.get("/v1/health/service/web?passing")) == INSTANCES)
    return agent
