"""Acting on AWS Cloud Map, or on a server that stands in for it, with boto3."""

from __future__ import annotations

from typing import Any

REGION = "eu-west-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
"""Environment variables with the credentials of nobody; a stand-in takes any."""


class CloudMap:
    """One region's Cloud Map behind an endpoint. Everything raises what boto3 raises."""

    def __init__(self, endpoint: str, region: str = REGION) -> None:
        import boto3
        from botocore.config import Config

        self._client = boto3.client(
            "servicediscovery",
            region_name=region,
            endpoint_url=endpoint,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            # The discover calls would else go to a host that nobody resolves: `data-` before the endpoint's.
            config=Config(inject_host_prefix=False, connect_timeout=5, read_timeout=10),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def namespace(self, name: str) -> str:
        """Make an HTTP namespace; its id."""
        self._client.create_http_namespace(Name=name)
        listed = self._client.list_namespaces()["Namespaces"]
        return next(str(item["Id"]) for item in listed if item["Name"] == name)

    def service(self, namespace: str, name: str, *, checked: bool = False) -> str:
        """Make a service in the namespace with that id, with custom health checks where ``checked``; its id."""
        checks: dict[str, Any] = {"HealthCheckCustomConfig": {"FailureThreshold": 1}} if checked else {}
        made = self._client.create_service(Name=name, NamespaceId=namespace, **checks)
        return str(made["Service"]["Id"])

    def register(self, service: str, instance: str, **attributes: str) -> None:
        """Register an instance."""
        self._client.register_instance(ServiceId=service, InstanceId=instance, Attributes=attributes)

    def deregister(self, service: str, instance: str) -> None:
        """Deregister an instance."""
        self._client.deregister_instance(ServiceId=service, InstanceId=instance)

    def set_healthy(self, service: str, instance: str, healthy: bool) -> None:
        """Tell an instance's health, for a service with custom health checks."""
        status = "HEALTHY" if healthy else "UNHEALTHY"
        self._client.update_instance_custom_health_status(ServiceId=service, InstanceId=instance, Status=status)
