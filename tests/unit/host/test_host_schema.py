"""The schema, and the annotated example, which has every key that the schema has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from bridge.host.config import parse_config, schema
from bridge.host.plugins import Plugin, Registry

FILES = ("ca.pem", "cert.pem", "key.pem", "tls.crt", "tls.key", "tokens", "kubeconfig.yaml")


@pytest.fixture(scope="module")
def whole(first_party: Registry) -> dict[str, Any]:
    return schema(first_party)


@pytest.fixture(scope="module")
def example(repository: Path) -> str:
    return (repository / "config" / "bridge.yaml").read_text()


@pytest.fixture(scope="module")
def uncommented(example: str) -> str:
    """The example with every key that is commented out put in."""
    return re.sub(r"(?m)^( *)#(?=[a-z])", r"\1", example)


def definitions(whole: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "", whole
    yield from whole["$defs"].items()


def described(field: dict[str, Any], whole: dict[str, Any]) -> bool:
    target = field.get("$ref", "").rpartition("/")[2]
    return bool(field.get("description") or (target and whole["$defs"][target].get("description")))


def test_the_schema_in_the_repository_is_the_generated_one(whole: dict[str, Any], repository: Path) -> None:
    assert json.loads((repository / "config" / "schema.json").read_text()) == whole, "run: envbridge schema > config/schema.json"


def test_the_schema_is_one(whole: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(whole)


def test_every_key_is_described(whole: dict[str, Any]) -> None:
    bare = [
        f"{name}.{key}"
        for name, one in definitions(whole)
        for key, field in one["properties"].items()
        if not described(field, whole)
    ]
    assert bare == []


def test_durations_are_patterns_of_text(whole: dict[str, Any]) -> None:
    for key in ("fresh_for", "hold", "refresh"):
        field = whole["$defs"]["FileConfig"]["properties"][key]
        patterns = [one["pattern"] for one in (field, *field.get("anyOf", ())) if "pattern" in one]
        assert patterns == [r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"]


def test_defaults_are_as_one_would_write_them(whole: dict[str, Any]) -> None:
    for name, one in definitions(whole):
        for key, field in one["properties"].items():
            if "default" in field:
                errors = list(Draft202012Validator({**field, "$defs": whole["$defs"]}).iter_errors(field["default"]))
                assert not errors, f"{name}.{key}"


def test_sources_are_told_apart_by_type(whole: dict[str, Any]) -> None:
    alternatives = whole["properties"]["sources"]["additionalProperties"]
    assert set(alternatives["discriminator"]["mapping"]) == {"file", "kubernetes", "docker_swarm", "cloud_map"}
    assert len(alternatives["oneOf"]) == 4


def test_a_plugin_that_cannot_be_loaded_is_left_out(registry: Registry) -> None:
    broken = Plugin("source", "broken", "acme-bridge", "1", "no_such_module:Any")
    alternatives = schema(Registry((broken,), registry.classes))["properties"]["sources"]["additionalProperties"]
    assert set(alternatives["discriminator"]["mapping"]) == {"sample"}
    assert schema(Registry((broken,)))["properties"]["sources"]["additionalProperties"] is False


def test_the_example_loads(example: str, first_party: Registry, tmp_path: Path) -> None:
    config = parse_config(example, tmp_path, {}, registry=first_party)
    assert config.environment == "prod-eu"
    assert {source.type for source in config.sources.values()} == {"file", "kubernetes", "docker_swarm", "cloud_map"}


def test_the_example_loads_with_every_key_that_is_commented_out(uncommented: str, first_party: Registry, tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).touch()
    assert parse_config(uncommented, tmp_path, {}, registry=first_party).environment == "prod-eu"


def test_the_example_fits_the_schema(example: str, uncommented: str, whole: dict[str, Any]) -> None:
    for text in (example, uncommented):
        errors = [
            f"{list(error.path)}: {error.message}" for error in Draft202012Validator(whole).iter_errors(yaml.safe_load(text))
        ]
        assert errors == []


def test_the_example_has_every_key(uncommented: str, whole: dict[str, Any]) -> None:
    document = yaml.safe_load(uncommented)
    keys = {
        "BridgeConfig": set(document),
        "ServeConfig": set(document["serve"]),
        "HttpConfig": set(document["serve"]["http"]),
        "TlsConfig": set(document["serve"]["http"]["tls"]),
        "LogConfig": set(document["log"]),
    }
    assert keys.pop("BridgeConfig") == set(whole["properties"])
    for name, present in keys.items():
        assert present == set(whole["$defs"][name]["properties"])
    common = set(document["sources"]["on-paper"])
    mapping = whole["properties"]["sources"]["additionalProperties"]["discriminator"]["mapping"]
    for source in document["sources"].values():
        known = set(whole["$defs"][mapping[source["type"]].rpartition("/")[2]]["properties"])
        assert known <= set(source) | common - {"paths"} if source["type"] != "file" else known == common
