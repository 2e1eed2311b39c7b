"""The calls, blocking, one attempt each. Everything raises a `SourceError`; retrying is the core's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from bridge.errors import ForbiddenError, TransientError
from bridge_plugins.sources.cloud_map import mapping
from bridge_plugins.sources.cloud_map.failure import from_sdk
from bridge_plugins.sources.cloud_map.mapping import Discovered, Found, MalformedError, Namespace, Service

CONNECT_TIMEOUT = 2.0
READ_TIMEOUT = 4.0
MAX_PAGES = 1000

_BODY = "EnvbridgeBody"
_JSON = ("application/x-amz-json", "application/json")
_REQUEST_ID = "x-amzn-requestid"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach Cloud Map; None leaves it to the SDK (environment, profile, instance role)."""

    region: str | None = None
    profile: str | None = None
    role_arn: str | None = None
    endpoint_url: str | None = None
    proxy: str | None = None
    ca_file: str | None = None
    connections: int = 10


class Api:
    """Cloud Map's read calls. Safe to use from several threads at once, as boto3's clients are."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.region: str | None = client.meta.region_name
        # boto3's parser gives up a whole answer for one value of a wrong type, and takes a proxy's page for an empty one.
        client.meta.events.register("before-parse.servicediscovery", _keep_body)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def namespaces(self) -> Found:
        """All namespaces: every page or none."""
        return mapping.read_namespaces(self._pages("ListNamespaces", "Namespaces", self._client.list_namespaces))

    def services(self, namespace: Namespace) -> Found:
        """All services of a namespace. The filter applies after paging, so pages may be empty and yet not the last."""
        filters = [{"Name": "NAMESPACE_ID", "Values": [namespace.id], "Condition": "EQ"}]
        return mapping.read_services(
            self._pages("ListServices", "Services", self._client.list_services, Filters=filters), namespace
        )

    def revision(self, service: Service) -> int:
        """The revision of the service's registrations. It tells nothing of health."""
        answer = _call("DiscoverInstancesRevision", self._client.discover_instances_revision, **_names(service))
        return _read("DiscoverInstancesRevision", lambda: mapping.revision(answer))

    def instances(self, service: Service) -> tuple[Discovered, int | None]:
        """Its instances, whatever their health, and the revision they are of, where the answer says it."""
        answer = _call(
            "DiscoverInstances",
            self._client.discover_instances,
            HealthStatus="ALL",
            MaxResults=mapping.MAX_RESULTS,
            **_names(service),
        )
        objects, token = _read("DiscoverInstances", lambda: mapping.page(answer, "Instances"))
        if token is not None:  # it has no pages, so nobody can ask for the rest
            raise TransientError("DiscoverInstances: the answer says that there is more")
        number = answer.get("InstancesRevision")
        return mapping.read_instances(objects, service, self.region), number if type(number) is int else None

    def instance_ids(self, service: Service) -> frozenset[str]:
        """The ids of all its registrations, from the control plane, which has pages."""
        objects = self._pages("ListInstances", "Instances", self._client.list_instances, ServiceId=service.id)
        return frozenset(f"{service.id}/{entry.get('Id')}" for entry in objects if isinstance(entry, dict))

    def _pages(self, operation: str, member: str, call: Callable[..., Any], **arguments: Any) -> list[Any]:
        objects: list[Any] = []
        seen: set[str] = set()
        token: str | None = None
        while True:
            answer = _call(operation, call, **arguments, **({"NextToken": token} if token else {}))
            more, token = _read(operation, lambda answer=answer: mapping.page(answer, member))  # type: ignore[misc]
            objects += more
            if token is None:
                return objects
            if token in seen or len(seen) >= MAX_PAGES:
                raise TransientError(f"{operation}: its pages do not end")
            seen.add(token)


def connect(access: Access) -> Api:
    """Build the client. Blocks: reads files, and may ask the instance's metadata service for credentials.

    Raises TransientError or ForbiddenError.
    """
    try:
        return Api(_client(access))
    except (BotoCoreError, ClientError) as error:
        raise from_sdk("the AWS client cannot be built", error) from None
    except ValueError as error:
        raise TransientError(f"the AWS client cannot be built: {type(error).__name__} in region or endpoint_url") from error


