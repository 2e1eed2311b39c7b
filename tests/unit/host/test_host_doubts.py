"""What only `envbridge check` takes for a mistake, or for worth knowing; a daemon starts with all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel

from bridge.contracts import AnySource, ConfigPath, PluginContext, SourceConfig
from bridge.errors import ConfigError, Mistake
from bridge.host.config import parse_config
from bridge.host.doubts import notes
from bridge.host.plugins import Registry


class Files(BaseModel, extra="forbid"):
    key_file: ConfigPath | None = None


class PollConfig(SourceConfig):
    type: Literal["poll"]
    refresh: float | None = 5.0
    kubeconfig: ConfigPath | None = None
    tls: Files | None = None
    more: dict[str, ConfigPath] = {}
    publish: Literal["pod", "node"] = "pod"
    silence = None

    def open(self, ctx: PluginContext) -> AnySource:
        raise NotImplementedError


class WatchConfig(PollConfig):
    type: Literal["watch"]
    silence = 90.0


class PaperConfig(PollConfig):
    type: Literal["paper"]
    guard_only_when_emptied = True


REGISTRY = Registry.of({"poll": PollConfig, "watch": WatchConfig, "paper": PaperConfig})


def check(keys: str, folder: Path, *, thorough: bool = True, type: str = "poll") -> dict[str, Mistake]:
    text = f"environment: eu\nsources: {{web: {{type: {type}, {keys}}}}}\n"
    try:
        parse_config(text, folder, {}, registry=REGISTRY, thorough=thorough)
    except ConfigError as error:
        return {mistake.path: mistake for mistake in error.mistakes}
    return {}


DOUBTS = [  # keys, the place below the source, the value, part of the remedy
    ("fresh_for: 2s", "fresh_for", "`2s`", "15s"),
    ("kubeconfig: nowhere", "kubeconfig", "nowhere", "Correct the path"),
    ("tls: {key_file: nowhere}", "tls.key_file", "nowhere", "Correct the path"),
    ("more: {a: nowhere}", "more.a", "nowhere", "Correct the path"),
]


@pytest.mark.parametrize(("keys", "path", "value", "remedy"), DOUBTS, ids=[row[0] for row in DOUBTS])
def test_check_names_place_value_and_remedy_and_a_daemon_starts(
    keys: str, path: str, value: str, remedy: str, tmp_path: Path
) -> None:
    (mistake,) = check(keys, tmp_path).values()
    assert mistake.path == f"sources.web.{path}"
    assert value in mistake.message
    assert remedy in mistake.remedy
    assert check(keys, tmp_path, thorough=False) == {}


def test_what_is_doubtful_is_told_beside_what_is_wrong(tmp_path: Path) -> None:
    assert set(check("kubeconfig: nowhere, publish: pods, fresh_for: 1s", tmp_path)) == {
        "sources.web.kubeconfig",
        "sources.web.publish",
        "sources.web.fresh_for",
    }


@pytest.mark.parametrize("keys", ["fresh_for: 5s", "fresh_for: 1h", "kubeconfig: there", "kubeconfig: .", "tls: {}"])
def test_what_makes_sense_is_no_mistake(keys: str, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert check(keys, tmp_path) == {}


def test_a_watch_is_confirmed_between_its_relists(tmp_path: Path) -> None:
    assert check("fresh_for: 2s", tmp_path, type="watch") == {}


@pytest.mark.parametrize(("refresh", "told"), [("0.001s", True), ("49ms", True), ("50ms", False), ("5s", False)])
def test_a_refresh_shorter_than_any_poll_is_told(refresh: str, told: bool, tmp_path: Path, sample: type) -> None:
    text = f"environment: eu\nsources: {{web: {{type: sample, paths: [a], refresh: {refresh}}}}}"
    try:
        parse_config(text, tmp_path, {}, registry=Registry.of({"sample": sample}), thorough=True)
        mistakes: tuple[Mistake, ...] = ()
    except ConfigError as error:
        mistakes = error.mistakes
    assert [mistake.path for mistake in mistakes] == (["sources.web.refresh"] if told else [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["sources: there is none"]),
        ("sources: {web: {type: poll}}", []),
        ("sources: {web: {type: poll, guard: {share: 10%, floor: 1}}}", []),
        ("sources: {web: {type: paper, guard: {share: 10%}}}", ["sources.web.guard: `share` has no effect on type paper"]),
        (
            "sources: {web: {type: paper, guard: {share: 10%, floor: 1, for: 1m}}}",
            ["sources.web.guard: `floor` and `share` have no effect"],
        ),
        ("sources: {web: {type: paper, guard: {for: 1m}}, more: {type: paper, guard: off}, last: {type: paper}}", []),
        ("sources: {web: {type: poll}}\nserve: {http: {token_file: tokens}}", ["serve.http.token_file: readers on this machine"]),
        (
            "sources: {web: {type: poll}}\n"
            "serve: {http: {listen: '[::]:1', token_file: tokens, tls: {cert_file: tokens, key_file: tokens}}}",
            [],
        ),
    ],
)
def test_notes(text: str, told: list[str], tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("cpb_1")
    found = notes(parse_config(f"environment: eu\n{text}\n", tmp_path, {}, registry=REGISTRY, thorough=True))
    assert len(found) == len(told)
    assert all(note.startswith(start) for note, start in zip(found, told, strict=True))


TLS = "listen: '0.0.0.0:1', tls: {cert_file: tokens, key_file: tokens}"


@pytest.mark.parametrize(
    ("content", "keys", "told"),
    [
        (b"cpb_1\n", TLS, ""),
        (b"# ours\ncpb_1", TLS, ""),
        (b"", TLS, "holds no token, so no other machine may read"),
        (b"\n# only this\n  \n", TLS, "holds no token, so no other machine may read"),
        (b"", "listen: '127.0.0.1:1'", "holds no token"),
        (b"", "listen: '0.0.0.0:1', insecure: true", "holds no token, so everybody may read"),
        (b"\xff", TLS, "is not UTF-8"),
    ],
)
def test_a_token_file_without_a_token_is_a_mistake(content: bytes, keys: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_bytes(content)
    text = f"environment: eu\nserve: {{http: {{token_file: tokens, {keys}}}}}\n"
    parse_config(text, tmp_path, {}, registry=REGISTRY)  # a daemon starts
    found: tuple[Mistake, ...] = ()
    try:
        parse_config(text, tmp_path, {}, registry=REGISTRY, thorough=True)
    except ConfigError as error:
        found = error.mistakes
    assert len(found) == bool(told)
    for mistake in found:
        assert mistake.path == "serve.http.token_file"
        assert told in mistake.message
        assert ("remove `token_file`" in mistake.remedy) is (b"\xff" not in content and keys != TLS)


def test_no_token_file_is_no_mistake(tmp_path: Path) -> None:
    assert parse_config("environment: eu\n", tmp_path, {}, registry=REGISTRY, thorough=True).serve.http.token_file is None
