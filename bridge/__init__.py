"""envbridge: a cross-environment service-discovery bridge.

What plugins may import is here, and in `bridge.contracts`, `bridge.model`, `bridge.errors`, `bridge.aio`, `bridge.testing`.
"""

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
