"""The configuration's JSON Schema, for editors and for the reference: our models, and those of the plugins put in their place."""

from __future__ import annotations

import contextlib
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bridge.contracts import SourceConfig, format_duration
from bridge.errors import ConfigError
from bridge.host.plugins import Registry

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def build_schema(model: type[BaseModel], registry: Registry) -> dict[str, Any]:
    """The schema of ``model`` whose ``sources`` are those of the registry that can be used here, told apart by ``type``."""
    classes = _usable(registry)
    references, whole = models_json_schema([(one, "validation") for one in (model, *classes.values())])
    definitions: dict[str, Any] = whole["$defs"]
    mapping = {name: references[cls, "validation"]["$ref"] for name, cls in classes.items()}
    root = definitions.pop(_name(references[model, "validation"]["$ref"]))
    for name, reference in mapping.items():
        _finish_source(definitions[_name(reference)], name)
    root["properties"]["sources"]["additionalProperties"] = (
        {
            "oneOf": [{"$ref": reference} for reference in mapping.values()],
            "discriminator": {"propertyName": "type", "mapping": mapping},
        }
        if mapping
        else False
    )
    definitions.pop(SourceConfig.__name__, None)
    _tidy([root, *definitions.values()])
    root["title"] = "envbridge"
    return {"$schema": _DIALECT, **root, "$defs": dict(sorted(definitions.items()))}


def _usable(registry: Registry) -> dict[str, type[SourceConfig]]:
    """The classes by type; without those that a configuration could not name either, as they cannot be imported."""
    classes: dict[str, type[SourceConfig]] = {}
    for name in registry.types("source"):
        with contextlib.suppress(ConfigError):
            classes[name] = registry.load("source", name)
    return classes


def _finish_source(definition: dict[str, Any], name: str) -> None:
    """``type`` decides which definition applies, so it must be there; a guard may also be switched off."""
    definition["required"] = ["type", *(key for key in definition.get("required", []) if key != "type")]
    properties = definition["properties"]
    description = properties["type"].get("description", f"The `{name}` plugin.")
    properties["type"] = {"const": name, "type": "string", "description": description}
    guard = next(one for one in properties["guard"]["anyOf"] if "$ref" in one)
    properties["guard"]["anyOf"] = [guard, {"enum": ["off", False]}]


def _tidy(definitions: list[dict[str, Any]]) -> None:
    """Defaults as people write them; none where it is a model, which has its own, or unset, which the description explains."""
    for definition in definitions:
        for field in definition.get("properties", {}).values():
            field.pop("title", None)
            default = field.get("default", 0)
            if default is None or isinstance(default, dict):
                del field["default"]
            elif isinstance(default, float) and (pattern := _pattern(field)):
                field["default"] = f"{default:.0%}" if "%" in pattern else format_duration(default)


def _pattern(field: dict[str, Any]) -> str:
    """The form that the field's text has; empty where it is no text, or free."""
    return next((str(one["pattern"]) for one in (field, *field.get("anyOf", ())) if "pattern" in one), "")


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]
