"""Every error this project raises on purpose.

BridgeError
  ConfigError            the configuration is wrong; carries every mistake at once
  SourceError            a source could not tell ("unknown"); nothing is removed because of it
    TransientError       refused, reset, timed out, throttled, 5xx, malformed: tried again   -> state `failed`
    ForbiddenError       401, 403: credentials are read anew, tried again slowly              -> state `forbidden`
    ContractError        a plugin broke its contract                                          -> state `failed`
  QueryError             a reader asked what cannot be answered: 400, names the parameter
  StoreError             the data directory cannot be used: locked, newer, of another environment
  ApiError               a bridge answered a client with an error
"""

from __future__ import annotations

from typing import NamedTuple


class BridgeError(Exception):
    """Base of all; its text is fit for an operator and holds no secret."""


class Mistake(NamedTuple):
    """One mistake in a configuration: where (``sources.web.refresh``), what is wrong, and what to do about it."""

    path: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}. {self.remedy}"


class ConfigError(BridgeError):
    """The configuration cannot be used; ``mistakes`` has all of them."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes


class SourceError(BridgeError):
    """A source could not tell. ``retry_after``: seconds the backend asked us to wait, or None."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TransientError(SourceError):
    """It may work the next time."""


class ForbiddenError(SourceError):
    """The backend knows us not, or denies us; the text names the missing right where it is known."""


class ContractError(SourceError):
    """A plugin yielded what its contract does not allow."""


class QueryError(BridgeError):
    """A request that cannot be answered. ``parameter`` is the one at fault, or None; ``status`` an HTTP status."""

    def __init__(self, detail: str, *, parameter: str | None = None, status: int = 400) -> None:
        super().__init__(detail)
        self.detail = detail
        self.parameter = parameter
        self.status = status


class StoreError(BridgeError):
    """The data directory cannot be used; the text names the remedy."""


class ApiError(BridgeError):
    """A bridge answered with an error. ``status``: the HTTP status, 0 when there was no answer."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
