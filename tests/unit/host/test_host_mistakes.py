from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.errors import ConfigError, Mistake
from bridge.host.config import parse_config
from bridge.host.plugins import Registry

MistakesOf = Callable[..., dict[str, Mistake]]

TEN = """
environment: e/u
peers: {us: {url: https://bridge.example.org}}
sources:
  web:
    type: sample
    paths: [a]
    refrsh: 5s
    guard: {share: 30, for: 5m}
    networks: [10.0.0.0/33]
    renamed_from: legacy
    relabel:
      - {from: "{zne}", to: tag, value: x}
      - {from: "{name}", action: set, to: zone, value: \\2}
  legacy: {type: smaple}
serve: {http: {listen: "0.0.0.0:7400"}}
"""


def test_ten_mistakes_are_ten_messages_each_with_its_place_and_remedy(mistakes_of: MistakesOf) -> None:
    found = mistakes_of(TEN)
    assert set(found) == {
        "environment",
        "peers",
        "sources.web.refrsh",
        "sources.web.guard.share",
        "sources.web.networks",
        "sources.web.renamed_from",
        "sources.web.relabel[0].from",
        "sources.web.relabel[1].value",
        "sources.legacy.type",
        "serve.http.listen",
    }
    assert found["peers"][1:] == ("not available in this version", "Remove it.")
    assert "Did you mean `refresh`?" in found["sources.web.refrsh"].remedy
    assert "paths" in found["sources.web.refrsh"].remedy
    assert "Did you mean `sample`? Installed: sample." in found["sources.legacy.type"].remedy
    for way_out in ("127.0.0.1", "`tls` and `token_file`", "`insecure: true`"):
        assert way_out in found["serve.http.listen"].remedy


