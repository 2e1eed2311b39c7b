"""The daemon as a process: how it starts, who may read, what a reload changes, and in which order it stops."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.kit.certificates import self_signed
from tests.kit.daemon import EVERYTHING, Daemon, Event, Reply, ask
from tests.kit.readers import Follower
from tests.kit.servers.process import ServerFailed, wait_for

SOON = 60.0
DRAIN = 3.0
GONE_WITHIN = 5.0
BUSY = 2.0
"""Seconds that a busy machine may take longer."""

TOKEN = "a-reader's-token"
ADDRESS = "192.0.2.1"  # documentation (RFC 5737); only ever inside a namespace of the test's own
Config = dict[str, Any]


def shop(folder: Path, *ids: str) -> Config:
    """A file source with these instances."""
    instances = [{"id": id_, "address": "10.0.0.1", "ports": {"http": 80}} for id_ in ids]
    written = folder / "shop.new"
    written.write_text(json.dumps({"services": [{"name": "web", "namespace": "shop", "instances": instances}]}))
    written.replace(folder / "shop.json")
    return {"shop": {"type": "file", "paths": [str(folder / "shop.json")], "refresh": "500ms"}}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A ready daemon on one file with two instances."""
    with Daemon(tmp_path / "daemon", {"sources": shop(tmp_path, "w1", "w2")}) as made:
        made.wait_ready()
        yield made


class Stopping:
    """A stream and a blocked read in threads, and what came of them."""

    def __init__(self, daemon: Daemon) -> None:
        self.events: list[Event] = []
        self.blocked: list[tuple[float, Reply]] = []
        self.ended: list[float] = []
        cursor = daemon.get("/v1/services/shop/web").cursor
        self.threads = [
            threading.Thread(target=self._stream, args=(daemon,), daemon=True),
            threading.Thread(target=self._block, args=(daemon, cursor), daemon=True),
        ]
        for thread in self.threads:
            thread.start()
        wait_for("the snapshot", lambda: self.events, SOON)
        wait_for("the blocked read", lambda: daemon.status()["queues"]["blocked_reads"] == 1, SOON)

    def _stream(self, daemon: Daemon) -> None:
        with daemon.stream("/v1/instances", **EVERYTHING) as events:
            self.events += events
        self.ended.append(time.monotonic())

    def _block(self, daemon: Daemon, cursor: str) -> None:
        reply = daemon.blocking("/v1/services/shop/web", cursor, "60s", health="unready")
        if reply.status == 200:  # another view: its own cursor comes with the first answer
            reply = daemon.blocking("/v1/services/shop/web", reply.cursor, "60s", health="unready")
        self.blocked.append((time.monotonic(), reply))


def test_sigterm_says_so_at_once_answers_on_ends_readers_and_exits(daemon: Daemon, tmp_path: Path) -> None:
    old = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=SOON)
    assert ask(old, "/healthz").headers.get("connection") != "close"
    stopping = Stopping(daemon)

    began = time.monotonic()
    daemon.process.send(signal.SIGTERM)
    wait_for("the word", lambda: daemon.get("/readyz").status == 503, 0.5 + BUSY, 0.02)
    assert "it is stopping" in daemon.get("/readyz").body["detail"]
    assert ask(old, "/v1/instances").headers["connection"] == "close"
    old.close()

    shop(tmp_path, "w1", "w2", "w3")
    wait_for("a last change in the stream", lambda: any(event.type == "change" for event in stopping.events), 2.0 + BUSY)
    while time.monotonic() - began < DRAIN - 1.5:
        reply = daemon.get("/v1/instances")
        assert (reply.status, reply.headers["connection"]) == (200, "close"), "it accepts three seconds more"
        time.sleep(0.1)

    wait_for("the end", lambda: not daemon.alive, GONE_WITHIN)
    took = time.monotonic() - began
    assert DRAIN <= took <= GONE_WITHIN + BUSY
    assert daemon.process.returncode == 0
    for thread in stopping.threads:
        thread.join(SOON)
    ((answered, reply),) = stopping.blocked
    assert reply.status == 304
    assert answered - began >= DRAIN - 0.1
    assert stopping.ended, "the stream was cut"
    assert stopping.events[-1].type == "bookmark"
    assert daemon.log()[-1]["event"] == "stopped"
    with pytest.raises(ConnectionRefusedError):
        daemon.get("/healthz")


