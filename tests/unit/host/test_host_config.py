from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from bridge.contracts import Guard
from bridge.errors import ConfigError
from bridge.host.config import Address, BridgeConfig, load_config, parse_address, parse_config
from bridge.host.plugins import Registry
from bridge.text import UNSAFE

SMALLEST = "environment: eu\n"


def parse(text: str, base: Path, registry: Registry, **env: str) -> BridgeConfig:
    return parse_config(text, base, env, registry=registry)


def test_the_smallest_configuration_has_the_defaults(tmp_path: Path, registry: Registry) -> None:
    config = parse(SMALLEST, tmp_path, registry)
    assert config.environment == "eu"
    assert config.environment_uid is None
    assert config.data_dir == tmp_path / "data"
    assert config.sources == {}
    assert config.serve.http.listen == Address("127.0.0.1", 7400)
    assert (config.log.format, config.log.level) == ("auto", "info")


def test_sources_are_of_their_plugins_classes_and_paths_start_at_the_folder(
    tmp_path: Path, registry: Registry, sample: type
) -> None:
    text = "environment: eu\nsources: {web: {type: sample, paths: [a/*.yaml, /b], refresh: 1m30s, hold: 2h}}"
    sources = parse(text, tmp_path, registry).sources
    assert [type(source) for source in sources.values()] == [sample]
    source: Any = sources["web"]
    assert source.paths == (f"{tmp_path}/a/*.yaml", "/b")
    assert (source.refresh, source.hold) == (90.0, 7200.0)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("guard: off", None),
        ("guard: false", None),
        ("guard: 'off'", None),
        ("guard:", Guard()),
        ("guard: null", Guard()),
        ("guard: {share: 50%, for: 1m}", Guard(share=0.5, for_=60.0)),
        ("guard: {share: }", Guard()),
    ],
)
def test_a_guard_without_a_value_is_never_off(setting: str, expected: Guard | None, tmp_path: Path, registry: Registry) -> None:
    text = f"environment: eu\nsources:\n  web:\n    type: sample\n    paths: [a]\n    {setting}\n"
    assert parse(text, tmp_path, registry).sources["web"].guard == expected


def test_versions_stay_as_written_and_words_are_no_booleans(tmp_path: Path, registry: Registry) -> None:
    text = "environment: no\nsources: {on: {type: sample, paths: [a], meta: {version: 1.10, since: 2024-01-01, no: yes}}}"
    config = parse(text, tmp_path, registry)
    assert config.environment == "no"
    assert config.sources["on"].meta == {"version": "1.10", "since": "2024-01-01", "no": "yes"}


def test_numbers_with_a_fraction_are_numbers_where_one_is_wanted(tmp_path: Path, registry: Registry) -> None:
    text = "environment: eu\nsources: {web: {type: sample, paths: [a], rates: {discover: 2.5}}}"
    source: Any = parse(text, tmp_path, registry).sources["web"]
    assert source.rates.discover == 2.5


@pytest.mark.parametrize("separator", ["", "\n", " \n"])
def test_a_secret_comes_from_a_file_beside_the_configuration(separator: str, tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "token").write_text(f"hunter2{separator}")
    text = "environment: eu\nsources: {web: {type: sample, paths: [a], token: 'file:${WHERE}'}}"
    config = parse(text, tmp_path, registry, WHERE="token")
    source: Any = config.sources["web"]
    assert isinstance(source.token, SecretStr)
    assert source.token.get_secret_value() == "hunter2"
    assert "hunter2" not in f"{config!r} {config} {config.model_dump_json()} {source!r}"


def test_a_secret_may_stand_in_the_environment(tmp_path: Path, registry: Registry) -> None:
    text = "environment: eu\nsources: {web: {type: sample, paths: [a], token: '${TOKEN}'}}"
    source: Any = parse(text, tmp_path, registry, TOKEN="${no reference}").sources["web"]
    assert source.token.get_secret_value() == "${no reference}"