SOURCE = [  # keys of a source, path below it, part of the message, part of the remedy
    ("refresh: 5", "refresh", "a string with a unit, such as 500ms, 30s or 5m (here: `5`)", "How often to look"),
    ("refresh: 5.0", "refresh", "a string with a unit", ""),
    ("refresh: 0s", "refresh", "longer than 0s", ""),
    ("fresh_for: soon", "fresh_for", "a string with a unit", ""),
    ("hold: for ever", "hold", "or must be `forever`", "How long"),
    ("guard: 5", "guard", "must be a mapping", "key: value"),
    ("guard: of", "guard", "must be a mapping or `off`, not `of`", "Did you mean `off`?"),
    ("guard: OFF", "guard", "must be a mapping or `off`, not `OFF`", "Did you mean `off`?"),
    ("guard: {share: 0.3}", "guard.share", "percentage", ""),
    ("guard: {share: 101%}", "guard.share", "percentage", ""),
    ("guard: {floor: -1}", "guard.floor", "0 or more", "always go"),
    ("guard: {floor: many}", "guard.floor", "a whole number", ""),
    ("guard: {flor: 3}", "guard.flor", "no such key", "Did you mean `floor`? The keys here are: share, floor, for."),
    ("max_instances: 0", "max_instances", "1 or more", ""),
    ("tags: v1", "tags", "must be a list", "[a, b]"),
    ("tags: [1]", "tags[0]", "must be text", "quotes"),
    ("tags: [[a]]", "tags[0]", "must be text", "Tags added"),
    ("meta: {team: 1}", "meta.team", "must be text, not `1`", "quotes"),
    ("meta: {team: true}", "meta.team", "must be text, not `true`", "quotes"),
    ("meta: {shop.local: true}", 'meta["shop.local"]', "must be text", "quotes"),
    ("meta: {team: }", "meta.team", "must be text", ""),
    ("namespaces: {shop.local: a/b}", "namespaces", "the new name of `shop.local`", "plain name"),
    ("networks: [10.0.0.1/8, 'x']", "networks", "`10.0.0.1/8`, `x`: not a network", "10.0.0.0/8"),
    ("naming: {name: '{nam}'}", "naming.name", "`{nam}` is no field", "Did you mean `name`?"),
    ("naming: {name: '{zone}'}", "naming.name", "`{zone}` is no field", "{namespace} {name}"),
    ("naming: {name: '{name'}", "naming.name", "`{` stands alone", ""),
    ("naming: {namespace: ''}", "naming.namespace", "cannot be empty", ""),
    ("naming: {nmae: x}", "naming.nmae", "no such key", "Did you mean `name`?"),
    ("relabel: {from: x}", "relabel", "must be a list", ""),
    ("relabel: [{match: x, action: drop}]", "relabel[0].from", "is missing", "Template over"),
    ("relabel: [{from: '{meta.}', action: drop}]", "relabel[0].from", "`{meta.}` is no field", ""),
    ("relabel: [{from: '{meta.KEY}', action: drop, match: '('}]", "relabel[0].match", "no regular expression", "backslash"),
    ("relabel: [{from: x, action: drp}]", "relabel[0].action", "`set` or `keep` or `drop`", "Did you mean `drop`?"),
    ("relabel: [{from: x, to: zone}]", "relabel[0].value", "is missing", "both `to` and `value`"),
    ("relabel: [{from: x, value: y}]", "relabel[0].to", "is missing", "both `to` and `value`"),
    ("relabel: [{from: x, to: environment, value: y}]", "relabel[0].to", "`environment` cannot be set", "weight, tag"),
    ("relabel: [{from: x, to: meta., value: y}]", "relabel[0].to", "cannot be set", ""),
    ("relabel: [{from: x, to: weight, value: heavy}]", "relabel[0].value", "whole number", ""),
    ("relabel: [{from: x, match: '(a)', to: zone, value: \\2}]", "relabel[0].value", "invalid group reference", "1 groups"),
    ("relabel: [{from: x, action: keep, to: zone}]", "relabel[0].to", "no meaning for `keep`", "Remove it"),
    ("renamed_from: a/b", "renamed_from", "cannot contain `/`", ""),
    ("renamed_from: web", "renamed_from", "still configured", ""),
    ("ca_file: nowhere.pem", "ca_file", "cannot be read: No such file", ""),
    ("publish: pods", "publish", "`pod` or `node`, not `pods`", "Did you mean `pod`?"),
    ("publish: '${WHERE:-pods}'", "publish", "not `${WHERE:-pods}`", "pod"),
    ("Refresh: 5s", "Refresh", "no such key", "Did you mean `refresh`?"),
    ("networks: ['${NET}', 10.0.0.0/8]", "networks[0]", "the environment variable NET is not set", ""),
    ("namespaces: {a: '${NEW}'}", "namespaces.a", "the environment variable NEW is not set", ""),
    ("guard: {share: '${SHARE}'}", "guard.share", "the environment variable SHARE is not set", ""),
    (
        "relabel: [{from: x, match: '${M}', to: zone, value: \\1}]",
        "relabel[0].match",
        "the environment variable M is not set",
        "",
    ),
    ("rates: {discover: 0}", "rates.discover", "more than 0", "Requests per second"),
    ("rates: {dicsover: 1}", "rates.dicsover", "no such key", "Did you mean `discover`?"),
    ("limits: {a: {dicsover: 1}}", "limits.a.dicsover", "no such key", "Did you mean `discover`?"),
    ("token: {a: hunter2}", "token", "must be text", "Token of the API"),
    ("token: file:nowhere", "token", "there is no file", "Create it"),
    ("token: file:.", "token", "there is no file", ""),
    ("proxy: ${PROXY}", "proxy", "the environment variable PROXY is not set", "${PROXY:-default}"),
    ("naming: {name: '${NAME}'}", "naming.name", "the environment variable NAME is not set", ""),
    ("proxy: '${PROXY'", "proxy", "not followed by a variable's name", "$${"),
]


