"""The configuration: its models, and how a file becomes one with every mistake told at once.

Text -> plain data (`document`) -> references filled in (`interpolate`) -> each source against its plugin's class, the rest
against `BridgeConfig`. A step goes on after a mistake wherever the next one can still find others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from bridge.contracts import ConfigPath, SourceConfig
from bridge.errors import ConfigError, Mistake
from bridge.host import mistakes as report
from bridge.host.document import read_document
from bridge.host.interpolate import interpolate
from bridge.host.plugins import Registry, installed_registry
from bridge.host.telemetry import LogFormat, LogLevel
from bridge.rules import check_readable
from bridge.text import name_problem

_LATER = (("peers",), ("hub",), ("exporters",), ("serve", "dns"))
"""Keys of the design that this version does not have yet."""

_LISTEN = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^:\[\]]+)):(?P<port>\d{1,5})")
_HOSTNAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?")


class Address(NamedTuple):
    """Where to listen: an IP address or a host name, and a port; port 0 takes any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it. A name other than ``localhost`` is taken for one that others reach, too."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_address(value: object) -> Address:
    """An `Address` from ``HOST:PORT`` or ``[IPV6]:PORT``. Raises ValueError for anything else."""
    if isinstance(value, Address):
        return value
    match = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    host = (match["v6"] or match["host"]) if match else ""
    if match is None or int(match["port"]) > 65535 or not _is_host(host, v6=match["v6"] is not None):
        raise ValueError("must be HOST:PORT; Write it as 127.0.0.1:7400 or [::1]:7400; 0.0.0.0 or [::] stand for all addresses.")
    return Address(host, int(match["port"]))


def _is_host(host: str, *, v6: bool) -> bool:
    try:
        return ip_address(host).version == (6 if v6 else 4)
    except ValueError:
        # What looks like an address and is none must not be looked up as a name.
        return not v6 and _HOSTNAME.fullmatch(host) is not None and not host.replace(".", "").isdigit()


def _check_name(name: str) -> str:
    if problem := name_problem(name):
        raise ValueError(f"{problem}; Use up to 255 bytes of UTF-8 without `/` and control characters.")
    return name


Name = Annotated[str, AfterValidator(_check_name)]
ReadableFile = Annotated[ConfigPath, AfterValidator(check_readable)]
Listen = Annotated[
    Address,
    PlainValidator(parse_address),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": r"^(\[[^\[\]]+\]|[^:\[\]]+):\d{1,5}$", "examples": ["127.0.0.1:7400"]}),
]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TlsConfig(_Model):
    """The certificate that a listener shows."""

    cert_file: ReadableFile = Field(description="PEM file with the certificate, then its intermediates.")
    key_file: ReadableFile = Field(description="PEM file with the certificate's private key, without a passphrase.")


class HttpConfig(_Model):
    """The HTTP listener: our own API and everything else that is read over HTTP."""

    tls: TlsConfig | None = Field(default=None, description="The listener's certificate; without it the port speaks plain HTTP.")
    token_file: ReadableFile | None = Field(
        default=None, description="File with the tokens that may read; without it any reader may that reaches the port."
    )
    insecure: bool = Field(
        default=False,
        description="True lets other machines read without TLS or tokens: only where the whole network is trusted.",
    )
    listen: Listen = Field(
        default=Address("127.0.0.1", 7400),
        json_schema_extra={"default": "127.0.0.1:7400"},
        description="HOST:PORT. Beyond loopback it needs `tls` and `token_file`, or `insecure`. A change needs a restart.",
    )

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: Address, info: ValidationInfo) -> Address:
        given = info.data
        # A key that is not among the data is there but wrong; that is a mistake of its own.
        protected = all(given.get(key, True) is not None for key in ("tls", "token_file"))
        if not value.is_loopback and not protected and not given.get("insecure", True):
            raise ValueError(
                "others than this machine could read here without TLS and a token; "
                "Listen on 127.0.0.1, or give `tls` and `token_file`, or set `insecure: true` where the network is trusted."
            )
        return value


class ServeConfig(_Model):
    """What answers readers."""

    http: HttpConfig = Field(default=HttpConfig(), description="The HTTP listener.")


class LogConfig(_Model):
    """The log on stderr."""

    format: LogFormat = Field(default="auto", description="`text`, `json`, or `auto`: text on a terminal, else JSON.")
    level: LogLevel = Field(default="info", description="The least important lines that are written.")


class BridgeConfig(_Model):
    """One bridge: the environment it speaks for, what it observes, and where it answers."""

    environment: Name = Field(description="The environment's name, unique among all bridges that know each other.")
    environment_uid: Name | None = Field(
        default=None, description="The environment's identity, where it shall not depend on the data directory."
    )
    data_dir: ConfigPath = Field(
        default=Path("data"),
        description="Folder for what must survive a restart, ours alone; `data` beside the configuration by default.",
    )
    sources: dict[Name, SerializeAsAny[SourceConfig]] = Field(
        default={}, description="What is observed, by a name of one's choice that stays: it is part of each instance's id."
    )
    serve: ServeConfig = Field(default=ServeConfig(), description="What answers readers, and where.")
    log: LogConfig = Field(default=LogConfig(), description="The log on stderr.")