def _client(access: Access) -> Any:
    import boto3
    import botocore.session
    from botocore.config import Config

    settings: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "tcp_keepalive": True,
        "user_agent_extra": "envbridge",
    }
    if access.proxy is not None:
        settings["proxies"] = {"http": access.proxy, "https": access.proxy}
    session = botocore.session.Session(profile=access.profile)
    if access.role_arn is not None:
        session = _assume(session, access, Config(**settings))
    settings["max_pool_connections"] = access.connections
    if access.endpoint_url is not None:
        settings["inject_host_prefix"] = False  # else `data-` is put before its host, which nobody resolves
    return boto3.Session(botocore_session=session).client(
        "servicediscovery",
        region_name=access.region,
        endpoint_url=access.endpoint_url,
        verify=access.ca_file,
        config=Config(**settings),
    )


def _assume(session: Any, access: Access, config: Any) -> Any:
    """A session whose credentials are those of the role, fetched when needed and renewed before they end."""
    import botocore.session
    from botocore.credentials import AssumeRoleCredentialFetcher, CredentialProvider, CredentialResolver
    from botocore.credentials import DeferredRefreshableCredentials as Refreshable

    source = session.get_credentials()
    if source is None:
        raise ForbiddenError(f"no AWS credentials were found to assume {access.role_arn} with")

    def sts(name: str, **arguments: Any) -> Any:
        verify = access.ca_file
        return session.create_client(name, region_name=access.region, config=config, verify=verify, **arguments)

    fetcher = AssumeRoleCredentialFetcher(
        client_creator=sts,
        source_credentials=source,
        role_arn=access.role_arn,
        extra_args={"RoleSessionName": "envbridge"},
    )

    class Role(CredentialProvider):  # type: ignore[misc]  # botocore has no types
        METHOD = "assume-role"

        def load(self) -> Any:
            return Refreshable(method=self.METHOD, refresh_using=fetcher.fetch_credentials)

    assumed = botocore.session.Session(profile=access.profile)
    assumed.register_component("credential_provider", CredentialResolver([Role()]))
    return assumed


def _names(service: Service) -> dict[str, str]:
    return {"NamespaceName": service.namespace.http_name, "ServiceName": service.name}


def _call(operation: str, call: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    """One call's answer, decoded and untyped."""
    try:
        response = call(**arguments)
        body, metadata = response[_BODY], response["ResponseMetadata"]
        doubt = _doubt(metadata["HTTPStatusCode"], metadata["HTTPHeaders"], len(body))
    except (BotoCoreError, ClientError) as error:
        raise from_sdk(operation, error) from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # its parser, on an error that has no error's shape
        raise TransientError(f"{operation}: the answer cannot be read ({type(error).__name__})") from None
    if doubt is not None:
        raise TransientError(f"{operation}: {doubt}")
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise TransientError(f"{operation}: the answer is no JSON") from None
    if not isinstance(answer, dict):
        raise TransientError(f"{operation}: the answer is {mapping.show(answer)}, no object")
    return answer


def _doubt(status: int, headers: Mapping[str, str], size: int) -> str | None:
    """Why a successful answer may not be Cloud Map's, or not all of it; None where nothing speaks against it.

    Proxies and captive portals answer too. Cloud Map's answers are ``application/x-amz-json-1.1``; an emulator (moto) may call
    its own ``text/html``, and yet gives each a request id as AWS does.
    """
    if status != 200:
        return f"the answer is a {status}, no 200"
    kind, length = headers.get("content-type", ""), headers.get("content-length", "")
    if not kind.strip().lower().startswith(_JSON) and _REQUEST_ID not in headers:
        return f"the answer is {mapping.show(kind)}, no JSON"
    if length.isascii() and length.isdigit() and int(length[:20]) != size:
        return f"the answer has {size} of {length[:20]} bytes"
    return None


def _read(operation: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except MalformedError as error:
        raise TransientError(f"{operation}: {error}") from None


def _keep_body(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Hand a successful answer over as it is, and an empty one to boto3's parser."""
    if response_dict["status_code"] < 300:
        customized_response_dict[_BODY] = response_dict["body"]
        response_dict["body"] = b"{}"
