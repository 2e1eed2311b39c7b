"""Unknown is never empty: daemons whose every source meets a fault of its own, read from outside.

Each call of each adapter meets each fault twice: while the daemon runs, and in the first listing after it was killed. Nothing
that lives may go, and each source must either say that it cannot tell, or still be able to tell.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.faults.fault_cases import DENIALS, Case, every_case
from tests.kit.background import Background
from tests.kit.daemon import EVERYTHING, Daemon, by_ref
from tests.kit.readers import Blocker, Follower, Poller, Reader
from tests.kit.servers.process import wait_for

T = TypeVar("T")

PATIENCE = 60.0
STARTED_WITHIN = 180.0
OVER_WITHIN = 180.0
STANDS = 2.0
"""Seconds that a fault stands at least after its call was made: most are met several times."""
TELLING = ("failed", "forbidden", "stale")
PHASES = ("running", "starting")
CASES = tuple(every_case())
BATCHES = {"kubernetes": 40, "docker_swarm": 40, "cloud_map": 8, "file": 40}
"""How many sources of a type are opened at once; an AWS client costs a tenth of a second of the processor."""
TYPES = tuple(dict.fromkeys(case.type for case in CASES))
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass
class Seen:
    """What was seen of one source in one phase: states with their reason, most rejected, whether it saw a change.

    met: when its call was first found made, monotonic. healed: whether its fault is over.
    """

    case: Case
    states: dict[str, str] = field(default_factory=dict)
    rejected: int = 0
    changed: bool = False
    met: float | None = None
    healed: bool = False

    @property
    def settled(self) -> bool:
        """Whether it said that something is wrong, and what, or can tell what changed since; a denial is told as one.

        "failed" alone says nothing of a denial: the connections that were cut when it began fail, too.
        """
        telling = ("forbidden",) if self.case.fault in DENIALS else TELLING
        return self.changed or self.rejected > 0 or any(self.states.get(state) for state in telling)


class Bench:
    """The daemon of one adapter, and what came of each of its sources; ``seen`` by phase and source."""

    def __init__(self, type_: str, folder: Path, loop: Background) -> None:
        self.cases = {case.name: case for case in CASES if case.type == type_}
        folder.mkdir()
        self.sources = {name: {"type": type_, **case.open(folder, loop)} for name, case in self.cases.items()}
        self.batch = BATCHES[type_]
        self.daemon = Daemon(folder, {"sources": dict(islice(self.sources.items(), self.batch))}, env=CREDENTIALS)
        self.fewest = sum(len(case.living) for case in self.cases.values())
        self.readers: list[Reader] = []
        self.seen: dict[str, dict[str, Seen]] = {phase: {} for phase in PHASES}
        self.unrecovered: dict[str, dict[str, Any]] = {}
        self.kills = type_ != "cloud_map"

    def close(self) -> None:
        """End daemon and backends."""
        self.daemon.kill9()
        each(self.cases.values(), lambda case: case.close())

    def begin(self) -> None:
        """Start, and wait until every source has listed."""
        self.daemon.start(STARTED_WITHIN)
        for count in range(self.batch, len(self.cases) + self.batch, self.batch):
            self.daemon.reload({"sources": dict(islice(self.sources.items(), count))})
            wait_for("all sources synced", partial(self._synced, count), STARTED_WITHIN, 0.2)

    def read(self, stack: ExitStack) -> None:
        """Begin to read."""
        readers = (Follower(self.daemon), Blocker(self.daemon, rest=0.5), Poller(self.daemon, 1.0))
        self.readers = [stack.enter_context(reader) for reader in readers]

    def go_through(self, phase: str) -> None:
        """Break every case, heal each when it has told, and wait until all are well; at the deadline, heal what is left."""
        self.seen[phase] = {name: Seen(case) for name, case in self.cases.items()}
        if phase == "starting":
            self._end()
        each(self.cases.values(), lambda case: case.break_())
        if phase == "starting":
            self._start_over()
        with contextlib.suppress(TimeoutError):  # told by the tests, case by case
            wait_for("the end of the faults", partial(self._is_over, phase), OVER_WITHIN, 0.3)
        each((seen.case for seen in self.seen[phase].values() if not seen.healed), lambda case: case.heal())
        self.unrecovered |= self._wanting()

    def _end(self) -> None:
        """Kill the daemon, where it can start again with all its sources at once."""
        if self.kills:
            self.daemon.kill9()

    def _start_over(self) -> None:
        """Start the killed daemon; or have it open every source anew, where too many at once would be too slow."""
        if self.kills:
            self.daemon.start(STARTED_WITHIN)
            return
        names = list(self.sources)
        for first in range(0, len(names), self.batch):
            for name in names[first : first + self.batch]:
                self.sources[name]["fresh_for"] = "40s"
            self.daemon.reload({"sources": self.sources})
            assert self.daemon.get("/healthz", timeout=PATIENCE).status == 200

    def _is_over(self, phase: str) -> bool:
        """Look once, and heal what has told why it cannot tell, or shows a change that was made after it met its fault."""
        met = {name for name, case in self.cases.items() if case.met or (phase == "starting" and not case.asked_at_start)}
        instances, documents = self._instances(), self._documents()
        over = []
        for name, seen in self.seen[phase].items():
            if seen.met is None:
                if name in met:  # what it says is looked at the next time: now it may not know yet
                    seen.met = time.monotonic()
                    seen.case.change()
            elif not seen.healed and (document := documents.get(name)):
                seen.changed |= seen.case.newest in instances
                seen.states.setdefault(document["state"], document["last_error"])
                seen.rejected = max(seen.rejected, document["rejected"])
                if seen.settled and time.monotonic() - seen.met >= STANDS:
                    over.append(seen)
        each((seen.case for seen in over), lambda case: case.heal())
        for seen in over:
            seen.healed = True
        return all(seen.healed for seen in self.seen[phase].values()) and not self._wanting()

    def _wanting(self) -> dict[str, dict[str, Any]]:
        """The sources that are not synced, not free of complaints (unless that takes long), or not complete."""
        instances = self._instances()
        return {
            name: document
            for name, document in self._documents().items()
            if document["state"] != "synced"
            or not (self.cases[name].late or (document["rejected"], document["last_error"]) == (0, None))
            or not instances >= self.cases[name].living
        }

    def _synced(self, count: int) -> bool:
        return len(self._documents()) >= min(count, len(self.cases)) and not self._wanting()

    def _instances(self) -> Set[str]:
        """Refs; none before any source was read."""
        reply = self.daemon.get("/v1/instances", timeout=PATIENCE, **EVERYTHING)
        assert reply.status in (200, 503), reply
        return by_ref(reply.body["instances"]).keys() if reply.status == 200 else set()

    def _documents(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.daemon.get("/v1/environments", timeout=PATIENCE).body[0]["sources"]}


def each(of: Iterable[T], act: Callable[[T], object]) -> None:
    """Do something with each at once: some wait, for their threads to end or for a daemon."""
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(act, of))


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Bench]]:
    """Every case at once: faults while the daemons run, all well again, then faults while they start, all well again."""
    folder = tmp_path_factory.mktemp("unknown")
    with ExitStack() as stack:
        loop = stack.enter_context(Background())
        benches: dict[str, Bench] = {}
        for type_ in TYPES:
            benches[type_] = Bench(type_, folder / type_, loop)
            stack.callback(benches[type_].close)
        each(benches.values(), Bench.begin)
        for bench in benches.values():
            bench.read(stack)
        for phase in PHASES:
            each(benches.values(), partial(Bench.go_through, phase=phase))
        yield benches


@pytest.mark.parametrize("type_", TYPES)
def test_readers_lose_nothing_and_see_no_thinner_answer(benches: dict[str, Bench], type_: str) -> None:
    for reader in benches[type_].readers:
        reader.check()
        assert reader.thinnest == benches[type_].fewest


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_is_told_or_overcome_and_passes(benches: dict[str, Bench], case: Case) -> None:
    bench = benches[case.type]
    lost = {removal.ref for reader in bench.readers for removal in reader.removals}
    assert not lost & case.living
    for phase in PHASES:
        seen = bench.seen[phase][case.name]
        assert seen.met is not None, f"{phase}: the call was not made"
        assert seen.settled, (phase, seen)
    assert case.name not in bench.unrecovered, bench.unrecovered[case.name]


@pytest.mark.parametrize("type_", TYPES)
def test_the_log_has_a_line_for_each_change_of_state_and_none_for_each_failure(benches: dict[str, Bench], type_: str) -> None:
    state: dict[str, str] = {}
    for line in benches[type_].daemon.log():
        assert "stack" not in line, line
        if line["event"] == "started":
            state.clear()
        if line["event"] == "source state changed":
            assert state.get(line["source"]) != line["state"], line
            state[line["source"]] = line["state"]