def load_config(path: Path, *, registry: Registry | None = None) -> BridgeConfig:
    """The configuration in a file, its relative paths anchored at the file's folder; ``${NAME}`` comes from the environment.

    registry: the source types one may name; what is installed by default.
    Raises ConfigError with every mistake there is.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror}", "Give the path of a readable file.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _unreadable(path, f"line {line} is not UTF-8", "Store the file as UTF-8.") from error
    # Not resolved: a mounted ConfigMap is a link to a folder that goes away with the next version.
    return parse_config(text, path.absolute().parent, os.environ, registry=registry)


def parse_config(text: str, base_dir: Path, env: Mapping[str, str], *, registry: Registry | None = None) -> BridgeConfig:
    """As `load_config`, of a text; ``base_dir`` is where relative paths start, ``env`` what references are filled in from."""
    data, mistakes = read_document(text)
    if not isinstance(data, dict):
        raise ConfigError((Mistake("configuration", "must be a mapping", "Begin with `environment: NAME`."),))
    data, unset = interpolate(data, env)
    context = {"base_dir": base_dir}
    data, found = _without_later(data)
    sources, of_sources = _sources(data.pop("sources", None), registry, context)
    found += of_sources
    config = None
    shell = report.without_nulls(BridgeConfig, data)
    try:
        config = BridgeConfig.model_validate({"data_dir": "data", **_mapping(shell), "sources": sources}, context=context)
    except ValidationError as error:
        found += report.from_pydantic(error, BridgeConfig, shell)
    told = {mistake.path for mistake in unset}  # what is wrong only because a reference is empty was told already
    mistakes += unset + [mistake for mistake in found if mistake.path not in told]
    if mistakes or config is None:
        raise ConfigError(tuple(map(report.safe, mistakes)))
    return config


def _sources(named: Any, registry: Registry | None, context: dict[str, Any]) -> tuple[dict[str, SourceConfig], list[Mistake]]:
    if named is None:
        return {}, []
    if not isinstance(named, dict):
        return {}, [Mistake("sources", "must be a mapping", "Write `NAME: {type: TYPE, ...}` lines below it.")]
    registry = registry or installed_registry()
    sources: dict[str, SourceConfig] = {}
    found: list[Mistake] = []
    for name, data in named.items():
        if problem := name_problem(name):
            found.append(Mistake(report.render(("sources", name)), problem, "Rename the source."))
        try:
            source = _source(name, {} if data is None else data, registry, context)
        except ConfigError as error:
            found += error.mistakes
        else:
            if not problem:
                sources[name] = source
    return sources, found + _renaming_mistakes(named)


def _source(name: str, data: Any, registry: Registry, context: dict[str, Any]) -> SourceConfig:
    """One source. Raises ConfigError with all its mistakes."""
    path = ("sources", name)
    if not isinstance(data, dict):
        raise _wrong(path, "must be a mapping", "Write `type: TYPE` and the type's keys below it.")
    named = data.get("type")
    if not isinstance(named, str):
        problem = "must be text" if named is not None else "is missing"
        raise _wrong((*path, "type"), problem, f"Installed: {', '.join(registry.types('source')) or 'no source plugin'}.")
    cls = registry.load("source", named, path=report.render((*path, "type")))
    data = report.without_nulls(cls, data)
    try:
        return cls.model_validate(data, context=context)
    except ValidationError as error:
        raise ConfigError(tuple(report.from_pydantic(error, cls, data, path))) from error
    except Exception as error:  # the plugin's own validators may raise anything; the text might quote a value
        problem = f"the plugin `{named}` failed to check its keys ({type(error).__name__})"
        raise _wrong(path, problem, "Report it to the plugin's authors; simpler values may help.") from error


def _renaming_mistakes(named: dict[str, Any]) -> list[Mistake]:
    found: list[Mistake] = []
    heirs: dict[str, str] = {}
    for name, data in named.items():
        former = data.get("renamed_from") if isinstance(data, dict) else None
        if not isinstance(former, str):
            continue
        path = report.render(("sources", name, "renamed_from"))
        if former in named:
            remedy = "Name one that is no longer there, or remove the key."
            found.append(Mistake(path, f"`{former}` is a source that is still configured", remedy))
        elif former in heirs:
            problem = f"`{heirs[former]}` has taken over `{former}` already"
            found.append(Mistake(path, problem, "Let only one source take it over."))
        heirs.setdefault(former, name)
    return found


def _without_later(data: dict[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
    found: list[Mistake] = []
    for path in _LATER:
        *outer, key = path
        parent = data
        for part in outer:
            parent = _mapping(parent.get(part))
        if key in parent:
            del parent[key]
            found.append(Mistake(report.render(path), "not available in this version", "Remove it."))
    return data, found


def _mapping(data: object) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def _unreadable(path: Path, message: str, remedy: str) -> ConfigError:
    return ConfigError((report.safe(Mistake(str(path), message, remedy)),))


def _wrong(path: report.Path, message: str, remedy: str) -> ConfigError:
    return ConfigError((Mistake(report.render(path), message, remedy),))


def schema(registry: Registry | None = None) -> dict[str, Any]:
    """The configuration's JSON Schema (2020-12) with the source types of ``registry``, by default of what is installed.

    A type whose plugin cannot be loaded here (its library is missing) is left out.
    """
    from bridge.host.schema import build_schema

    return build_schema(BridgeConfig, registry or installed_registry())
