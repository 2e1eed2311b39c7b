"""What happens to a test whose server cannot be had: skipped with the reason, or failed where the server is required.

ENVBRIDGE_TEST_REQUIRE is `all` or a comma list of kinds (keys of `binaries.KINDS`) that must be there.
"""

from __future__ import annotations

import os

import pytest

from .binaries import KINDS, find
from .process import ServerUnavailable


def required(kind: str) -> bool:
    """Whether ENVBRIDGE_TEST_REQUIRE demands the kind."""
    named = {name.strip() for name in os.environ.get("ENVBRIDGE_TEST_REQUIRE", "").split(",")}
    return "all" in named or kind in named


def unavailable(kind: str, reason: str) -> None:
    """Skip the test, or fail it where the kind is required."""
    if required(kind):
        pytest.fail(f"{kind} is required (ENVBRIDGE_TEST_REQUIRE) but cannot be had: {reason}", pytrace=False)
    pytest.skip(f"{kind} cannot be had: {reason}")


def require(kind: str) -> None:
    """Skip or fail unless all programs of a kind (a key of `binaries.KINDS`) can be had; may build or install them."""
    for program in KINDS[kind]:
        try:
            find(program)
        except ServerUnavailable as error:
            reason = error.reason
        else:
            continue
        unavailable(kind, reason)
