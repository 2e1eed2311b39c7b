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
    GetPydanticSchema,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import core_schema

from bridge.contracts import ConfigPath, SourceConfig
from bridge.errors import ConfigError, Mistake
from bridge.host import mistakes as report
from bridge.host.document import read_document
from bridge.host.doubts import listener_mistakes, source_mistakes
from bridge.host.interpolate import interpolate
from bridge.host.plugins import Registry, installed_registry
from bridge.host.telemetry import LogFormat, LogLevel
from bridge.rules import check_readable
from bridge.text import name_problem

_LATER = (("peers",), ("hub",), ("exporters",), ("serve", "dns"))
"""Keys of the design that this version does not have yet."""

_INTERVALS = {"refresh", "fresh_for"}
_LISTEN = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^:\[\]]+)):(?P<port>\d{1,9})")
_LAST_PORT = 65535
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
    if match is None or not _is_host(host, v6=match["v6"] is not None):
        raise ValueError("must be HOST:PORT; Write it as 127.0.0.1:7400 or [::1]:7400; 0.0.0.0 or [::] stand for all addresses.")
    port = int(match["port"])
    if port > _LAST_PORT:
        raise ValueError(
            f"the port of HOST:PORT is out of range: `{value}`; Give one from 1 to {_LAST_PORT}, or 0 for any free one."
        )
    return Address(host, port)


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

Source = Annotated[
    SourceConfig,
    GetPydanticSchema(lambda _type, _handler: core_schema.is_instance_schema(SourceConfig)),
    WithJsonSchema({"type": "object"}),
]
"""A source that its plugin's class has checked: what all sources have in common need not be built for it once more."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # only the outermost validates


class TlsConfig(_Model):
    """The certificate that a listener shows."""

    cert_file: ReadableFile = Field(description="PEM file with the certificate, then its intermediates.")
    key_file: ReadableFile = Field(description="PEM file with the certificate's private key, without a passphrase.")


class HttpConfig(_Model):
    """The HTTP listener: our own API and everything else that is read over HTTP."""

    tls: TlsConfig | None = Field(default=None, description="The listener's certificate; without it the port speaks plain HTTP.")
    token_file: ReadableFile | None = Field(
        default=None,
        description="File with the tokens, one a line, that may read from other machines; readers on this machine need none.",
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

    http: HttpConfig = Field(default_factory=HttpConfig, description="The HTTP listener.")


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
    sources: dict[Name, Source] = Field(
        default={}, description="What is observed, by a name of one's choice that stays: it is part of each instance's id."
    )
    serve: ServeConfig = Field(default_factory=ServeConfig, description="What answers readers, and where.")
    log: LogConfig = Field(default_factory=LogConfig, description="The log on stderr.")


def load_config(path: Path, *, registry: Registry | None = None, thorough: bool = False) -> BridgeConfig:
    """The configuration in a file, its relative paths anchored at the file's folder; ``${NAME}`` comes from the environment.

    registry: the source types one may name; what is installed by default.
    thorough: also take for a mistake what a daemon can start with, but no one can want (see `doubts`).
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
    return parse_config(text, path.absolute().parent, os.environ, registry=registry, thorough=thorough)


def parse_config(
    text: str, base_dir: Path, env: Mapping[str, str], *, registry: Registry | None = None, thorough: bool = False
) -> BridgeConfig:
    """As `load_config`, of a text; ``base_dir`` is where relative paths start, ``env`` what references are filled in from."""
    written, mistakes = read_document(text)
    if not isinstance(written, dict):
        raise ConfigError((Mistake("configuration", "must be a mapping", "Begin with `environment: NAME`."),))
    data, unset = interpolate(written, env)
    context = {"base_dir": base_dir}
    data, found = _without_later(data)
    sources, of_sources = _sources(data.pop("sources", None), registry, context, written, thorough)
    found += of_sources
    config = None
    shell = report.without_nulls(BridgeConfig, data)
    try:
        config = BridgeConfig.model_validate({"data_dir": "data", **_mapping(shell), "sources": sources}, context=context)
    except ValidationError as error:
        found += report.from_pydantic(error, BridgeConfig, shell, written=written)
    if config is not None and thorough:
        found += listener_mistakes(config)
    mistakes += unset + [mistake for mistake in found if not report.tells(unset, mistake)]
    if mistakes or config is None:
        raise ConfigError(tuple(map(report.safe, mistakes)))
    return config


