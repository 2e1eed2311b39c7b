"""watch: lines for changes, through losses of the connection, until it is interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripted_bridge import ScriptedBridge, event, events, instance, problem, service

from bridge.cli.output import Format
from bridge.cli.watch import render
from bridge.client.view import Difference

Cli = Callable[..., Any]
ROOT = Path(__file__).parents[3]
NOW = datetime(2030, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
KEY = "eu/main/shop/web/1"
END = problem(401, "Unauthorized", "the script ends here")


def snapshot(*instances: dict[str, Any], id: str = "c1") -> bytes:
    return event("snapshot", {"instances": list(instances), "complete": True}, id)


def lines(result: Any) -> list[str]:
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in result.stdout.splitlines()), result.stdout
    return [line[9:] for line in result.stdout.splitlines()]


def updated(**changes: Any) -> Difference:
    return Difference("updated", KEY, instance(), instance(**changes))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"health": "unready"}, "health ready -> unready"),
        ({"lifecycle": "draining", "weight": 0}, "lifecycle active -> draining, weight 1 -> 0"),
        ({"meta": {"team": "search", "new": "1"}}, "meta.team checkout -> search, meta.new - -> 1"),
        ({"meta": {}}, "meta.team checkout -> -"),
        ({"addresses": ["10.0.0.2", "fd00::2"]}, "addresses 10.0.0.1 -> 10.0.0.2,fd00::2"),
        ({"ports": []}, "ports http:8080/TCP (http) -> -"),
        ({"zone": None}, "zone eu-west-1a -> -"),
    ],
)
def test_an_update_tells_what_changed(changes: dict[str, Any], told: str) -> None:
    assert render(updated(**changes), Format.table, NOW).endswith(f" ~ shop/web {KEY} {told}\n")


def test_what_came_tells_where_it_is_and_wide_tells_all() -> None:
    came = Difference("added", KEY, None, instance())
    assert render(came, Format.table, NOW).endswith(f" + shop/web {KEY} 10.0.0.1 http:8080/TCP (http) ready\n")
    assert "node n1, tags v2, meta.team checkout" in render(came, Format.wide, NOW)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lifecycle": "draining"}, "ready draining"),
        ({"health": "unready", "state": "down"}, "unready down"),
        ({"lifecycle": "draining", "state": "expired"}, "ready draining expired"),
    ],
)
@pytest.mark.parametrize("change", ["added", "removed"])
def test_what_came_or_went_tells_what_keeps_it_out(changes: dict[str, Any], told: str, change: Any) -> None:
    one = instance(**changes)
    difference = Difference(change, KEY, one if change == "removed" else None, one if change == "added" else None)
    assert render(difference, Format.table, NOW).endswith(f" {told}\n")


def test_yaml_repeats_what_is_there_twice() -> None:
    text = render(updated(ports=[{"name": "a", "port": 1, "protocol": "TCP"}]), Format.yaml, NOW)
    assert "*id" not in text
    assert "&id" not in text


def test_programs_get_one_document_for_each_change() -> None:
    line = render(updated(health="unready"), Format.json, NOW)
    assert line.count("\n") == 1
    document = json.loads(line)
    assert document == {
        "time": "2030-01-02T03:04:05.678Z",
        "change": "updated",
        "changed": {"health": ["ready", "unready"]},
        "instance": instance(health="unready"),
    }
    assert list(yaml.safe_load_all(render(updated(health="unready"), Format.yaml, NOW) * 2)) == [document] * 2


@pytest.mark.parametrize("output", list(Format))
def test_a_line_stays_a_harmless_line(output: Format) -> None:
    evil = "\x1b]0;x\x07\r\n\u202e\x9b" + "y" * 100_000
    difference = Difference("updated", f"eu/{evil}", instance(), instance(service=evil, zone=evil, meta={evil[:9]: evil}))
    shown = render(difference, output, NOW)
    assert not set(shown) & set("\x1b\x07\r\u202e\x9b")
    assert output is Format.yaml or shown.count("\n") == 1


def test_only_changes_after_the_first_snapshot_are_printed(bridge: ScriptedBridge, cli: Cli, impatient: None) -> None:
    change = event("change", {"updated": [instance(health="unready")], "added": [instance("shop/api/1")]}, "c2")
    bridge.on("/v1/instances", events(snapshot(instance()), change), END)
    result = cli("watch")
    assert lines(result) == [
        "+ shop/api eu/main/shop/api/1 10.0.0.1 http:8080/TCP (http) ready",
        f"~ shop/web {KEY} health ready -> unready",
    ]
    assert bridge.asked[0].query == {"health": "any", "lifecycle": "any", "state": "any"}
    assert result.exit_code == 1
    assert "the script ends here" in result.stderr


def test_the_first_snapshot_is_printed_when_asked(bridge: ScriptedBridge, cli: Cli, impatient: None) -> None:
    bridge.on("/v1/instances", events(snapshot(instance(), instance("shop/api/1"))), END)
    assert [line.split()[:2] for line in lines(cli("watch", "--snapshot"))] == [["+", "shop/web"], ["+", "shop/api"]]


def test_a_lost_connection_costs_no_change_and_repeats_none(bridge: ScriptedBridge, cli: Cli, impatient: None) -> None:
    bridge.on(
        "/v1/services/shop/web",
        events(snapshot(instance(), instance("shop/web/2"))),
        events(event("reset", {}), snapshot(instance(weight=2), id="c8")),
        events(event("change", {"removed": [KEY]}, "c9")),
        END,
    )
    result = cli("watch", "shop/web")
    assert lines(result) == [
        "- shop/web eu/main/shop/web/2 10.0.0.1 http:8080/TCP (http) ready",
        f"~ shop/web {KEY} weight 1 -> 2",
        f"- shop/web {KEY} 10.0.0.1 http:8080/TCP (http) ready",
    ]
    assert [asked.headers.get("Last-Event-ID") for asked in bridge.asked] == [None, "c1", "c8", "c9"]
    assert result.stderr.count("the bridge ended the stream; trying again in") == 3
    assert result.stderr.count("following again") == 2


def test_what_becomes_stale_is_told_once(bridge: ScriptedBridge, cli: Cli, impatient: None) -> None:
    marks = [event("bookmark", {"age_ms": 1, "stale": stale}) for stale in ([], ["eu"], ["eu"], [])]
    bridge.on("/v1/instances", events(snapshot(), *marks), END)
    result = cli("watch")
    assert result.stderr.count("stale now: eu") == 1
    assert result.stderr.count("nothing is stale any more") == 1
    assert result.stdout == ""


def test_a_name_without_namespace_is_looked_for(bridge: ScriptedBridge, cli: Cli, impatient: None) -> None:
    bridge.on("/v1/services", {"services": [service()]})
    bridge.on("/v1/services/shop/web", events(snapshot()), END)
    cli("watch", "web")
    assert bridge.asked[1].path == "/v1/services/shop/web"


def test_a_name_nobody_has_ends_with_1(bridge: ScriptedBridge, cli: Cli) -> None:
    bridge.on("/v1/services", {"services": [service()]})
    result = cli("watch", "shop/wbe")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no service `shop/wbe`. Did you mean `shop/web`?" in result.stderr


# ------------------------------------------------------------- the process


@pytest.fixture
def live(bridge: ScriptedBridge) -> Iterator[ScriptedBridge]:
    """A bridge whose stream of all instances has one change and then stays open."""
    stop = threading.Event()
    change = event("change", {"added": [instance("shop/web/2")]}, "c2")
    bridge.on("/v1/instances", events(snapshot(instance()), change, then=lambda: stop.wait(30)))
    yield bridge
    stop.set()


def start(*arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", "from bridge.cli import main; main()", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_each_line_is_there_at_once_and_an_interrupt_ends_with_0(live: ScriptedBridge) -> None:
    with start("watch", "-o", "json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["instance"]["id"] == "shop/web/2"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_reader_that_has_seen_enough_ends_it_in_silence(live: ScriptedBridge) -> None:
    with start("watch", "--snapshot") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(timeout=10) == 0