def test_a_stop_keeps_what_was_last_known_and_the_cursor_holds_after_it(daemon: Daemon, tmp_path: Path) -> None:
    before = daemon.get("/v1/instances")
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.blocking("/v1/instances", before.cursor, "300ms").status == 304
    shop(tmp_path, "w1")
    changed = daemon.blocking("/v1/instances", before.cursor, "20s")
    assert (changed.status, "envbridge-reset" in changed.headers) == (200, False)


def test_sighup_starts_what_is_new_and_leaves_readers_and_other_sources_alone(daemon: Daemon, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with Follower(daemon) as follower:
        polls = {job["name"]: job["runs"] for job in daemon.status()["jobs"]}["poll shop"]
        sources = {**daemon.config["sources"], "other": shop(other, "w9")["shop"]}
        daemon.reload({"sources": sources})
        daemon.wait_source("other")
        follower.wait({f"test/shop/shop/web/w{number}" for number in (1, 2)} | {"test/other/shop/web/w9"})
        follower.check()
        assert follower.connections == 1
        assert {job["name"]: job["runs"] for job in daemon.status()["jobs"]}["poll shop"] >= polls, "it was opened anew"
    assert any(line["event"] == "configuration reloaded" and line["sources"] == 2 for line in daemon.log())


def test_sighup_says_which_changed_key_needs_a_restart(daemon: Daemon) -> None:
    http_config = {"listen": "127.0.0.1:1"}
    daemon.reload({**daemon.config, "data_dir": "elsewhere", "serve": {"http": http_config}})
    wait_for("the reload", lambda: any(line["event"] == "configuration reloaded" for line in daemon.log()), SOON)
    told = {line["key"] for line in daemon.log() if line["event"] == "a changed key needs a restart"}
    assert told == {"data_dir", "serve.http"}
    assert daemon.get("/readyz").status == 200


def test_a_port_in_use_is_told_and_ends_it(tmp_path: Path) -> None:
    made = Daemon(tmp_path, {})
    with socket.create_server(("127.0.0.1", made.port)), pytest.raises(ServerFailed):
        made.process.start(lambda: False, SOON)
    assert made.process.returncode == 1
    (line,) = [line for line in made.log() if line["level"] == "error"]
    assert (line["event"], line["listen"]) == ("cannot listen", f"127.0.0.1:{made.port}")
    assert "in use" in line["reason"]


def test_off_loopback_it_needs_protection_or_the_word_insecure_which_shows(tmp_path: Path) -> None:
    made = Daemon(tmp_path / "bare", {"sources": {}})
    made.write_config({"serve": {"http": {"listen": f"0.0.0.0:{made.port}"}}})
    with pytest.raises(ServerFailed):
        made.process.start(lambda: False, SOON)
    assert made.process.returncode == 2
    assert "insecure: true" in made.process.tail()

    made.write_config({"serve": {"http": {"listen": f"0.0.0.0:{made.port}", "insecure": True}}})
    with made:
        for document in (made.get("/readyz").body, made.status()):
            assert any("serve.http.insecure" in warning for warning in document["warnings"])
        assert any(line["event"].startswith("listening insecurely") for line in made.log())


def protected(folder: Path, host: str) -> tuple[Daemon, Path]:
    """A daemon with TLS and one token, not started; and the certificate to trust."""
    (folder / "tokens").write_text(f"# readers\n{TOKEN}\n")
    tls = self_signed(folder, "127.0.0.1", ADDRESS)
    made = Daemon(folder / "daemon", {"sources": shop(folder, "w1", "w2")})
    http_config = {"listen": f"{host}:{made.port}", "tls": tls, "token_file": str(folder / "tokens")}
    made.write_config({**made.config, "serve": {"http": http_config}})
    return made, Path(tls["cert_file"])


def read_tls(port: int, cert: Path, path: str, headers: Mapping[str, str] | None = None) -> Reply:
    """A GET over TLS at 127.0.0.1."""
    context = ssl.create_default_context(cafile=str(cert))
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=SOON, context=context)
    try:
        return ask(connection, path, headers)
    finally:
        connection.close()


