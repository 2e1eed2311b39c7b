"""Reads service instances from Kubernetes: EndpointSlices, Services and, where wanted, Nodes."""
