"""``${NAME}`` and ``${NAME:-default}`` in the values of a configuration; ``$${`` stands for a literal ``${``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bridge.errors import Mistake
from bridge.host.mistakes import Path, render

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\}|\$\{")


def interpolate(data: Any, env: Mapping[str, str]) -> tuple[Any, list[Mistake]]:
    """The data with the references in its text values filled in, and a mistake for each that cannot be.

    A default stands for a variable that is unset or empty, as in a shell. What a variable holds is not looked at again.
    """
    mistakes: list[Mistake] = []
    return _fill(data, env, (), mistakes), mistakes


def _fill(value: Any, env: Mapping[str, str], path: Path, mistakes: list[Mistake]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, env, (*path, key), mistakes) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, env, (*path, index), mistakes) for index, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if match[0] == "$${":
            return "${"
        if name is None:
            remedy = "Write ${NAME} or ${NAME:-default}; $${ stands for a literal ${."
            mistakes.append(Mistake(render(path), "a `${` is not followed by a variable's name and `}`", remedy))
            return ""
        if default is not None:
            return env.get(name) or default[2:]
        if name not in env:
            remedy = f"Set it, or write ${{{name}:-default}}."
            mistakes.append(Mistake(render(path), f"the environment variable {name} is not set", remedy))
            return ""
        return env[name]

    return _REFERENCE.sub(replace, value)
