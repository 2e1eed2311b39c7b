"""envbridge: a cross-environment service-discovery bridge.

What plugins may import is here, and in `bridge.contracts`, `bridge.model`, `bridge.errors`, `bridge.aio`, `bridge.testing`.
Each name's module is imported when the name is first asked for (PEP 562): a command that needs none of them starts without.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.contracts import (
        ConfigGlob,
        ConfigPath,
        Duration,
        PluginContext,
        PollHints,
        PollSource,
        ScopedSource,
        Source,
        SourceConfig,
    )
    from bridge.errors import BridgeError, ConfigError, ContractError, ForbiddenError, SourceError, TransientError
    from bridge.model import (
        Confirmed,
        Gone,
        InstanceGroup,
        Listing,
        Observation,
        Port,
        Rejected,
        ServiceInstance,
        ServiceName,
        covers,
    )

__version__ = "0.1.0"

__all__ = [
    "BridgeError",
    "ConfigError",
    "ConfigGlob",
    "ConfigPath",
    "Confirmed",
    "ContractError",
    "Duration",
    "ForbiddenError",
    "Gone",
    "InstanceGroup",
    "Listing",
    "Observation",
    "PluginContext",
    "PollHints",
    "PollSource",
    "Port",
    "Rejected",
    "ScopedSource",
    "ServiceInstance",
    "ServiceName",
    "Source",
    "SourceConfig",
    "SourceError",
    "TransientError",
    "__version__",
    "covers",
]

_MODULES = ("bridge.model", "bridge.errors", "bridge.contracts")
"""Where the names are from; pydantic comes with the last one."""

if not TYPE_CHECKING:  # a type checker would take every name for one that is here

    def __getattr__(name: str) -> object:
        if name in __all__:
            for module in map(import_module, _MODULES):
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
