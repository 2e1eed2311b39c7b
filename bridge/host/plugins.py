"""The registry of plugins: what is installed, told from entry points alone; only what is configured is ever imported."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import cast, get_args
from urllib.parse import unquote, urlsplit

from bridge.contracts import SourceConfig
from bridge.errors import ConfigError, Mistake
from bridge.host.mistakes import near_match

GROUPS = {"source": "bridge.sources", "exporter": "bridge.exporters", "hub": "bridge.hubs"}
"""Kind of plugin -> the entry point group that names them (https://packaging.python.org/specifications/entry-points/)."""

_SourceClass = type[SourceConfig]

OUR_DISTRIBUTION = "envbridge"

_EXTRAS = {("source", "kubernetes"): "kubernetes", ("source", "docker_swarm"): "docker", ("source", "cloud_map"): "aws"}
"""The extra of our own distribution that brings what a first-party plugin needs."""

_REQUIREMENT = re.compile(r"""\s*([A-Za-z0-9._-]+).*;.*\bextra\s*==\s*["']([A-Za-z0-9._-]+)["']""")


@dataclass(frozen=True, slots=True, order=True)
class Plugin:
    """One installed plugin: ``kind`` and ``type`` name it, ``target`` is ``module:Class``; nothing of it is imported."""

    kind: str
    type: str
    distribution: str
    version: str
    target: str

    @property
    def module(self) -> str:
        """The module that has its configuration class."""
        return self.target.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Registry:
    """The plugins one may name in a configuration.

    classes: configuration classes by (kind, type) that need no entry point; they come before the installed ones.
    """

    plugins: tuple[Plugin, ...] = ()
    classes: Mapping[tuple[str, str], type[SourceConfig]] = field(default_factory=dict)

    @classmethod
    def of(cls, sources: Mapping[str, type[SourceConfig]]) -> Registry:
        """A registry of just these source types."""
        return cls(classes={("source", name): config for name, config in sources.items()})

    def types(self, kind: str) -> list[str]:
        """The names of all plugins of a kind, sorted."""
        known = {plugin.type for plugin in self.plugins if plugin.kind == kind}
        return sorted(known | {name for known_kind, name in self.classes if known_kind == kind})

    def load(self, kind: str, type: str, *, path: str = "") -> type[SourceConfig]:
        """Import one plugin's configuration class; no other plugin is touched.

        path: where the configuration names it, for the mistake.
        Raises ConfigError with one mistake: not installed, claimed by several distributions, a library missing that the
        class itself imports, or not what the contract asks for. Keys can be checked without the plugin's own library: what
        is still missing to open it, `missing_extra` tells.
        """
        path = path or f"{kind} {type}"
        if (kind, type) in self.classes:
            config: object = self.classes[kind, type]
            origin = config.__module__
        else:
            plugin = self._find(kind, type, path)
            config = _import(plugin, path)
            origin = plugin.distribution
        if problem := _contract_problem(config, type):
            remedy = f"Report it to the authors of {origin}, or remove it."
            raise _mistake(path, f"the plugin `{type}` of {origin} is broken: {problem}", remedy)
        return cast("_SourceClass", config)

    def missing_extra(self, kind: str, type: str, *, path: str = "") -> Mistake | None:
        """What our own distribution's extra would bring and is not installed, with the command; None where nothing is missing."""
        extra = _EXTRAS.get((kind, type))
        mine = [one for one in self.plugins if (one.kind, one.type, one.distribution) == (kind, type, OUR_DISTRIBUTION)]
        if extra is None or len(mine) != 1 or (kind, type) in self.classes or not (missing := _missing(extra)):
            return None
        return _needs(mine[0], path or f"{kind} {type}", ", ".join(missing), extra)

    def _find(self, kind: str, type: str, path: str) -> Plugin:
        found = [plugin for plugin in self.plugins if (plugin.kind, plugin.type) == (kind, type)]
        if len(found) == 1:
            return found[0]
        if found:
            names = " and ".join(sorted(plugin.distribution for plugin in found))
            raise _mistake(path, f"the {kind} type `{type}` is claimed by {names}", "Uninstall all of them but one.")
        types = self.types(kind)
        listed = f"Installed: {', '.join(types)}" if types else f"No {kind} plugin is installed"
        raise _mistake(path, f"no {kind} type `{type}` is installed", f"{near_match(type, types)}{listed}.")


def installed(kinds: Iterable[str] = tuple(GROUPS)) -> list[Plugin]:
    """The plugins of some kinds that installed distributions declare, sorted; nothing of them is imported.

    Each kind takes a look at the metadata of everything that is installed.
    """
    return sorted(
        {
            Plugin(
                kind=kind,
                type=entry.name,
                distribution=entry.dist.name if entry.dist else "unknown",
                version=entry.dist.version if entry.dist else "unknown",
                target=entry.value,
            )
            for kind in kinds
            for entry in metadata.entry_points(group=GROUPS[kind])
        }
    )


def installed_registry() -> Registry:
    """The registry of what is installed and can be named in this version: sources."""
    return Registry(tuple(installed(("source",))))


def _import(plugin: Plugin, path: str) -> object:
    if plugin.kind != "source":
        raise _mistake(path, f"{plugin.kind} plugins are not available in this version", "Remove it.")
    extra = _EXTRAS.get((plugin.kind, plugin.type)) if plugin.distribution == OUR_DISTRIBUTION else None
    try:
        config = metadata.EntryPoint(plugin.type, plugin.target, GROUPS[plugin.kind]).load()
        if inspect.isclass(config) and issubclass(config, SourceConfig):
            config.model_rebuild()  # builds what was deferred: fields that pydantic cannot use are the plugin's defect
    except ModuleNotFoundError as error:
        if plugin.module.partition(".")[0] != (error.name or "").partition(".")[0]:
            raise ConfigError((_needs(plugin, path, error.name or "a library", extra),)) from error
        raise _broken(plugin, path, error) from error
    except Exception as error:  # a plugin's module may raise anything; the other sources' mistakes are still wanted
        raise _broken(plugin, path, error) from error
    return config


def _missing(extra: str) -> list[str]:
    """What our distribution's extra asks for and is not installed; without metadata (a source tree) nothing is known."""
    try:
        requirements: Iterable[str] = metadata.requires(OUR_DISTRIBUTION) or ()
    except metadata.PackageNotFoundError:
        return []
    matches = (_REQUIREMENT.match(requirement) for requirement in requirements)
    return [match[1] for match in matches if match and match[2] == extra and not _is_installed(match[1])]


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _contract_problem(config: object, type: str) -> str | None:
    if not inspect.isclass(config) or not issubclass(config, SourceConfig):
        return "it is no subclass of SourceConfig"
    if get_args(config.model_fields["type"].annotation) != (type,):
        return f'its `type` is not Literal["{type}"]'
    if inspect.isabstract(config):
        return "it lacks " + ", ".join(sorted(config.__abstractmethods__))
    return None


def _needs(plugin: Plugin, path: str, missing: str, extra: str | None) -> Mistake:
    command = f"pip install {_ourselves(extra)}" if extra else f"pip install {missing}"
    problem = f"the plugin `{plugin.type}` of {plugin.distribution} needs {missing}, which is not installed"
    return Mistake(path, problem, f"Run: {command}")


def _ourselves(extra: str) -> str:
    """What pip is to install for an extra of ours: from the folder we were installed from, where it was one (PEP 610)."""
    try:
        told = json.loads(metadata.distribution(OUR_DISTRIBUTION).read_text("direct_url.json") or "{}")
        folder = unquote(urlsplit(told["url"]).path) if "dir_info" in told else ""
        editable = "-e " if told.get("dir_info", {}).get("editable") else ""
    except (metadata.PackageNotFoundError, AttributeError, KeyError, TypeError, ValueError):
        folder = editable = ""
    return f"{editable}'{folder}[{extra}]'" if folder else f"'{OUR_DISTRIBUTION}[{extra}]'"


def _broken(plugin: Plugin, path: str, error: Exception) -> ConfigError:
    source = f"the plugin `{plugin.type}` of {plugin.distribution} {plugin.version}"
    problem = f"{source} cannot be imported: {type(error).__name__}: {error}"
    return _mistake(path, problem, f"Reinstall {plugin.distribution}, or report it to its authors.")


def _mistake(path: str, message: str, remedy: str) -> ConfigError:
    return ConfigError((Mistake(path, message, remedy),))
