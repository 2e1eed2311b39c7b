"""What an SDK's exception means: denied, try again, or the backend saying that there is no such thing.

Texts name operation and code. What the backend wrote is quoted only where it cannot be about credentials: the answer to a
wrong signature repeats signed headers, a session token among them.
"""

from __future__ import annotations

from typing import Any

from botocore import exceptions

from bridge.errors import ForbiddenError, SourceError, TransientError
from bridge_plugins.sources.cloud_map.mapping import show

THROTTLED_FOR = 1.0
"""Seconds to stay away after throttling that does not say how long."""

_NOT_FOUND = frozenset(("ServiceNotFound", "NamespaceNotFound"))
_THROTTLED = frozenset(
    ("RequestLimitExceeded", "ThrottlingException", "Throttling", "TooManyRequestsException", "RequestThrottled", "429")
)
_DENIED = frozenset(("AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedOperation", "401", "403"))
_CREDENTIALS = frozenset(
    (
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignature",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClient",
        "UnrecognizedClientException",
    )
)
_NO_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.UnauthorizedSSOTokenError,
    exceptions.SSOTokenLoadError,
    exceptions.TokenRetrievalError,
)
_SPEAKING = (  # their texts name an endpoint, a profile or a setting, never a secret
    exceptions.EndpointConnectionError,
    exceptions.ConnectTimeoutError,
    exceptions.ReadTimeoutError,
    exceptions.ConnectionClosedError,
    exceptions.ProfileNotFound,
    exceptions.NoRegionError,
    exceptions.SSLError,
)


class NotThereError(TransientError):
    """The backend knows no such service or namespace. Believed after it was looked for."""


def from_sdk(operation: str, error: Exception) -> SourceError:
    """The error to report for what ``operation`` (``DiscoverInstances``) raised."""
    if isinstance(error, exceptions.ClientError):
        return _from_answer(operation, error)
    if isinstance(error, _NO_CREDENTIALS):
        return ForbiddenError(f"no usable AWS credentials ({type(error).__name__})")
    if isinstance(error, _SPEAKING):
        return TransientError(f"{operation}: {' '.join(str(error).split())}")
    return TransientError(f"{operation}: {type(error).__name__}")


def _from_answer(operation: str, error: exceptions.ClientError) -> SourceError:
    operation = getattr(error, "operation_name", None) or operation  # credentials may be what failed: AssumeRole
    action = f"{'sts' if operation.startswith('Assume') else 'servicediscovery'}:{operation}"
    detail, metadata = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    code, status = str(detail.get("Code") or ""), metadata.get("HTTPStatusCode")
    after = _retry_after(metadata.get("HTTPHeaders", {}))
    named = f"{operation}: {show(code)[1:-1]}"
    if code in _THROTTLED or status == 429:
        return TransientError(f"{named}, throttled", retry_after=THROTTLED_FOR if after is None else after)
    if code in _CREDENTIALS:
        return ForbiddenError(f"{named}: the AWS credentials are wrong or have expired")
    if code in _DENIED or status in (401, 403):
        return ForbiddenError(f"{named}: the IAM action {action} is not allowed")
    if code in _NOT_FOUND:
        return NotThereError(f"{named}: {show(detail.get('Message'))}")
    return TransientError(f"{named} (HTTP {status})", retry_after=after)


def _retry_after(headers: Any) -> float | None:
    """``Retry-After`` in seconds, at most five minutes (RFC 9110, 10.2.3); dates are not honoured."""
    text = headers.get("retry-after") if isinstance(headers, dict) else None
    return min(float(text), 300.0) if isinstance(text, str) and text.isascii() and text.isdigit() else None
