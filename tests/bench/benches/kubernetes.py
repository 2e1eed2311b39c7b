"""`kubernetes`: 100,000 endpoints in 1,000 slices, from the list's bytes to a catalog that can be read.

Ours is the Kubernetes source behind HTTP (decoding and mapping) and the ingest. Reference: the official client, which makes
models of the same bytes, and nothing of these. Each repetition is a process of its own.
"""

from __future__ import annotations

from tests.bench import behind_http, cluster
from tests.bench.apart import apart
from tests.bench.goals import Goal
from tests.bench.session import Figures, Measure, Session
from tests.kit.servers.process import ServerUnavailable

NAME = "kubernetes"


def run(session: Session) -> None:
    """1,000 slices, 100 in a smoke test; then as many events of a watch, each with one endpoint of its slice changed."""
    slices, folder = session.scale(1_000, 100), session.folder()
    listed, events = folder / "list.json", folder / "events.json"
    size = listed.write_bytes(page(slices))
    events.write_bytes(lines(slices))
    session.say(f"{NAME}: {slices:,} slices, {size / 1e6:.1f} MB")

    def ours() -> Figures:
        return {**apart(behind_http.listing, listed, slices), **apart(behind_http.watching, listed, events, slices)}

    def theirs(_: str) -> Figures:
        return {**apart(behind_http.models_of_list, listed, slices), **apart(behind_http.models_of_events, events, slices)}

    session.compare(
        [
            Measure("seconds", f"{slices * cluster.SLICE:,} endpoints", "ms", Goal("ratio <= 0.06"), scale=1000),
            Measure("memory", "memory at the peak beyond the catalog", "MiB", Goal("ratio <= 0.1"), scale=2**-20),
            Measure("rate", f"watch events with {cluster.SLICE} endpoints", "events/s", Goal("ratio >= 30")),
            Measure("catalog", "the catalog itself", "MiB", scale=2**-20),
        ],
        ours,
        session.reference("official client", installed),
        theirs,
    )


def page(slices: int) -> bytes:
    """A list of slices."""
    head = b'{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1","metadata":{"resourceVersion":"1000"},"items":['
    return head + b",".join(cluster.slice_text(number) for number in range(slices)) + b"]}"


def lines(slices: int) -> bytes:
    """The lines of a watch that tells each slice anew."""
    head = b'{"type":"MODIFIED","object":{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1",'
    return b"".join(head + cluster.slice_text(number, moved=1).removeprefix(b"{") + b"}\n" for number in range(slices))


def installed() -> str:
    """The official client's version. Raises ServerUnavailable where it is not installed."""
    try:
        import kubernetes
    except ImportError as error:
        raise ServerUnavailable(f"the extra `kubernetes` is not installed: {error}") from error
    return str(kubernetes.__version__)
