"""services, get, environments, status: what goes where, and how commands end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripted_bridge import Reply, ScriptedBridge, event, events, instance, problem, service

Cli = Callable[..., Any]

ENVIRONMENTS = [
    {
        "name": "eu", "uid": "u", "state": "live", "epoch": 1, "revision": 9, "age_ms": 1500,
        "services": 2, "instances": 7, "via": None,
        "sources": [
            {"name": "main", "type": "kubernetes", "state": "synced", "age_ms": 1500, "instances": 7, "rejected": 0, "held": 0,
             "held_reason": None, "last_error": None},
            {"name": "paper", "type": "file", "state": "failed", "age_ms": None, "instances": 0, "rejected": 2, "held": 4,
             "held_reason": "all would go", "last_error": "a.yaml:3: no mapping"},
        ],
    },
    {"name": "us", "state": "lost", "age_ms": 7_200_000, "sources": []},
]  # fmt: skip
STATUS = {
    "version": "0.1.0", "uptime_ms": 90_000, "role": "owner",
    "sources": [{"name": "main", "state": "synced", "rejected": [{"id": "x"}]}],
    "jobs": {"poll main": {"next_run": "12:00", "last_result": "ok"}},
    "memory": {"rss_bytes": 3 << 20}, "holds": [], "hub": None,
}  # fmt: skip
SERVICE = {"namespace": "shop", "name": "web", "instances": [instance(), instance("shop/web/2", health="unready", zone=None)]}
EVIL = "a\x1b[31m\x9b0m\u202e\x07\n\x7f[bold]x"


@pytest.fixture
def full(bridge: ScriptedBridge) -> ScriptedBridge:
    """A bridge with two services in three namespaces."""
    listed = [service(), service("pay", "ledger"), service("shop", "ledger"), service("default", "lonely", us={"ready": 1})]
    bridge.on("/v1/services", {"services": listed})
    bridge.on("/v1/services/shop/web", SERVICE)
    bridge.on("/v1/services/default/lonely", {"namespace": "default", "name": "lonely", "instances": []})
    bridge.on("/v1/environments", ENVIRONMENTS)
    bridge.on("/v1/status", STATUS)
    return bridge


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_services_shows_counts_and_environments(full: ScriptedBridge, cli: Cli) -> None:
    result = cli("services")
    head, first, *_, last = words(result.stdout)
    assert head == ["SERVICE", "READY", "UNREADY", "DRAINING", "ENVIRONMENTS"]
    assert first == ["shop/web", "3", "1", "0", "eu"]
    assert last == ["default/lonely", "1", "0", "0", "us"]
    assert (result.exit_code, result.stderr) == (0, "")


def test_wide_shows_more(full: ScriptedBridge, cli: Cli) -> None:
    assert "eu 3/1/0" in cli("services", "-o", "wide").stdout
    assert "team=checkout" in cli("get", "shop/web", "-o", "wide").stdout
    assert "a.yaml:3: no mapping" in cli("environments", "-o", "wide").stdout


def test_get_shows_instances_of_any_health(full: ScriptedBridge, cli: Cli) -> None:
    result = cli("get", "shop/web")
    _, first, second = words(result.stdout)
    assert first == ["eu", "main", "10.0.0.1", "http:8080", "ready", "eu-west-1a", "shop/web/1"]
    assert second[4:] == ["unready", "-", "shop/web/2"]
    assert full.asked[-1].query == {"health": "any", "lifecycle": "any", "state": "any"}


def test_get_finds_the_namespace(full: ScriptedBridge, cli: Cli) -> None:
    assert "shop/web/1" in cli("get", "web").stdout
    assert cli("get", "lonely").exit_code == 0


def test_get_of_a_name_in_several_namespaces_lists_them(full: ScriptedBridge, cli: Cli) -> None:
    result = cli("get", "ledger")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "pay/ledger" in result.stderr
    assert "shop/ledger" in result.stderr


@pytest.mark.parametrize(("name", "near"), [("wbe", "web"), ("shop/wbe", "shop/web"), ("pay/web", "shop/web")])
def test_get_of_an_unknown_name_tells_what_is_near(full: ScriptedBridge, cli: Cli, name: str, near: str) -> None:
    result = cli("get", name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: no service `{name}`. Did you mean `{near}`")


def test_what_is_like_nothing_there_is_told_how_to_see_what_is(full: ScriptedBridge, cli: Cli) -> None:
    assert cli("get", "zzz").stderr == "error: no service `zzz`. `envbridge services` lists all.\n"


@pytest.mark.parametrize("name", ["", "/", "a/", "/a", "a/b/c"])
def test_what_cannot_be_a_name_is_a_usage_error(full: ScriptedBridge, cli: Cli, name: str) -> None:
    result = cli("get", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert full.asked == []


def test_environments_shows_states_and_ages(full: ScriptedBridge, cli: Cli) -> None:
    _, eu, us = words(cli("environments").stdout)
    assert eu == ["eu", "live", "1s", "2", "7", "2", "4", "-", "main", "synced,", "paper", "failed"]
    assert us == ["us", "lost", "2h", "-", "-", "-", "-", "-", "-"]


def test_status_shows_whatever_is_in_it(full: ScriptedBridge, cli: Cli) -> None:
    out = cli("status").stdout
    assert ["uptime", "90s"] in words(out)
    assert ["poll", "main", "12:00", "ok"] in words(out)
    assert ["rss", "3.0", "MiB"] in words(out)
    assert "holds" not in out
    assert '{"id": "x"}' not in out
    assert '{"id": "x"}' in cli("status", "-o", "wide").stdout


@pytest.mark.parametrize(
    ("arguments", "document"), [(["environments"], ENVIRONMENTS), (["status"], STATUS), (["get", "shop/web"], SERVICE)]
)
def test_json_and_yaml_are_the_document(full: ScriptedBridge, cli: Cli, arguments: list[str], document: Any) -> None:
    assert json.loads(cli(*arguments, "-o", "json").stdout) == document
    assert yaml.safe_load(cli(*arguments, "--output", "yaml").stdout) == document


@pytest.mark.parametrize("output", ["table", "wide", "json", "yaml"])
@pytest.mark.parametrize("command", [["services"], ["get", "shop/web"], ["environments"], ["status"]])
def test_nothing_from_the_network_reaches_the_terminal_raw(
    bridge: ScriptedBridge, cli: Cli, command: list[str], output: str
) -> None:
    evil = (
        instance()
        | dict.fromkeys(("environment", "source", "id", "health", "zone", "node"), EVIL)
        | {"meta": {EVIL: EVIL}, "tags": [EVIL]}
    )
    bridge.on(
        "/v1/services",
        Reply({"services": [service(EVIL, EVIL, **{EVIL: {"ready": 1}})]}, headers={"Envbridge-Stale": "%1B%5B2J"}),
    )
    bridge.on("/v1/services/shop/web", {"instances": [evil], "degraded": EVIL})
    bridge.on("/v1/environments", [{"name": EVIL, "state": EVIL, "sources": [{"name": EVIL, "state": EVIL, "last_error": EVIL}]}])
    bridge.on("/v1/status", {EVIL: EVIL, "list": [{EVIL: EVIL}], "map": {EVIL: {"x": EVIL}}, "plain": {EVIL: [EVIL]}})
    result = cli(*command, "-o", output)
    assert result.exit_code == 0
    shown = result.stdout + result.stderr
    assert not set(shown) & set("\x1b\x9b\u202e\x07\x7f")
    assert "[bold]x" in shown


def test_an_evil_error_is_shown_harmlessly(bridge: ScriptedBridge, cli: Cli) -> None:
    bridge.on("/v1/services", problem(400, EVIL, EVIL))
    result = cli("services")
    assert result.exit_code == 1
    assert not set(result.stderr) & set("\x1b\x9b\u202e\x07\x7f")
    assert len(result.stderr.splitlines()) == 1


def test_what_is_stale_or_missing_is_told_on_stderr(bridge: ScriptedBridge, cli: Cli) -> None:
    bridge.on("/v1/services", Reply({"services": []}, headers={"Envbridge-Stale": "eu", "Envbridge-Incomplete": "eu/paper"}))
    result = cli("services", "-o", "json")
    assert json.loads(result.stdout) == {"services": []}
    assert "stale, not confirmed for a while: eu; `envbridge environments -o wide` tells which source" in result.stderr
    assert "eu/paper" in result.stderr


def test_what_tells_the_stale_source_does_not_point_to_itself(bridge: ScriptedBridge, cli: Cli) -> None:
    bridge.on("/v1/environments", Reply(ENVIRONMENTS, headers={"Envbridge-Stale": "eu"}))
    assert "environments -o wide" in cli("environments").stderr
    assert cli("environments", "-o", "wide").stderr == "note: stale, not confirmed for a while: eu\n"


def test_a_refusal_ends_with_1_and_its_reason(bridge: ScriptedBridge, cli: Cli) -> None:
    bridge.on("/v1/environments", problem(503, "Not read yet", "main: forbidden"))
    result = cli("environments")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Not read yet: main: forbidden" in result.stderr


@pytest.mark.parametrize("command", [["services"], ["get", "shop/web"], ["get", "web"], ["environments"], ["status"]])
@pytest.mark.parametrize("body", [[], {}, 3, None, {"services": 3}, {"services": [{}]}, [3], {"instances": [3]}])
def test_an_answer_of_another_shape_ends_with_1_at_most(bridge: ScriptedBridge, cli: Cli, command: list[str], body: Any) -> None:
    for path in ("services", "services/shop/web", "environments", "status"):
        bridge.on(f"/v1/{path}", Reply(body))
    result = cli(*command)
    acceptable = (command == ["environments"] and body == []) or (command == ["status"] and isinstance(body, dict))
    assert result.exit_code == (0 if acceptable else 1)
    assert "Traceback" not in result.stderr


def test_nobody_there_ends_with_1(cli: Cli) -> None:
    with ScriptedBridge() as gone:
        pass
    result = cli("services", "--url", gone.url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "refused" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["services", "--url", "nonsense"],
        ["services", "-o", "xml"],
        ["services", "--token-file", "/nowhere/token"],
        ["services", "--url", "https://h", "--ca-file", "/nowhere/ca"],
        ["servces"],
        ["services", "--nonsense"],
        ["get"],
    ],
)
def test_wrong_usage_ends_with_2_and_says_so_on_stderr(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["services", "-o", "jsn"], "`jsn` is no value of it. Did you mean `json`? Valid: table, wide, json, yaml."),
        (["run", "a", "--log-level", "warnin"], "`warnin` is no value of it. Did you mean `warning`?"),
        (["servces"], "Did you mean `services`?"),
        (["services", "--ulr", "x"], "--ulr. Did you mean `--url`?"),
    ],
)
def test_a_misspelt_word_is_repeated_with_what_is_near(cli: Cli, arguments: list[str], told: str) -> None:
    result = cli(*arguments)
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert told in first
    assert "Value error" not in first
    assert second.endswith("--help`.")


def test_formats_are_taken_in_any_case(full: ScriptedBridge, cli: Cli) -> None:
    assert json.loads(cli("status", "-o", "JSON").stdout) == STATUS


@pytest.mark.parametrize(
    "command", [["services"], ["services", "-o", "json"], ["--version"], ["--help"], ["watch", "--snapshot"]]
)
def test_a_full_disk_is_one_line_and_ends_with_1(full: ScriptedBridge, command: list[str]) -> None:
    snapshot = event("snapshot", {"instances": [instance()], "complete": True}, id="a-1-0")
    full.on("/v1/instances", events(snapshot))
    with Path("/dev/full").open("w") as stdout:
        ended = subprocess.run(
            [sys.executable, "-c", "from bridge.cli import main; main()", *command],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stdout=stdout, stderr=subprocess.PIPE,
            text=True, timeout=30,
        )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (1, "error: the output cannot be written: No space left on device\n")


def test_a_closed_stdout_is_one_line_and_ends_with_1(full: ScriptedBridge) -> None:
    ended = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", "from bridge.cli import main; main()", "services"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stderr=subprocess.PIPE, text=True, timeout=30,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (1, "error: the output cannot be written: Bad file descriptor\n")


def test_a_reader_that_goes_away_is_no_error(full: ScriptedBridge) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "from bridge.cli import main; main()", "services"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_the_token_comes_from_a_file_or_the_environment(full: ScriptedBridge, cli: Cli, tmp_path: Path, monkeypatch) -> None:
    secret = tmp_path / "token"
    secret.write_text("cpb_1_file\n")
    monkeypatch.setenv("ENVBRIDGE_TOKEN", "cpb_1_env")
    cli("services")
    cli("services", "--token-file", str(secret))
    assert [asked.headers["Authorization"] for asked in full.asked] == ["Bearer cpb_1_env", "Bearer cpb_1_file"]


@pytest.mark.parametrize(
    ("url", "exposed"),
    [
        ("http://127.0.0.1:1", False),
        ("http://127.9.9.9:1", False),
        ("http://[::1]:1", False),
        ("http://LOCALHOST:1", False),
        ("http://bridge.localhost:1", False),
        ("https://bridge.example.org", False),
        ("http://bridge.example.org", True),
        ("http://192.0.2.1:7400", True),
        ("http://[2001:db8::1]:7400", True),
        ("http://localhost.example.org", True),
    ],
)
def test_a_token_in_the_clear_beyond_this_machine_is_seen(url: str, exposed: bool) -> None:
    from bridge.cli.client import exposes_token

    assert exposes_token(url) is exposed


def test_a_token_in_the_clear_is_warned_of_once(full: ScriptedBridge, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.cli.client.exposes_token", lambda url: True)
    assert cli("get", "web").stderr == ""
    monkeypatch.setenv("ENVBRIDGE_TOKEN", "cpb_1_env")
    result = cli("get", "web")  # two requests
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"warning: the token goes to {full.url} unencrypted")
    assert "cpb_1_env" not in line
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("said", "hint"),
    [(b"", True), (b"\x15\x03\x03\x00\x02\x02\x46", True), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", False)],
)
def test_silence_on_plain_http_may_be_tls(cli: Cli, said: bytes, hint: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(said)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        result = cli("services", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join(10)
    assert result.exit_code == 1
    assert ("the URL must begin with https://" in result.stderr) is hint


def test_help_shows_no_type_behind_a_flag_and_names_as_they_are_given(cli: Cli) -> None:
    for command in ([], ["check"], ["get"], ["watch"]):
        shown = cli(*command, "--help").stdout
        assert "<bool>" not in shown
        assert "[[[" not in shown


def test_version_and_help(cli: Cli) -> None:
    from bridge import __version__

    assert cli("--version").stdout == f"envbridge {__version__}\n"
    assert cli("--help").exit_code == 0
    assert cli("get", "-h").exit_code == 0
