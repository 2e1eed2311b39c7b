"""From configuration to the SDK's client: credentials, proxy, authorities; and what a bad kubeconfig may say."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from bridge.aio import SystemClock
from bridge.contracts import PluginContext
from bridge.errors import TransientError
from bridge_plugins.sources.kubernetes.config import KubernetesConfig

CONTEXT = PluginContext("test", "cluster", logging.getLogger("test"), SystemClock(), lambda event, amount=1: None)
KUBECONFIG: dict[str, Any] = {
    "current-context": "one",
    "clusters": [
        {"name": "one", "cluster": {"server": "https://one.example.org"}},
        {"name": "two", "cluster": {"server": "https://two.example.org", "proxy-url": "http://old-proxy.example.org:3128"}},
    ],
    "users": [{"name": "u", "user": {"token": "s3cret"}}],
    "contexts": [
        {"name": "one", "context": {"cluster": "one", "user": "u"}},
        {"name": "two", "context": {"cluster": "two", "user": "u"}},
    ],
}


def configured(**keys: Any) -> KubernetesConfig:
    return KubernetesConfig.model_validate({"type": "kubernetes", **keys})


def loaded(folder: Path, **keys: Any) -> Any:
    path = folder / "kubeconfig"
    path.write_text(json.dumps(KUBECONFIG))
    return configured(kubeconfig=str(path), **keys)._load_client().configuration


def test_the_defaults_are_the_documented_ones() -> None:
    config = configured()
    assert (config.publish, config.nodes, config.request_timeout, config.silence) == ("pod", False, 30.0, 90.0)
    assert config.namespaces_watched == ()


@pytest.mark.parametrize(
    "keys",
    [
        {"silence": "0s"},
        {"request_timeout": "0s"},
        {"publish": "nodeport"},
        {"namespaces_watched": ["Shop"]},
        {"namespaces_watched": ["a/b"]},
        {"namespaces": ["shop"]},
        {"unheard": 1},
    ],
)
def test_mistakes_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        configured(**keys)


def test_the_silence_is_a_key_of_its_own() -> None:
    assert configured(silence="5s").silence == 5.0


def test_a_context_chooses_the_cluster(tmp_path: Path) -> None:
    assert loaded(tmp_path).host == "https://one.example.org"
    assert loaded(tmp_path, context="two").host == "https://two.example.org"


def test_the_common_keys_win_over_the_kubeconfig(tmp_path: Path) -> None:
    authorities = tmp_path / "ca.pem"
    authorities.write_text("")
    settings = loaded(tmp_path, context="two", proxy="http://me:pw@proxy.example.org:3128", ca_file=str(authorities))
    assert settings.proxy == "http://me:pw@proxy.example.org:3128"
    assert settings.proxy_headers == {"proxy-authorization": "Basic bWU6cHc="}
    assert settings.ssl_ca_cert == str(authorities)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        "a: 1",
        "token: [s3cret",
        yaml.safe_dump({**KUBECONFIG, "current-context": "none"}),
        yaml.safe_dump({**KUBECONFIG, "users": [{"name": "u", "token": "s3cret"}]}),
        yaml.safe_dump({**KUBECONFIG, "clusters": [{"name": "one"}]}),
        yaml.safe_dump({**KUBECONFIG, "contexts": "s3cret"}),
    ],
)
async def test_a_bad_kubeconfig_is_a_failure_that_tells_no_secret(text: str, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(TransientError) as failure:
        async with configured(kubeconfig=str(path)).open(CONTEXT):
            pass
    assert "s3cret" not in str(failure.value)
    assert "cannot be loaded" in str(failure.value)


async def test_a_missing_kubeconfig_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(TransientError):
        async with configured(kubeconfig=str(tmp_path / "none")).open(CONTEXT):
            pass


async def test_scopes_are_the_namespaces_or_all(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(KUBECONFIG))
    async with configured(kubeconfig=str(path)).open(CONTEXT) as source:
        assert source.scopes == ("",)
    async with configured(kubeconfig=str(path), namespaces_watched=["b", "a", "b"]).open(CONTEXT) as source:
        assert source.scopes == ("b", "a")
