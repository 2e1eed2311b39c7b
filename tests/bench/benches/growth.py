"""`growth`: what a change, an instance and a waiting reader cost as there are more of them.

A catalog of each size in a process of its own, as in `change`, and the daemon with blocked readers, as in `wait`. What costs the
same however many there are is a level line; the dearer first points of a line are what is shared among few.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.bench import cluster
from tests.bench.apart import apart, resident
from tests.bench.benches.wait import Cluster
from tests.bench.loaded import Bridges
from tests.bench.session import Figures, Session
from tests.kit.background import Background

NAME = "growth"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
READERS = (100, 1_000, 10_000)
CHANGES = 300

Points = list[tuple[float, float]]


def run(session: Session) -> None:
    """1,000 to 1,000,000 instances and 100 to 10,000 readers; up to 10,000 and 1,000 in a smoke test. Each measured once."""
    sizes, readers = (SIZES[:2], READERS[:2]) if session.quick else (SIZES, READERS)
    catalogs = {size: apart(catalog, size, session.scale(CHANGES, 50)) for size in sizes}
    waits = _waits(session, readers)
    costs = {"envbridge, to the reader": _line(catalogs, "change", 1e6), "without a reader": _line(catalogs, "unread", 1e6)}
    session.curve("cost of a change", x="instances", unit="\u00b5s", lines=costs)
    session.curve("the catalog's memory per instance", x="instances", unit="B", lines={"envbridge": _line(catalogs, "memory")})
    each = {"envbridge": _line(waits, "each", 1e6), "processor time, the change included": _line(waits, "cpu", 1e6)}
    session.curve("wake-up per reader", x="readers", unit="\u00b5s", lines=each)
    session.curve("memory per reader", x="readers", unit="KiB", lines={"envbridge": _line(waits, "memory", 1 / 1024)})


def catalog(instances: int, changes: int) -> Figures:
    """A catalog in this process: bytes per instance, and seconds of a change, with and without a reader."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        with Bridges(Path(folder) / "small", [cluster.SLICE]):
            before = resident()  # with everything imported, and what is made once
        with Bridges(Path(folder) / "measured", [instances]) as bridges:
            memory = (resident() - before) / instances
            bridges.changes(changes // 10, seed=0)
            [read], [unread] = bridges.changes(changes, seed=1), bridges.changes(changes, seed=2, read=False)
    return {"memory": memory, "change": median(read), "unread": median(unread)}


def _waits(session: Session, readers: Sequence[int]) -> dict[int, Figures]:
    """One change for so many blocked readers; ``each``: seconds from one reader's answer to the next one's."""
    found: dict[int, Figures] = {}
    source = Cluster(session.enter(Background()), session.folder())
    with source:
        for count in readers:
            figures = source.measure(session, count)
            found[count] = {**figures, "each": (figures["last"] - figures["first"]) / (count - 1)}
    return found


def _line(figures: dict[int, Figures], key: str, scale: float = 1.0) -> Points:
    return [(count, measured[key] * scale) for count, measured in figures.items()]