@pytest.mark.parametrize(("keys", "path", "message", "remedy"), SOURCE, ids=[row[0] for row in SOURCE])
def test_a_mistake_in_a_source_is_told_alone(keys: str, path: str, message: str, remedy: str, mistakes_of: MistakesOf) -> None:
    found = mistakes_of(f"environment: eu\nsources:\n  web:\n    type: sample\n    paths: [a]\n    {keys}\n")
    assert list(found) == [f"sources.web.{path}"]
    (mistake,) = found.values()
    assert message in mistake.message
    assert remedy in mistake.remedy
    assert "hunter2" not in str(mistake)
    assert "nput" not in str(mistake)


WHOLE = [  # keys beside `environment`, path, part of the message, part of the remedy
    (
        "sorces: {}",
        "sorces",
        "no such key",
        "Did you mean `sources`? The keys here are: environment, environment_uid, data_dir, sources, serve, log.",
    ),
    ("hub: {type: etcd}", "hub", "not available in this version", "Remove it."),
    ("exporters:", "exporters", "not available in this version", "Remove it."),
    ("serve: {dns: {listen: 127.0.0.1:7453}}", "serve.dns", "not available in this version", "Remove it."),
    ("sources: [a]", "sources", "must be a mapping", "NAME"),
    ("sources: {web: }", "sources.web.type", "is missing", "Installed: sample"),
    ("sources: {web: 5}", "sources.web", "must be a mapping", "type: TYPE"),
    ("sources: {web: {Type: sample, paths: [a]}}", "sources.web.Type", "no such key", "Did you mean `type`?"),
    ("sources: {web: {type: 5}}", "sources.web.type", "must be text, not `5`", "Installed: sample"),
    ("sources: {web: {type: '${TYPE}'}}", "sources.web.type", "the environment variable TYPE is not set", ""),
    ("serve: {http: {listen: '127.0.0.1:70000'}}", "serve.http.listen", "out of range: `127.0.0.1:70000`", "from 1 to 65535"),
    ("serve: {http: {listen: '127.0.0.1:-1'}}", "serve.http.listen", "must be HOST:PORT, not `127.0.0.1:-1`", "127.0.0.1:7400"),
    ("sources: {web: {type: [sample]}}", "sources.web.type", "must be text", "Installed: sample"),
    ("sources: {web: {type: sample}}", "sources.web.paths", "is missing", "What to read"),
    ("sources: {web: {type: sample, paths: []}}", "sources.web.paths", "needs 1 or more entries", ""),
    ("sources: {a/b: {type: sample, paths: [a]}}", 'sources["a/b"]', "cannot contain `/`", "Rename"),
    ('sources: {"a\\x1b": {type: sample, paths: [a]}}', 'sources["a\\x1b"]', "control characters", "Rename"),
    ("serve: {http: {listen: 7400}}", "serve.http.listen", "HOST:PORT", "127.0.0.1:7400"),
    ("serve: {http: {tls: {cert_file: bridge.yaml}}}", "serve.http.tls.key_file", "is missing", "private key"),
    ("serve: {http: {token_file: nowhere}}", "serve.http.token_file", "cannot be read", "Correct the path"),
    ("serve: {http: {insecure: maybe}}", "serve.http.insecure", "true or false", "trusted"),
    ("log: {level: warn}", "log.level", "`debug`", "Did you mean `warning`?"),
    ("log: [json]", "log", "must be a mapping", ""),
    ("environment_uid: ''", "environment_uid", "cannot be empty", ""),
    ("environment: us", "environment", "there twice, on lines 1 and 2", "Keep one"),
    ("data_dir: 5", "data_dir", "must be a path", "survive a restart"),
]