def test_over_tls_loopback_reads_with_and_without_a_token_and_plain_text_gets_nothing(tmp_path: Path) -> None:
    made, cert = protected(tmp_path, "127.0.0.1")
    try:
        made.process.start(lambda: quietly(lambda: read_tls(made.port, cert, "/readyz").status == 200), SOON)
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}"}):
            reply = read_tls(made.port, cert, "/v1/instances", headers)
            assert (reply.status, len(reply.body["instances"])) == (200, 2)
        with pytest.raises((OSError, http.client.HTTPException)):
            made.get("/healthz", timeout=10.0)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(str(cert))
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", made.port), timeout=SOON) as plain, pytest.raises(ssl.SSLError):
            old.wrap_socket(plain, server_hostname="127.0.0.1")
        assert TOKEN not in made.log_path.read_text()
    finally:
        made.kill9()


def quietly(test: Callable[[], bool]) -> bool:
    """False where it cannot be asked."""
    try:
        return test()
    except (OSError, http.client.HTTPException):
        return False


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace with loopback and ADDRESS, its name; skips where none can be made."""
    name = f"envbridge-{uuid4().hex[:8]}"
    try:
        for command in (
            f"netns add {name}",
            f"-n {name} link set lo up",
            f"-n {name} addr add {ADDRESS}/32 dev lo",
        ):
            made = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"ip {command}: {made.stderr.strip()}")
        yield name
    except FileNotFoundError as error:
        pytest.skip(str(error))
    finally:
        with suppress(FileNotFoundError):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


_READ = """
import http.client, json, ssl, sys
host, port, cert, path, token = sys.argv[1:]
connection = http.client.HTTPSConnection(host, int(port), timeout=20, context=ssl.create_default_context(cafile=cert))
connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
response = connection.getresponse()
print(json.dumps([response.status, dict(response.headers), response.read().decode()]))
"""


def test_other_addresses_need_the_token_for_everything_with_a_name_in_it(tmp_path: Path, namespace: str) -> None:
    made, cert = protected(tmp_path, "0.0.0.0")
    inside = ["ip", "netns", "exec", namespace]
    made.process.args[:0] = inside

    def read(host: str, path: str, token: str = "") -> tuple[int, dict[str, str], str]:
        command = [*inside, sys.executable, "-c", _READ, host, str(made.port), str(cert), path, token]
        status, headers, body = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
        return int(status), {name.lower(): value for name, value in headers.items()}, str(body)

    def ready() -> bool:
        with suppress(subprocess.CalledProcessError):
            return read(ADDRESS, "/readyz")[0] == 200
        return False

    try:
        made.process.start(ready, 60.0)
        assert read(ADDRESS, "/healthz")[0] == 200
        assert "shop" not in read(ADDRESS, "/readyz")[2]
        for path in ("/v1/instances", "/v1/services", "/v1/environments", "/v1/status", "/metrics", "/v1/nothing"):
            for token in ("", "another-token"):
                status, headers, body = read(ADDRESS, path, token)
                challenge = 'Bearer error="invalid_token"' if token else "Bearer"
                assert (status, headers["www-authenticate"]) == (401, challenge)
                assert "shop" not in body
        for host, token in ((ADDRESS, TOKEN), ("127.0.0.1", "")):
            status, _, body = read(host, "/v1/instances", token)
            assert (status, len(json.loads(body)["instances"])) == (200, 2)
    finally:
        made.kill9()
