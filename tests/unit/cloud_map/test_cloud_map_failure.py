"""What an exception of the SDK means."""

from __future__ import annotations

import pytest
from botocore import exceptions

from bridge.errors import ForbiddenError, SourceError, TransientError
from bridge_plugins.sources.cloud_map.failure import NotThereError, from_sdk


def answer(code: str, status: int = 400, message: str = "", operation: str = "DiscoverInstances", **headers: str) -> Exception:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}
    error: Exception = exceptions.ClientError(response, operation)
    return error


@pytest.mark.parametrize(
    ("error", "kind", "text", "retry_after"),
    [
        (answer("AccessDeniedException"), ForbiddenError, "servicediscovery:DiscoverInstances", None),
        (answer("AccessDenied", operation="AssumeRole"), ForbiddenError, "sts:AssumeRole", None),
        (answer("", 403), ForbiddenError, "servicediscovery:DiscoverInstances", None),
        (answer("401", 401), ForbiddenError, "servicediscovery:DiscoverInstances", None),
        (answer("UnrecognizedClientException"), ForbiddenError, "credentials", None),
        (answer("ExpiredTokenException"), ForbiddenError, "credentials", None),
        (answer("InvalidSignatureException"), ForbiddenError, "credentials", None),
        (exceptions.NoCredentialsError(), ForbiddenError, "credentials", None),
        (answer("RequestLimitExceeded"), TransientError, "throttled", 1.0),
        (answer("ThrottlingException", 400, **{"retry-after": "7"}), TransientError, "throttled", 7.0),
        (answer("429", 429), TransientError, "throttled", 1.0),
        (answer("500", 500), TransientError, "500", None),
        (answer("503", 503, **{"retry-after": "20"}), TransientError, "503", 20.0),
        (answer("404", 404), TransientError, "404", None),
        (answer("ServiceNotFound", 404, "srv"), NotThereError, "ServiceNotFound", None),
        (answer("NamespaceNotFound", 404, "ns"), NotThereError, "NamespaceNotFound", None),
        (exceptions.ReadTimeoutError(endpoint_url="http://192.0.2.1"), TransientError, "192.0.2.1", None),
        (exceptions.HTTPClientError(error="secret"), TransientError, "HTTPClientError", None),
    ],
)
def test_errors_are_told_apart(error: Exception, kind: type[SourceError], text: str, retry_after: float | None) -> None:
    found = from_sdk("DiscoverInstances", error)
    assert type(found) is kind
    assert text in str(found)
    assert found.retry_after == retry_after


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "AccessDenied", "InvalidSignatureException"])
def test_a_denial_never_repeats_what_the_backend_wrote(code: str) -> None:
    assert "token" not in str(from_sdk("ListServices", answer(code, 403, "x-amz-security-token:token")))


def test_untrusted_text_stays_on_one_line_and_short() -> None:
    text = str(from_sdk("ListServices", answer("ServiceNotFound", 404, "a\n\x1b[31m" + "b" * 500)))
    assert text.isprintable()
    assert len(text) < 150
