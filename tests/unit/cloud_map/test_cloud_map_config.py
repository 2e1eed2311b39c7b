"""The keys of a `cloud_map` source."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from bridge_plugins.sources.cloud_map.config import CloudMapConfig

EXAMPLE = Path(__file__).parents[3] / "config" / "examples" / "cloud_map.yaml"


def test_the_defaults_are_those_of_the_contract() -> None:
    config = CloudMapConfig.model_validate({"type": "cloud_map"})
    assert (config.refresh, config.health_refresh, config.sweep) == (5.0, 15.0, 300.0)
    assert (config.rate.discover, config.rate.revision) == (100, 500)
    assert (config.namespaces_watched, config.silence) == ((), None)


@pytest.mark.parametrize(
    "keys",
    [
        {"refresh": 5},
        {"health_refresh": "0s"},
        {"rate": {"discover": 0}},
        {"rate": {"burst": 5}},
        {"endpoint_url": "cloudmap.example.org"},
        {"namespaces_watched": [""]},
        {"regions": ["eu-west-1"]},
    ],
)
def test_mistakes_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CloudMapConfig.model_validate({"type": "cloud_map", **keys})


def test_the_example_is_valid() -> None:
    document = yaml.safe_load(EXAMPLE.read_text())
    assert [CloudMapConfig.model_validate(source) for source in document["sources"].values()]


def test_validating_a_configuration_needs_no_sdk() -> None:
    code = "import sys; import bridge_plugins.sources.cloud_map.config; sys.exit('botocore' in sys.modules)"
    assert run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False).returncode == 0
