"""What the values of a configuration may say: templates, relabelling, networks, files. A check that fails raises ValueError.

Its text has the form ``problem; Remedy.``, both for the person who wrote the configuration.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

NAMING_FIELDS = ("namespace", "name")
RELABEL_FIELDS = ("namespace", "name", "zone", "region", "node", "environment", "meta.KEY")
RELABEL_TARGETS = ("namespace", "name", "zone", "region", "node", "meta.KEY", "weight", "tag")

_FIELD = re.compile(r"\{([^{}]*)\}")


def check_template(template: str, fields: tuple[str, ...]) -> str:
    """A text with ``{field}`` in it; fields are those given, ``meta.KEY`` standing for any key."""
    if not template:
        raise ValueError(f"a template cannot be empty; Write text with {_braced(fields)} in it.")
    if stray := re.search("[{}]", _FIELD.sub("", template)):
        raise ValueError(f"`{stray[0]}` stands alone in this template; Fields are written {_braced(fields)}.")
    for name in _FIELD.findall(template):
        if not _known(name, fields):
            remedy = f"{_did_you_mean(name, fields)}Fields are {_braced(fields)}."
            raise ValueError(f"`{{{name}}}` is no field of this template; {remedy}")
    return template


def check_target(name: str) -> str:
    """What a relabelling rule may set."""
    if not _known(name, RELABEL_TARGETS):
        remedy = f"{_did_you_mean(name, RELABEL_TARGETS)}One can set {', '.join(RELABEL_TARGETS)}."
        raise ValueError(f"`{name}` cannot be set; {remedy}")
    return name


def check_pattern(pattern: str) -> str:
    """A regular expression in Python's syntax."""
    _compiled(pattern)
    return pattern


def check_replacement(replacement: str, pattern: str) -> str:
    r"""A text with ``\1`` for the groups of ``pattern``, which must be a valid one."""
    groups = _compiled(pattern)
    try:
        groups.sub(replacement, "")
    except (re.error, IndexError, ValueError) as error:
        remedy = f"It has {groups.groups} groups; a backslash itself is written \\\\."
        raise ValueError(f"this text does not fit `match`: {error}; {remedy}") from error
    return replacement


def check_networks(networks: Iterable[str]) -> None:
    """CIDRs without host bits; all that are none are named at once."""
    wrong = [network for network in networks if not _is_network(network, strict=True)]
    if wrong:
        near = [str(ip_network(network, strict=False)) for network in wrong if _is_network(network, strict=False)]
        remedy = f"Without bits beyond the prefix: {', '.join(near)}." if near else "Write networks as 10.0.0.0/8 or fd00::/8."
        raise ValueError(f"{', '.join(f'`{network}`' for network in wrong)}: not a network; {remedy}")


def check_readable(path: Path) -> Path:
    """A file that this process can read."""
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        remedy = "Correct the path, or make the file readable for this process."
        raise ValueError(f"{path} cannot be read: {error.strerror}; {remedy}") from error
    except ValueError as error:  # NUL in it
        raise ValueError("is no path; Remove its control characters.") from error


def _is_network(text: str, *, strict: bool) -> bool:
    try:
        ip_network(text, strict=strict)
    except ValueError:
        return False
    return True


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # doubtful but valid expressions are the writer's own affair
            return re.compile(pattern)
    except (re.error, RecursionError, OverflowError, ValueError) as error:
        raise ValueError(f"this is no regular expression: {error}; Escape what is meant literally with a backslash.") from error


def _known(name: str, fields: tuple[str, ...]) -> bool:
    if name.startswith("meta.") and "meta.KEY" in fields:
        return len(name) > len("meta.")
    return name in fields and name != "meta.KEY"


def _did_you_mean(name: str, fields: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, fields, 1)
    return f"Did you mean `{near[0]}`? " if near else ""


def _braced(fields: tuple[str, ...]) -> str:
    return " ".join(f"{{{field}}}" for field in fields)
