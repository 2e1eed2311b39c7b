"""What plugin authors test with: a bridge in the process, and the suite every source must pass.

Subclass `SourceConformance` in a test module, give it a ``world`` fixture, and run pytest (with pytest-asyncio) over it.
"""

from bridge.testing.bridge import InProcessBridge, eventually
from bridge.testing.clock import ManualClock
from bridge.testing.conformance import (
    FailingWorld,
    HealthWorld,
    OutageConformance,
    PollSourceConformance,
    SourceConformance,
    World,
)

__all__ = [
    "FailingWorld",
    "HealthWorld",
    "InProcessBridge",
    "ManualClock",
    "OutageConformance",
    "PollSourceConformance",
    "SourceConformance",
    "World",
    "eventually",
]
