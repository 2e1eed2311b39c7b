"""`persist`: rows that follow the catalog to disk, 100,000 of them present.

Ours is the daemon's write-behind store: groups of a hundred instances change faster than they can be written, until every row
was written once. Reference: `sqlite3` writes the same rows, ready made, with `executemany` in transactions of 100. Meanwhile the
event loop must come to each millisecond of a kernel's timer in time; how late it is while 10,000 rows/s come in is shown too.
There is no load, so that either has both cores: that the loop is not held up is what the store has a thread for. Beside our lag
stands that of a loop that does nothing while a thread writes with `executemany`: less no thread can do on the machine at hand.
"""

from __future__ import annotations

from tests.bench import cluster, writing
from tests.bench.apart import apart
from tests.bench.goals import Goal
from tests.bench.session import Measure, Session

NAME = "persist"


def run(session: Session) -> None:
    """100,000 rows, 10,000 in a smoke test; each repetition has a database and a process of its own."""
    rows, prepared = session.scale(100_000, 10_000), session.folder()
    cores = (session.cores.server, session.cores.load)
    size = apart(writing.prepare, prepared, rows)
    session.say(f"{NAME}: {rows:,} rows in groups of {cluster.SLICE}, a database of {size / 1e6:.1f} MB")
    session.compare(
        [
            Measure("rate", f"rows written, {rows:,} present", "rows/s", Goal("ratio >= 0.8")),
            Measure("lag", "loop lag meanwhile, p99", "ms", Goal("ours <= 1"), scale=1000),
            Measure("worst", "loop lag meanwhile, longest", "ms", scale=1000),
            Measure("steady", "loop lag at 10,000 rows/s, p99", "ms", scale=1000),
        ],
        lambda: apart(writing.ours, session.folder(), rows, cores),
        session.reference(f"executemany, {writing.TRANSACTION} rows each", lambda: prepared),
        lambda prepared: apart(writing.theirs, prepared, session.folder(), cores),
    )