def test_load_config_anchors_at_the_files_folder_and_reads_the_environment(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "bridge.yaml").write_text("\ufeffenvironment: ${BRIDGE_TEST_ENVIRONMENT}\n", encoding="utf-8")
    monkeypatch.setenv("BRIDGE_TEST_ENVIRONMENT", "eu")
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("etc/bridge.yaml"), registry=registry)
    assert config.environment == "eu"
    assert config.data_dir == tmp_path / "etc" / "data"


@pytest.mark.parametrize(("content", "message"), [(None, "cannot be read"), (b"a: 1\nb: \xff\n", "line 2 is not UTF-8")])
def test_a_file_that_cannot_be_read_is_one_mistake(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bridge.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    (mistake,) = caught.value.mistakes
    assert mistake.path == str(path)
    assert message in mistake.message


@pytest.mark.parametrize(
    ("text", "expected", "loopback"),
    [
        ("127.0.0.1:7400", ("127.0.0.1", 7400), True),
        ("127.9.9.9:1", ("127.9.9.9", 1), True),
        ("[::1]:0", ("::1", 0), True),
        ("localhost:65535", ("localhost", 65535), True),
        ("0.0.0.0:80", ("0.0.0.0", 80), False),
        ("[::]:80", ("::", 80), False),
        ("bridge.example.org:80", ("bridge.example.org", 80), False),
        ("localhost.example.org:80", ("localhost.example.org", 80), False),
    ],
)
def test_an_address_is_read_and_shown(text: str, expected: tuple[str, int], loopback: bool) -> None:
    address = parse_address(text)
    assert address == expected
    assert str(address) == text
    assert address.is_loopback is loopback


@pytest.mark.parametrize(
    "text",
    ["", "7400", ":7400", "*:7400", "::1:7400", "1.2.3:80", "1.2.3.400:80", "[a]:1", "a:b", "http://a:1", 7400, None],
)
def test_what_is_no_address_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_address(text)


KEYS = st.sampled_from(
    [
        "environment",
        "data_dir",
        "sources",
        "serve",
        "http",
        "listen",
        "tls",
        "token_file",
        "insecure",
        "log",
        "format",
        "level",
        "web",
        "type",
        "paths",
        "guard",
        "share",
        "for",
        "refresh",
        "relabel",
        "from",
        "match",
        "action",
        "to",
        "value",
        "naming",
        "name",
        "namespaces",
        "networks",
        "meta",
        "token",
        "hold",
        "renamed_from",
        "limits",
        "<<",
        "peers",
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [
            "sample",
            "5s",
            "30%",
            "off",
            "set",
            "file:",
            "file:\0",
            "${A}",
            "${",
            "10.0.0.0/8",
            "{name}",
            "(",
            "\\9",
            "tag",
            "[::]:1",
        ]
    ),
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=5)
)
SOURCE = st.dictionaries(KEYS, TREES, max_size=8).map(lambda keys: {"type": "sample", "paths": ["a"], **keys})


def only_config_error(text: str, base: Path, registry: Registry) -> None:
    try:
        parse_config(text, base, {}, registry=registry)
        return
    except ConfigError as error:
        mistakes = error.mistakes
    assert mistakes
    assert not any(UNSAFE.search(str(mistake)) for mistake in mistakes)


@given(
    tree=st.fixed_dictionaries(
        {"environment": SCALARS, "sources": st.dictionaries(KEYS, SOURCE, max_size=2), "serve": TREES, "log": TREES}
    )
)
def test_any_tree_gives_a_configuration_or_mistakes(tree: object, registry: Registry) -> None:
    only_config_error(yaml.safe_dump(tree, allow_unicode=True), Path("/nowhere"), registry)


@given(text=st.text(max_size=60) | st.text(alphabet=string.punctuation + "\n\tab0 ", max_size=60))
def test_any_text_gives_a_configuration_or_mistakes(text: str, registry: Registry) -> None:
    only_config_error(text, Path("/nowhere"), registry)
