"""What a plugin must do, and what it is handed.

A plugin is a configuration class with ``open()``, named by an entry point (groups ``bridge.sources``, ...). It yields what
it knows and raises what it does not; it never retries, never logs its own failure and never answers "nothing" for
"I could not ask". `bridge.testing` has the suite that every plugin must pass.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from bridge.aio import Clock
from bridge.model import Observation
from bridge.rules import (
    NAMING_FIELDS,
    RELABEL_FIELDS,
    check_networks,
    check_pattern,
    check_readable,
    check_replacement,
    check_target,
    check_template,
)
from bridge.text import name_problem

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(value: object) -> float:
    """Seconds of a duration with unit (``250ms``, ``30s``, ``1m30s``). Raises ValueError for anything else."""
    if isinstance(value, str) and _DURATION.fullmatch(value):
        return sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(value))
    raise ValueError("a duration is a string with a unit, such as 500ms, 30s or 5m")


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= _UNITS[unit] and seconds % _UNITS[unit] == 0:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{round(seconds * 1000)}ms"


def _parse_duration_field(value: object) -> float:
    if isinstance(value, float):  # a default, already in seconds
        return value
    return parse_duration(value)


Duration = Annotated[
    float,
    BeforeValidator(_parse_duration_field),
    PlainSerializer(format_duration),
    WithJsonSchema({"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$", "examples": ["30s"]}),
]
"""A duration in the configuration; seconds (float) in the code. Defaults are written in seconds, as floats."""


def _from_base_dir(value: object, info: ValidationInfo) -> object:
    base = (info.context or {}).get("base_dir")
    if isinstance(value, str) and base is not None and not Path(value).is_absolute():
        return str(Path(base) / value)
    return value


ConfigPath = Annotated[Path, BeforeValidator(_from_base_dir), WithJsonSchema({"type": "string", "format": "path"})]
"""A path; a relative one starts at the configuration's folder (validation context ``base_dir``)."""


def _glob_from_base_dir(value: object, info: ValidationInfo) -> object:
    base = (info.context or {}).get("base_dir")
    if isinstance(value, str) and value and base is not None and not Path(value).is_absolute():
        return f"{escape(str(base))}/{value}"  # the folder's own name is no pattern
    return value


ConfigGlob = Annotated[str, BeforeValidator(_glob_from_base_dir), Field(min_length=1)]
"""A glob pattern, anchored like a `ConfigPath`."""

_LONGEST_SECRET = 65_536


def _from_secret_file(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str) or not value.startswith("file:"):
        return value
    path = Path((info.context or {}).get("base_dir", ".")) / value.removeprefix("file:")
    try:
        if not path.is_file():
            raise ValueError(f"there is no file {path}; Create it, or correct the path behind `file:`.")
        with path.open("rb") as file:
            text = file.read(_LONGEST_SECRET + 1)
        secret = text.decode().strip()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; Make it readable for this process.") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} holds no text; Store the secret as UTF-8 text.") from None
    if not secret or len(text) > _LONGEST_SECRET:
        raise ValueError(f"{path} is {'too long' if secret else 'empty'}; Store the secret, and nothing else, in it.")
    return secret


Secret = Annotated[
    SecretStr, BeforeValidator(_from_secret_file), WithJsonSchema({"type": "string", "writeOnly": True, "format": "password"})
]
"""A secret that never formats itself. ``file:PATH`` is read (blanks around it go); a relative path starts like a `ConfigPath`."""


class Guard(BaseModel):
    """The mass-removal guard of a source: how much may vanish by mere absence before it is held back."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)

    share: Annotated[
        float, BeforeValidator(lambda v: _share(v)), WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?%$"})
    ] = Field(default=0.3, description="Share of the source's instances that may go within 60 s, a percentage.")
    floor: int = Field(
        default=3, ge=0, description="Instances that may always go, whatever the share: small sources change at once."
    )
    for_: Duration = Field(
        default=300.0,
        alias="for",
        description="How long absence is held, and seen again, before it is obeyed. Five minutes outlast most restarts.",
    )
    only_when_emptied: ClassVar[bool] = False


def _share(value: object) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)%", value)) and float(match[1]) <= 100:
        return float(match[1]) / 100
    raise ValueError("a share is a percentage between 0% and 100%, such as 30%")


class Naming(BaseModel):
    """Templates over ``{namespace}`` and ``{name}`` that rename services."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    namespace: str = Field(default="{namespace}", description="Template of the namespace.")
    name: str = Field(default="{name}", description="Template of the name.")

    @field_validator("namespace", "name")
    @classmethod
    def _check_template(cls, value: str) -> str:
        return check_template(value, NAMING_FIELDS)


