"""The supervisor: what it does after each failure, and that nothing a plugin does ends it or keeps it from ending."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from bridge.errors import ContractError, ForbiddenError, TransientError
from bridge.model import Confirmed
from bridge.sync import supervisor as module
from bridge.sync.backoff import Backoff
from tests.unit.sync import scripted
from tests.unit.sync.scripted import END, SOURCE, Backend, Impatient, Rig, group, listing

LISTED = listing(group("shop/a", "a1", "a2"))
DEFECTS = [ValueError("odd"), TimeoutError("its own"), asyncio.CancelledError(), ExceptionGroup("two", [KeyError("x")])]


def lines(caplog: pytest.LogCaptureFixture, message: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == message]


def states(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [getattr(record, "state", "") for record in lines(caplog, "source state changed")]


@asynccontextmanager
async def hanging() -> AsyncIterator[None]:
    await asyncio.Event().wait()
    yield


class TestBackoff:
    """How long it pauses."""

    @pytest.mark.parametrize(("failures", "most"), [(1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0), (6, 20.0), (40, 20.0)])
    def test_a_pause_is_anything_up_to_a_limit_that_doubles(self, failures: int, most: float) -> None:
        pauses = []
        for seed in range(300):
            backoff = Backoff(random=Random(seed))
            pauses.append([backoff.delay(TransientError("x")) for _ in range(failures)][-1])
        assert 0 <= min(pauses) < 0.1 * most
        assert 0.9 * most < max(pauses) <= most

    def test_a_denial_is_not_asked_again_soon(self) -> None:
        assert all(5.0 <= Backoff(random=Random(seed)).delay(ForbiddenError("no")) <= 10.0 for seed in range(100))

    @pytest.mark.parametrize(("asked", "least"), [(7.0, 7.0), (3600.0, 60.0)])
    def test_what_the_backend_asks_for_is_waited_for_up_to_a_minute(self, asked: float, least: float) -> None:
        assert least <= Backoff().delay(TransientError("slow down", retry_after=asked)) <= 60.0

    def test_once_it_works_the_next_failure_is_a_first_one(self) -> None:
        backoff = Backoff(random=Random(1))
        for _ in range(9):
            backoff.delay(TransientError("x"))
        backoff.reset()
        assert backoff.delay(TransientError("x")) <= 1.0


class TestWatching:
    """A `Source` that is watched."""

    async def test_a_listing_is_applied_and_changes_follow(self) -> None:
        backend = Backend("watch")
        backend.do(LISTED, (group("shop/b", "b1"), Confirmed()))
        async with Rig(backend) as rig:
            await rig.has("a1", "a2", "b1")
            assert rig.state == "synced"

    async def test_after_a_transient_failure_the_same_object_is_watched_again(self) -> None:
        backend = Backend("watch")
        backend.do(LISTED, TransientError("refused"))
        async with Rig(backend) as rig:
            await rig.is_("failed")
            assert rig.ids == {"a1", "a2"}
            opened = backend.opened
            for most in (1.0, 2.0, 4.0):
                backend.do(TransientError("refused"))
                assert await rig.pause() <= most
            backend.do(LISTED)
            await rig.pause()
            await rig.is_("synced")
            assert (backend.opened, backend.asked[""], backend.released[""]) == (opened, 5, 4)
            assert rig.failures == 4

    async def test_a_denied_source_is_opened_anew_so_that_credentials_are_read_again(self) -> None:
        backend = Backend("watch")
        backend.do(LISTED, ForbiddenError("401"))
        async with Rig(backend) as rig:
            await rig.is_("forbidden")
            opened = backend.opened
            assert backend.closed == opened
            assert await rig.pause() >= 5.0
            backend.do(LISTED)
            await rig.is_("synced")
            assert backend.opened == opened + 1
            assert rig.ids == {"a1", "a2"}

    @pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: type(defect).__name__)
    async def test_a_defect_never_ends_it_and_is_logged_once(
        self, defect: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        backend = Backend("watch")
        async with Rig(backend) as rig:
            for _ in range(3):
                backend.do(defect)
                await rig.is_("failed")
                await rig.pause()
            backend.do(LISTED)
            await rig.is_("synced")
            assert rig.ids == {"a1", "a2"}
            assert backend.opened - backend.closed == 1
        (line,) = lines(caplog, "source raised an unexpected error")
        assert line.exc_info is not None

    async def test_a_state_is_logged_when_it_changes_and_only_then(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        backend = Backend("watch")
        backend.do(LISTED)
        async with Rig(backend) as rig:
            await rig.is_("synced")
            for _ in range(3):
                backend.do(TransientError("refused"))
                await rig.is_("failed")
                await rig.pause()
            backend.do(LISTED, LISTED, Confirmed())
            await rig.is_("synced")
            await rig.rest()
        assert states(caplog) == ["starting", "synced", "failed", "synced"]

    async def test_silence_is_a_failure(self) -> None:
        backend = Backend("watch")
        backend.do(LISTED)
        async with Rig(backend, Impatient) as rig:
            await rig.is_("failed")
            assert "nothing was heard for 0.05 s" in str(rig.status.error)
            assert rig.ids == {"a1", "a2"}
            opened = backend.opened
            backend.do(LISTED)
            await rig.pause()
            await rig.is_("synced")
            assert backend.opened == opened

    async def test_silence_bounds_no_listing_under_way(self) -> None:
        backend = Backend("watch")
        async with Rig(backend, Impatient) as rig:
            await rig.until("a watch", lambda: backend.asked[""] == 1)
            await asyncio.sleep(3 * 0.05)  # the deadline itself is what is tried
            rig.supervisor.relist()
            backend.do(LISTED)
            await rig.has("a1", "a2")
            assert (backend.asked[""], rig.failures) == (1, 0)

    async def test_a_watch_that_ends_is_listed_anew_and_is_no_hot_loop(self) -> None:
        backend = Backend("watch")
        backend.do(LISTED, END, LISTED, END, LISTED, END)
        async with Rig(backend) as rig:
            for asked in (1, 2, 3):
                await rig.until("another watch", lambda asked=asked: backend.asked[""] == asked)  # type: ignore[misc]
                await rig.rest()
                assert backend.asked[""] == asked
                assert await rig.pause() == 1.0
            assert (rig.state, rig.failures, rig.ids) == ("synced", 0, {"a1", "a2"})

    async def test_it_lists_anew_when_asked(self) -> None:
        backend = Backend("watch")
        backend.do(LISTED)
        async with Rig(backend) as rig:
            await rig.has("a1", "a2")
            rig.clock.advance(60.0)
            rig.supervisor.relist()
            backend.do(listing(group("shop/a", "a1")))
            await rig.has("a1")
            assert (backend.asked[""], backend.released[""], rig.failures) == (2, 1, 0)

    @pytest.mark.parametrize(("refresh", "expected"), [(None, (270.0, 30.0)), (600.0, (600.0, 0.0))])
    async def test_it_lists_anew_every_few_minutes(self, refresh: float | None, expected: tuple[float, float]) -> None:
        backend = Backend("watch")
        backend.do(LISTED)
        async with Rig(backend, refresh=refresh) as rig:
            await rig.has("a1", "a2")
            ((name, (seconds, jitter, _)),) = rig.schedule.jobs.items()
            assert (name, seconds, jitter) == (f"relist {SOURCE}", *expected)
            rig.clock.advance(seconds)
            await rig.schedule.run(name)
            await rig.until("another watch", lambda: backend.asked[""] == 2)

    @pytest.mark.parametrize("refused", [listing(group("shop/a", "a1", "a2", "a3")), listing(unchanged=("shop/never",))])
    async def test_what_the_core_refuses_is_told_again_by_a_new_source(self, refused: object) -> None:
        backend = Backend("watch")
        backend.do(LISTED, refused)  # type: ignore[arg-type]
        async with Rig(backend, max_instances=2) as rig:
            await rig.is_("failed")
            assert rig.ids == {"a1", "a2"}
            assert backend.opened == backend.closed
            backend.do(LISTED)
            await rig.pause()
            await rig.is_("synced")
            assert backend.opened == backend.closed + 1

    async def test_a_long_healthy_watch_forgets_old_failures(self) -> None:
        backend = Backend("watch")
        async with Rig(backend) as rig:
            for _ in range(8):
                backend.do(TransientError("refused"))
                await rig.pause()
            backend.do(LISTED)
            await rig.is_("synced")
            rig.clock.advance(module.HEALTHY_AFTER + 1)
            backend.do(Confirmed(), TransientError("refused"))
            await rig.is_("failed")
            assert await rig.pause() <= 1.0


class TestScopes:
    """A `ScopedSource`: its parts fail alone."""

    async def test_one_denied_scope_leaves_the_others_alone(self) -> None:
        backend = Backend("scoped", ("shop", "pay"))
        backend.do(listing(group("shop/a", "a1"), scope="shop"), scope="shop")
        backend.do(listing(group("pay/b", "b1"), scope="pay"), ForbiddenError("pay is denied"), scope="pay")
        async with Rig(backend) as rig:
            await rig.is_("forbidden")
            await rig.has("a1", "b1")
            assert set(rig.status.errors) == {"pay"}
            backend.do(group("shop/a", "a1", "a2"), scope="shop")
            await rig.has("a1", "a2", "b1")
            assert rig.state == "forbidden"
            assert (backend.asked["shop"], backend.released["shop"]) == (1, 0)
            backend.do(listing(group("pay/b", "b2", "b1"), scope="pay"), scope="pay")
            await rig.pause()
            await rig.is_("synced")
            assert (backend.asked["shop"], backend.asked["pay"]) == (1, 2)

    async def test_every_scope_lists_anew_when_asked(self) -> None:
        backend = Backend("scoped", ("shop", "pay"))
        for scope in backend.scopes:
            backend.do(listing(scope=scope), scope=scope)
        async with Rig(backend) as rig:
            await rig.is_("synced")
            rig.clock.advance(60.0)
            backend.do(group("pay/b", "b1"), scope="pay")  # it has something to say just now
            rig.supervisor.relist()
            await rig.until("new watches", lambda: backend.asked == {"shop": 2, "pay": 2})
            assert rig.failures == 0

    async def test_a_source_that_could_not_be_opened_at_first_is_whole_once_it_is(self) -> None:
        backend = Backend("scoped", ("shop", "pay"))
        backend.opening = [None]
        for scope in backend.scopes:
            backend.do(listing(scope=scope), scope=scope)
        async with Rig(backend) as rig:
            await rig.is_("synced")
        backend.opening = [TransientError("no kubeconfig")]
        again = Rig(backend)
        again.ingest, again.partition = rig.ingest, rig.partition
        again.supervisor._ingest = rig.ingest  # as after a reload: the catalog knows its scopes
        async with again:
            await again.is_("failed")
            for scope in backend.scopes:
                backend.do(listing(scope=scope), scope=scope)
            await again.pause()
            await again.is_("synced")


class TestOpening:
    """`open` fails, hangs, or yields what is no source."""

    @pytest.mark.parametrize("failure", [TransientError("no file"), ForbiddenError("no right"), *DEFECTS])
    async def test_a_failure_to_open_is_the_state_of_the_source(self, failure: BaseException) -> None:
        backend = Backend("watch")
        backend.opening = [failure, failure]
        backend.do(LISTED)
        async with Rig(backend) as rig:
            for _ in range(2):
                await rig.is_("forbidden" if isinstance(failure, ForbiddenError) else "failed")
                assert not rig.status.read
                await rig.pause()
            await rig.is_("synced")

    async def test_it_does_not_wait_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "OPEN_DEADLINE", 0.05)
        backend = Backend("watch")
        monkeypatch.setattr(backend, "open", hanging)
        async with Rig(backend) as rig:
            await rig.is_("failed")
            assert "could not be opened within 0.05 s" in str(rig.status.error)

    async def test_what_is_no_source_breaks_the_contract(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = Backend("watch")
        monkeypatch.setitem(scripted._KINDS, "watch", lambda backend: object())
        async with Rig(backend) as rig:
            await rig.is_("failed")
            assert isinstance(rig.status.error, ContractError)


class TestPolling:
    """A `PollSource`, with and without hints."""

    async def test_it_polls_at_once_and_on_schedule(self) -> None:
        backend = Backend("poll")
        backend.do(LISTED)
        async with Rig(backend, refresh=7.0) as rig:
            await rig.has("a1", "a2")
            assert rig.schedule.jobs[f"poll {SOURCE}"][:2] == (7.0, 0.0)
            backend.do((group("shop/b", "b1"), Confirmed()))
            await rig.schedule.run(f"poll {SOURCE}")
            await rig.has("a1", "a2", "b1")
            assert backend.asked[""] == 2

    async def test_it_never_polls_twice_at_a_time(self) -> None:
        backend = Backend("poll")
        async with Rig(backend) as rig:
            await rig.until("the first poll", lambda: backend.asked[""] == 1)
            for _ in range(3):
                await rig.schedule.run(f"poll {SOURCE}")
            backend.do(LISTED)
            await rig.has("a1", "a2")
            await rig.rest()
            assert backend.asked[""] == 1

    async def test_a_failure_is_waited_out_and_the_object_stays(self) -> None:
        backend = Backend("poll")
        backend.do(LISTED, TransientError("refused", retry_after=30.0))
        async with Rig(backend) as rig:
            await rig.is_("synced")
            await rig.schedule.run(f"poll {SOURCE}")
            await rig.is_("failed")
            assert rig.ids == {"a1", "a2"}
            await rig.schedule.run(f"poll {SOURCE}")
            await rig.rest()
            assert backend.asked[""] == 2
            rig.clock.advance(31.0)
            backend.do(Confirmed())
            await rig.schedule.run(f"poll {SOURCE}")
            await rig.is_("synced")
            assert (backend.opened, rig.failures) == (1, 1)

    async def test_a_poll_that_hangs_is_a_failure(self) -> None:
        backend = Backend("poll")
        async with Rig(backend, Impatient) as rig:
            await rig.is_("failed")
            assert "did not answer within 0.05 s" in str(rig.status.error)
            assert backend.released[""] == 1
            rig.clock.advance(60.0)
            backend.do(LISTED)
            await rig.schedule.run(f"poll {SOURCE}")
            await rig.is_("synced")

    @pytest.mark.parametrize("step", [ForbiddenError("403"), *DEFECTS, listing(unchanged=("shop/never",))])
    async def test_any_other_failure_demands_a_new_source(self, step: BaseException) -> None:
        backend = Backend("poll")
        backend.do(LISTED, step)
        async with Rig(backend) as rig:
            await rig.is_("synced")
            await rig.schedule.run(f"poll {SOURCE}")
            await rig.until("the end of the old one", lambda: backend.closed == 1)
            assert rig.ids == {"a1", "a2"}
            assert not rig.schedule.jobs
            backend.do(LISTED)
            await rig.pause()
            await rig.is_("synced")
            assert backend.opened == 2

    async def test_hints_bring_polls_forward(self) -> None:
        backend = Backend("hinting")
        backend.do(LISTED)
        async with Rig(backend) as rig:
            await rig.has("a1", "a2")
            backend.hinted.put_nowait(0.3)
            await rig.until("a hint", lambda: rig.clock.sleeping)
            assert backend.asked[""] == 1
            assert await rig.pause() == pytest.approx(0.3)
            assert backend.asked[""] == 2
            backend.hinted.put_nowait(0.0)  # while it polls: what it hints at may have come too late for this poll
            await rig.pause()
            backend.do(Confirmed())
            await rig.until("a third poll", lambda: backend.asked[""] == 3)

    @pytest.mark.parametrize("step", [TransientError("stream broke"), END, *DEFECTS])
    async def test_hints_that_fail_cost_nothing_but_time(self, step: BaseException | str) -> None:
        backend = Backend("hinting")
        backend.do(LISTED)
        async with Rig(backend) as rig:
            await rig.has("a1", "a2")
            backend.hinted.put_nowait(step)
            await rig.until("a pause", lambda: rig.clock.sleeping)
            backend.do(Confirmed())
            await rig.schedule.run(f"poll {SOURCE}")
            await rig.until("a poll", lambda: backend.released[""] == 2)
            await rig.pause()
            await rig.until("new hints", lambda: backend.hearing == 2)
            assert (rig.state, backend.opened, rig.failures) == ("synced", 1, 0)


class TestPluginsWithTaskGroups:
    """Up to Python 3.12 a TaskGroup that failed leaves its task counted as cancelled; the supervisor must not mind."""

    @pytest.mark.parametrize("kind", ["watch", "poll"])
    async def test_it_goes_on_after_one_failed(self, kind: str) -> None:
        async def group_fails() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
                await asyncio.Event().wait()

        async def fail() -> None:
            raise ValueError("odd")

        backend = Backend(kind)  # type: ignore[arg-type]
        backend.before = group_fails
        async with Rig(backend) as rig:
            for _ in range(2):
                await rig.is_("failed")
                await rig.pause()
            backend.before = None
            backend.do(LISTED)
            await rig.pause()
            await rig.is_("synced")
            backend.do(asyncio.CancelledError())
            if kind == "poll":
                await rig.schedule.run(f"poll {SOURCE}")
            await rig.is_("failed")
            backend.do(LISTED)
            await rig.pause()
            await rig.is_("synced")


class TestCancellation:
    """A reload cancels it: it ends, whatever the plugin does, and nothing of it goes on."""

    @pytest.mark.parametrize("kind", ["watch", "scoped", "poll", "hinting"])
    async def test_everything_is_released(self, kind: str) -> None:
        before = asyncio.all_tasks()
        backend = Backend(kind)  # type: ignore[arg-type]
        backend.do(LISTED)
        async with Rig(backend) as rig:
            await rig.is_("synced")
            if kind in ("poll", "hinting"):
                await rig.schedule.run(f"poll {SOURCE}")
                await rig.until("a poll under way", lambda: backend.asked[""] == 2)
            await rig.cancel()
            assert (backend.opened, backend.asked) == (backend.closed, backend.released)
            assert not rig.schedule.jobs
            backend.do(listing())
            await rig.rest()
            assert rig.ids == {"a1", "a2"}
        assert asyncio.all_tasks() == before

    @pytest.mark.parametrize("kind", ["watch", "scoped", "poll", "hinting"])
    async def test_a_failure_on_the_way_out_does_not_keep_it(self, kind: str, caplog: pytest.LogCaptureFixture) -> None:
        async def fail() -> None:
            raise OSError("already closed")

        backend = Backend(kind)  # type: ignore[arg-type]
        backend.do(LISTED)
        async with Rig(backend) as rig:
            await rig.is_("synced")
            backend.leaving = backend.unwinding = fail
            await rig.cancel()
        assert lines(caplog, "source raised an unexpected error")

    async def test_a_slow_way_out_of_a_stalled_watch_does_not_swallow_it(self) -> None:
        gate = asyncio.Event()

        async def slow() -> None:
            await gate.wait()

        backend = Backend("watch")
        backend.do(LISTED)
        backend.unwinding = slow
        async with Rig(backend, Impatient) as rig:
            await rig.has("a1", "a2")
            await asyncio.sleep(0.1)  # the silence is over, and the watch is being left
            assert (rig.state, backend.released[""]) == ("synced", 0)
            await rig.cancel()