def _sources(
    named: Any, registry: Registry | None, context: dict[str, Any], written: object, thorough: bool
) -> tuple[dict[str, SourceConfig], list[Mistake]]:
    if named is None or named == {}:
        return {}, []
    if not isinstance(named, dict):
        return {}, [Mistake("sources", "must be a mapping", "Write `NAME: {type: TYPE, ...}` lines below it.")]
    registry = registry or installed_registry()
    sources: dict[str, SourceConfig] = {}
    found: list[Mistake] = []
    for name, data in named.items():
        if problem := name_problem(name):
            found.append(Mistake(report.render(("sources", name)), problem, "Rename the source."))
        source, of_source = _source(name, {} if data is None else data, registry, context, written, thorough)
        found += of_source
        if source is not None and not problem:
            sources[name] = source
    return sources, found + _renaming_mistakes(named)


def _source(
    name: str, data: Any, registry: Registry, context: dict[str, Any], written: object, thorough: bool
) -> tuple[SourceConfig | None, list[Mistake]]:
    """One source, None where it is none, and all its mistakes."""
    path = ("sources", name)
    if not isinstance(data, dict):
        return None, [_wrong(path, "must be a mapping", "Write `type: TYPE` and the type's keys below it.")]
    data, found = _with_type(path, data)
    named = data.get("type")
    if not isinstance(named, str):
        problem = (
            f"must be text{f', not {shown}' if (shown := report.show(named)) else ''}" if named is not None else "is missing"
        )
        remedy = f"Installed: {', '.join(registry.types('source')) or 'no source plugin'}."
        return None, [*found, _wrong((*path, "type"), problem, remedy)]
    place = report.render((*path, "type"))
    try:
        cls = registry.load("source", named, path=place)
    except ConfigError as error:
        return None, [*found, *error.mistakes]
    if missing := registry.missing_extra("source", named, path=place):
        found.append(missing)
    data = report.without_nulls(cls, data)
    try:
        source = cls.model_validate(data, context=context)
        return source, found + (source_mistakes(path, source) if thorough else [])
    except ValidationError as error:
        found += report.from_pydantic(error, cls, data, path, written=written)
        return None, found + (_mistakes_beside(error, path, cls, data, context) if thorough else [])
    except Exception as error:  # noqa: BLE001  # the plugin's own validators may raise anything; the text might quote a value
        problem = f"the plugin `{named}` failed to check its keys ({type(error).__name__})"
        return None, [*found, _wrong(path, problem, "Report it to the plugin's authors; simpler values may help.")]


def _mistakes_beside(
    error: ValidationError, path: report.Path, cls: type[SourceConfig], data: dict[str, Any], context: dict[str, Any]
) -> list[Mistake]:
    """What `source_mistakes` finds in the keys that are valid, where others are not."""
    wrong = {item["loc"][0] if item["loc"] else "" for item in error.errors(include_url=False)}
    if wrong & _INTERVALS:
        wrong |= _INTERVALS  # they are judged together
    try:
        source = cls.model_validate({key: value for key, value in data.items() if key not in wrong}, context=context)
    except Exception:  # noqa: BLE001  # what is wrong was told; a plugin's validator may raise anything
        return []
    return source_mistakes(path, source)


def _with_type(path: report.Path, data: dict[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
    """The data with a misspelt ``type`` put right, so that the other keys can be checked, and the mistake that this is."""
    if "type" in data or (odd := report.nearest("type", data)) is None:
        return data, []
    mistake = _wrong((*path, odd), "there is no such key", "Did you mean `type`?")
    return {"type" if key == odd else key: value for key, value in data.items()}, [mistake]


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


def _wrong(path: report.Path, message: str, remedy: str) -> Mistake:
    return Mistake(report.render(path), message, remedy)


def schema(registry: Registry | None = None) -> dict[str, Any]:
    """The configuration's JSON Schema (2020-12) with the source types of ``registry``, by default of what is installed.

    A type whose plugin cannot be imported here is left out; the library behind it need not be installed.
    """
    from bridge.host.schema import build_schema

    return build_schema(BridgeConfig, registry or installed_registry())