class Relabel(BaseModel):
    """One relabelling rule: where ``match`` fits all of ``from``, set a field, keep, or drop the instance."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)

    from_: str = Field(
        alias="from", description="Template over {namespace} {name} {zone} {region} {node} {environment} {meta.KEY}."
    )
    match: str = Field(default=".*", description="Regular expression that must fit the whole text.")
    action: Literal["set", "keep", "drop"] = Field(
        default="set", description="What to do where it fits (`keep`: drop where it does not)."
    )
    to: str | None = Field(
        default=None,
        validate_default=True,
        description="For `set`: namespace, name, zone, region, node, meta.KEY, weight, or tag (which adds one).",
    )
    value: str | None = Field(
        default=None,
        validate_default=True,
        description=r"For `set`: the text, with \1 for a group of `match`.",
    )

    @field_validator("from_")
    @classmethod
    def _check_from(cls, value: str) -> str:
        return check_template(value, RELABEL_FIELDS)

    @field_validator("match")
    @classmethod
    def _check_match(cls, value: str) -> str:
        return check_pattern(value)

    @field_validator("to", "value")
    @classmethod
    def _check_belongs_to_set(cls, value: str | None, info: ValidationInfo) -> str | None:
        action = info.data.get("action", "")
        if value is None and action == "set":
            raise ValueError("is missing; Rules that set need both `to` and `value`.")
        if value is not None and action in ("keep", "drop"):
            raise ValueError(f"has no meaning for `{action}`; Remove it, or make the action `set`.")
        return value

    @field_validator("to")
    @classmethod
    def _check_to(cls, value: str | None) -> str | None:
        return None if value is None else check_target(value)

    @field_validator("value")
    @classmethod
    def _check_value(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or "match" not in info.data:
            return value
        if info.data.get("to") == "weight" and "\\" not in value and not (value.isascii() and value.isdigit()):
            raise ValueError("a weight is a whole number of 0 or more; Write one, or a group of `match` such as \\1.")
        return check_replacement(value, info.data["match"])


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What the core hands to a plugin. Never the catalog, only the keys of its own groups there.

    environment, name: the environment and this source's own name in the configuration.
    logger: carries the plugin's name; for things worth a line that are not failures (the supervisor logs those).
    clock: the only clock a plugin may look at.
    count: adds to a counter ``envbridge_plugin_events_total{source, event}``.
    known: the keys of the groups that the catalog holds of this source now: told by this object, or by one before it (before a
        restart, a reload, under a former name). What a first listing lacks of them is taken for absent, unless it is `unknown`.
    """

    environment: str
    name: str
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger]
    clock: Clock
    count: Count
    known: Callable[[], frozenset[str]] = frozenset


class Count(Protocol):
    """Adds ``amount`` to the plugin's counter ``event`` (snake_case)."""

    def __call__(self, event: str, amount: int = 1) -> None: ...


@runtime_checkable
class Source(Protocol):
    """Follows a backend that tells its changes."""

    def watch(self) -> AsyncGenerator[Observation, None]:
        """Yield a complete `Listing` first, then whatever changes, for ever.

        Called again after each failure, on the same object; it then begins with a complete listing. Raises `TransientError`
        or `ForbiddenError` for "unknown altogether" (any other exception counts as a defect and is treated like the first);
        ending without an exception means "list me anew". When cancelled or closed it must release what it holds.
        Within the configured silence it must yield something (`Confirmed` at least), or it is taken for stalled.
        """
        ...


@runtime_checkable
class ScopedSource(Protocol):
    """A source of several parts that fail independently (Kubernetes namespaces): each is watched, and retried, alone."""

    scopes: tuple[str, ...]
    """The key prefixes that together are the whole source; what lies outside them is absent."""

    def watch_scope(self, scope: str) -> AsyncGenerator[Observation, None]:
        """As `Source.watch`, for one of ``scopes``; its listings have that scope."""
        ...


@runtime_checkable
class PollSource(Protocol):
    """Asks a backend that only answers; the core calls it every ``refresh``, never twice at a time."""

    async def list(self) -> Observation:
        """What is there now, relative to what this object returned before.

        The first call returns a complete `Listing` of scope ``""``; a later one may return listings of parts, or
        `Confirmed` for what a complete look found unchanged. Either counts as a complete listing for the guard.
        Parts that could not be told are `Listing.unknown`; raises as `Source.watch` does when nothing could be told.
        What it returned is taken for applied, unless the object is closed and a new one opened.
        """
        ...