@pytest.mark.parametrize(("keys", "path", "message", "remedy"), WHOLE, ids=[row[0] for row in WHOLE])
def test_a_mistake_outside_sources_is_told_alone(
    keys: str, path: str, message: str, remedy: str, mistakes_of: MistakesOf, tmp_path: Path
) -> None:
    (tmp_path / "bridge.yaml").touch()
    found = mistakes_of(f"environment: eu\n{keys}\n")
    assert list(found) == [path]
    (mistake,) = found.values()
    assert message in mistake.message
    assert remedy in mistake.remedy


def test_a_misspelt_type_costs_no_other_mistake(mistakes_of: MistakesOf) -> None:
    found = mistakes_of("environment: eu\nsources: {web: {Type: sample, paths: [a], publish: pods}}")
    assert list(found) == ["sources.web.Type", "sources.web.publish"]


def test_of_a_list_only_the_entry_at_fault_is_told(mistakes_of: MistakesOf) -> None:
    found = mistakes_of("environment: eu\nsources: {web: {type: sample, paths: [[a]]}}")
    assert list(found) == ["sources.web.paths[0]"]


@pytest.mark.parametrize("value", ["hunter2", "12345678"])
@pytest.mark.parametrize("key", ["token: [X]", "tokn: X", "refresh: 'http://me:X@example.org'", "refresh: '${SECRET}'"])
def test_no_secret_is_ever_shown(key: str, value: str, mistakes_of: MistakesOf) -> None:
    text = f"environment: eu\nsources: {{web: {{type: sample, paths: [a], {key.replace('X', value)}}}}}"
    found = mistakes_of(text, {"SECRET": value})
    assert len(found) == 1
    assert value not in str(found)


def test_two_sources_cannot_take_over_the_same_one(mistakes_of: MistakesOf) -> None:
    found = mistakes_of("environment: eu\nsources: {a: &a {type: sample, paths: [x], renamed_from: old}, b: *a}")
    assert list(found) == ["sources.b.renamed_from"]


@pytest.mark.parametrize(
    ("keys", "allowed"),
    [
        ("", False),
        ("token_file: token", False),
        ("tls: {cert_file: token, key_file: token}", False),
        ("tls: {cert_file: token, key_file: token}, token_file: token", True),
        ("insecure: true", True),
        ("insecure: yes", True),
    ],
)
def test_beyond_loopback_needs_protection_or_consent(keys: str, allowed: bool, mistakes_of: MistakesOf, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    found = mistakes_of(f"environment: eu\nserve: {{http: {{listen: '[::]:7400', {keys}}}}}")
    assert list(found) == ([] if allowed else ["serve.http.listen"])


def test_protection_that_is_there_but_wrong_is_one_mistake(mistakes_of: MistakesOf, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    found = mistakes_of(
        "environment: eu\nserve: {http: {listen: '[::]:7400', tls: {cert_file: no, key_file: token}, token_file: token}}"
    )
    assert list(found) == ["serve.http.tls.cert_file"]


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe", "holds no text"), (b"x" * 70_000, "too long")]
)
def test_a_secret_file_that_holds_no_secret_is_a_mistake(
    content: bytes, message: str, mistakes_of: MistakesOf, tmp_path: Path
) -> None:
    (tmp_path / "token").write_bytes(content)
    found = mistakes_of("environment: eu\nsources: {web: {type: sample, paths: [a], token: file:token}}")
    assert message in found["sources.web.token"].message
    assert "xxx" not in str(found)


def test_a_plugin_that_fails_on_its_keys_costs_no_other_mistake(sample: type, tmp_path: Path) -> None:
    class Broken(sample):  # type: ignore[misc]  # a fixture
        def model_post_init(self, context: object) -> None:
            raise KeyError("hunter2")

    with pytest.raises(ConfigError) as caught:
        parse_config(
            "environment: ''\nsources: {web: {type: sample, paths: [a]}}", tmp_path, {}, registry=Registry.of({"sample": Broken})
        )
    assert [mistake.path for mistake in caught.value.mistakes] == ["sources.web", "environment"]
    assert "KeyError" in str(caught.value)
    assert "hunter2" not in str(caught.value)
