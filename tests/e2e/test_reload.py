"""SIGHUP, and files that change by themselves: what takes effect without a restart, and what stays."""

from __future__ import annotations

import os
import signal
import ssl
from pathlib import Path
from typing import Any

from tests.kit.certificates import self_signed
from tests.kit.daemon import Daemon
from tests.kit.servers.process import wait_for

SHOP = "services: [{name: web, namespace: shop, instances: [{id: a, address: 192.0.2.1, ports: {http: 80}}]}]\n"


def config(folder: Path, **more: Any) -> dict[str, Any]:
    (folder / "shop.yaml").write_text(SHOP)
    return {"environment": "eu", "sources": {"paper": {"type": "file", "paths": [str(folder / "shop.yaml")]}}, **more}


def test_sighup_while_it_starts_does_not_end_it(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, config(tmp_path))
    daemon.process.start()
    try:
        wait_for("the first handler", lambda: catches_hangups(daemon.pid), interval=0.001)
        os.kill(daemon.pid, signal.SIGHUP)
        wait_for("an answer", lambda: daemon.alive and daemon._answers())
        wait_for("the configuration to be read again", lambda: lines(daemon, "configuration reloaded"))
        assert daemon.alive
    finally:
        daemon.stop()


def test_the_level_of_the_log_follows_the_configuration(tmp_path: Path) -> None:
    with Daemon(tmp_path, config(tmp_path, log={"format": "json", "level": "error"})) as daemon:
        assert lines(daemon, "started") == []
        daemon.reload(config(tmp_path, log={"format": "json", "level": "info"}))
        wait_for("a line of level info", lambda: lines(daemon, "configuration reloaded"))


def test_what_needs_a_restart_is_said_at_every_reload_until_it_is_as_it_runs(tmp_path: Path) -> None:
    with Daemon(tmp_path, config(tmp_path)) as daemon:
        for times in (1, 2):
            daemon.reload(config(tmp_path, environment_uid="other"))
            wait_for("the warning", lambda times=times: len(lines(daemon, "a changed key needs a restart")) == times)  # type: ignore[misc]
        assert {line["key"] for line in lines(daemon, "a changed key needs a restart")} == {"environment_uid"}
        daemon.reload(config(tmp_path))
        wait_for("the reload", lambda: len(lines(daemon, "configuration reloaded")) == 3)
        assert len(lines(daemon, "a changed key needs a restart")) == 2


def test_a_token_that_is_revoked_ends_its_readers_and_a_new_one_is_let_in(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("old\n")
    with Daemon(tmp_path, config(tmp_path, serve={"http": {"token_file": str(tokens)}})) as daemon:
        daemon.wait_ready()
        old, new = {"Authorization": "Bearer old"}, {"Authorization": "Bearer new"}
        assert daemon.get("/v1/services", headers=old).status == 200
        assert daemon.get("/v1/services", headers=new).status == 401
        with daemon.stream("/v1/services", headers=old) as events:
            assert next(events).type == "snapshot"
            tokens.write_text("new\n")
            assert [event.type for event in events if event.type not in ("bookmark", "change")] == []
        assert daemon.get("/v1/services", headers=old).status == 401
        assert daemon.get("/v1/services", headers=new).status == 200
        tokens.unlink()
        wait_for("the loss to be told", lambda: lines(daemon, "credentials cannot be read"))
        assert daemon.get("/v1/services", headers=new).status == 200


def test_a_certificate_that_is_renewed_is_shown_to_new_connections(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, config(tmp_path, serve={"http": {"tls": self_signed(tmp_path)}}))
    daemon.process.start(lambda: shown_certificate(daemon.port) is not None)
    try:
        before = shown_certificate(daemon.port)
        self_signed(tmp_path, name="renewed")
        wait_for("the new certificate", lambda: shown_certificate(daemon.port) not in (None, before))
        (tmp_path / "cert.pem").write_text("torn")
        wait_for("the torn file to be told", lambda: lines(daemon, "credentials cannot be read"))
        assert shown_certificate(daemon.port) not in (None, before)
    finally:
        daemon.stop()


def lines(daemon: Daemon, event: str) -> list[dict[str, Any]]:
    return [line for line in daemon.log() if line["event"] == event]


def catches_hangups(pid: int) -> bool:
    """Whether the process has a handler for SIGHUP, as the kernel says."""
    (mask,) = (line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (signal.SIGHUP - 1) & 1)


def shown_certificate(port: int) -> str | None:
    try:
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=5.0)
    except OSError:
        return None