@runtime_checkable
class PollHints(Protocol):
    """What a `PollSource` may offer besides: to be asked sooner than ``refresh``."""

    def hints(self) -> AsyncGenerator[float, None]:
        """Yield seconds within which `list` should be called again (0.0: at once), whenever there is reason to.

        A failure of it costs only timeliness: it is logged and opened again later; it must not raise for an idle backend.
        """
        ...


AnySource = Source | ScopedSource | PollSource

GuardSetting = Annotated[
    Guard | None,
    BeforeValidator(lambda v: None if v is False or v == "off" else v),
    PlainSerializer(lambda v: "off" if v is None else v),
]


class SourceConfig(BaseModel, ABC):
    """The keys common to all sources.

    The configuration is the factory: a plugin narrows ``type``, adds keys, and opens itself.
    """

    # Deferred, here and in its parts: only the types that a configuration names are ever built.
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)

    type: str = Field(description="Which plugin; `envbridge plugins` lists them.")
    naming: Naming = Field(default_factory=Naming, description="Renames services by template, after `namespaces`.")
    namespaces: dict[str, str] = Field(default={}, description="Renames whole namespaces: old name to new.")
    include: tuple[str, ...] = Field(default=(), description="Globs on the resulting `namespace/name`; empty takes all.")
    exclude: tuple[str, ...] = Field(default=(), description="Globs on the resulting `namespace/name` that are left out.")
    tags: tuple[str, ...] = Field(default=(), description="Tags added to each instance.")
    meta: dict[str, str] = Field(default={}, description="Meta entries added to each instance; its own win.")
    relabel: tuple[Relabel, ...] = Field(default=(), description="Rules applied in order, after renaming and before `include`.")
    networks: tuple[str, ...] = Field(
        default=(), description="CIDRs: addresses outside them are dropped, the rest ordered by them."
    )
    guard: GuardSetting = Field(default_factory=Guard, description="The mass-removal guard, or `off`.")
    hold: Duration | Literal["forever"] = Field(
        default="forever",
        description="How long unconfirmed instances stay in answers; outages of control planes last hours, so for ever.",
    )
    fresh_for: Duration | None = Field(
        default=None,
        description="Unconfirmed for longer counts as stale. Unset: 3 x the poll but at least 30s; 90s for a watch.",
    )
    max_instances: int = Field(default=1_000_000, ge=1, description="A listing that leads beyond is refused, the last one kept.")
    renamed_from: str | None = Field(default=None, description="The source's former name: its records are taken over.")
    proxy: str | None = Field(default=None, description="HTTP proxy for the plugin's own connections.")
    ca_file: ConfigPath | None = Field(
        default=None, description="PEM file with the authorities to trust instead of the system's."
    )
    refresh: Duration | None = Field(
        default=None,
        description="Poll interval, or the full-relist interval of a watch (4-5 min, jittered, where unset).",
    )

    @field_validator("namespaces")
    @classmethod
    def _check_namespaces(cls, value: dict[str, str]) -> dict[str, str]:
        for old, new in value.items():
            if problem := name_problem(new):
                raise ValueError(f"the new name of `{old}` is none: {problem}; Give it a plain name.")
        return value

    @field_validator("networks")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_networks(value)
        return value

    @field_validator("ca_file")
    @classmethod
    def _check_ca_file(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        # Built in code, where there is no configuration's folder, the file may come later.
        return check_readable(value) if value is not None and info.context else value

    @field_validator("renamed_from")
    @classmethod
    def _check_renamed_from(cls, value: str | None) -> str | None:
        if value is not None and (problem := name_problem(value)):
            raise ValueError(f"{problem}; Give the name that the source had before.")
        return value

    @field_validator("refresh")
    @classmethod
    def _check_refresh(cls, value: float | None) -> float | None:
        if value is not None and value <= 0:
            raise ValueError("an interval must be longer than 0s; Give one such as 5s.")
        return value

    silence: ClassVar[float | None] = 90.0
    """Seconds without an event after which a watch counts as stalled; a plugin may make it a field. None for a poll source."""

    guard_only_when_emptied: ClassVar[bool] = False
    """True where only a listing that leaves none where there were some is held, whatever share and floor."""

    list_deadline: ClassVar[float] = 30.0
    """Seconds one `PollSource.list` may take."""

    @abstractmethod
    def open(self, ctx: PluginContext) -> AbstractAsyncContextManager[AnySource]:
        """Build the client and the source around it; leaving the context releases both.

        The only place that builds an SDK client; blocking parts of it run in `bridge.aio.in_thread`.
        Raises as `Source.watch` does.
        """

    def describe(self) -> dict[str, Any]:
        """What the status may show of this source beyond its name and type; never a secret."""
        return {}
