"""Which answers are taken for Cloud Map's own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.errors import TransientError
from bridge_plugins.sources.cloud_map.api import Api
from bridge_plugins.sources.cloud_map.mapping import Namespace, Service

SERVICE = Service("srv-1", "web", Namespace("ns-1", "shop", "shop"), checked=False)
BODY = json.dumps({"InstancesRevision": 5}).encode()


class Client:
    """boto3's client as far as one call needs it: it hands over what came over the wire."""

    class meta:  # noqa: N801  # boto3's name
        region_name = "eu-west-1"

        class events:  # noqa: N801
            @staticmethod
            def register(event: str, handler: Any) -> None:
                Client.keep_body = staticmethod(handler)

    keep_body: Any

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def discover_instances_revision(self, **_: Any) -> dict[str, Any]:
        added: dict[str, Any] = {}
        Client.keep_body({"status_code": self.status, "body": self.body}, customized_response_dict=added)
        return {"ResponseMetadata": {"HTTPStatusCode": self.status, "HTTPHeaders": self.headers}} | added


def ask(status: int = 200, body: bytes = BODY, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Api(Client(status, named, body)).revision(SERVICE)


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-amz-json-1.1",
        "application/x-amz-json-1.0",
        "application/json",
        "Application/JSON; charset=utf-8",
        " application/x-amz-json-1.1 ; charset=utf-8",
    ],
)
def test_json_is_believed(kind: str) -> None:
    assert ask(content_type=kind) == 5
    assert ask(content_type=kind, content_length=str(len(BODY))) == 5


def test_an_emulators_answer_is_believed_by_its_request_id() -> None:
    assert ask(content_type="text/html; charset=utf-8", x_amzn_requestid="a1") == 5


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (200, {"content_type": "text/html"}, "'text/html', no JSON"),
        (200, {"content_type": "text/plain; x=application/json"}, "no JSON"),
        (200, {}, "'', no JSON"),
        (206, {"content_type": "application/x-amz-json-1.1"}, "206"),
        (203, {"content_type": "application/x-amz-json-1.1"}, "203"),
        (206, {"content_type": "text/html", "x_amzn_requestid": "a1"}, "206"),
        (200, {"content_type": "application/json", "content_length": "5000"}, f"{len(BODY)} of 5000 bytes"),
        (200, {"content_type": "application/json", "content_length": "9" * 99}, "bytes"),
    ],
)
def test_anything_else_is_no_answer(status: int, headers: dict[str, str], says: str) -> None:
    with pytest.raises(TransientError, match=says):
        ask(status, BODY, **headers)
