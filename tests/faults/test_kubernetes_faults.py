"""Each call of the Kubernetes source meets each fault: nothing that lives is lost, and the next attempt is whole again."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.aio import SystemClock
from bridge.contracts import PluginContext
from bridge.errors import ForbiddenError, SourceError, TransientError
from bridge.model import Confirmed, Gone, InstanceGroup, Listing, Observation
from bridge_plugins.sources.kubernetes.config import KubernetesConfig
from bridge_plugins.sources.kubernetes.source import KubernetesSource
from tests.kit.fakes import kubeobjects as objects
from tests.kit.fakes.kubernetes import FAULTS, FakeKubernetes, Fault
from tests.kit.ledger import Ledger

DEADLINE = 8.0
SHORT = {"request_timeout": "400ms", "silence": "400ms"}
PAGED_CALLS = (
    "list nodes",
    "list services",
    "list services page 2",
    "list endpointslices",
    "list endpointslices page 2",
    "list endpointslices page 3",
    "watch nodes",
    "watch services",
    "watch endpointslices",
)
STREAMED_CALLS = ("stream nodes", "stream services", "stream endpointslices")
FOR_WATCHES_ONLY = ("410 event", "500 event")
FOR_LISTS_ONLY = ("wrong kind", "mixed pages")
LIVING = {f"shop/s{service}/uid-p{service}-{pod}" for service in range(3) for pod in range(3)}


@asynccontextmanager
async def opened(api: FakeKubernetes, folder: Path, **keys: Any) -> AsyncIterator[tuple[KubernetesSource, Counter[str], Path]]:
    """A source on the fake, what it counts, and its kubeconfig."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(api.kubeconfig())
    config = KubernetesConfig.model_validate({"type": "kubernetes", "kubeconfig": str(kubeconfig), **SHORT, **keys})
    counts: Counter[str] = Counter()

    def count(event: str, amount: int = 1) -> None:
        counts[event] += amount

    context = PluginContext("test", "cluster", logging.getLogger("test"), SystemClock(), count)
    async with config.open(context) as source:
        yield source, counts, kubeconfig


def populate(api: FakeKubernetes) -> None:
    """Three Services of three pods, two Nodes; each list but that of Nodes takes two pages of two, or three."""
    api.put("nodes", objects.node("n1"), objects.node("n2"))
    for service in range(3):
        api.put("services", objects.service(f"s{service}"))
        for pod in range(3):
            address = objects.endpoint(f"10.0.{service}.{pod}", f"p{service}-{pod}")
            api.put("endpointslices", objects.endpointslice(f"s{service}-{pod}", f"s{service}", [address]))


async def follow(
    source: KubernetesSource, ledger: Ledger, until: Callable[[Ledger], bool] = lambda _: False, scope: str = ""
) -> SourceError | None:
    """Apply what a scope yields until ``until`` holds, or it ends or fails; returns the failure."""
    async with asyncio.timeout(DEADLINE), aclosing(source.watch_scope(scope)) as observations:
        try:
            async for observation in observations:
                ledger.apply(observation)
                assert not ledger.ids or ledger.ids >= LIVING, "a living instance was lost"
                if until(ledger):
                    return None
        except SourceError as error:
            return error
    return None


def listed(ledger: Ledger) -> bool:
    return ledger.listings > 0


def listings(times: int) -> Callable[[Ledger], bool]:
    return lambda ledger: ledger.listings >= times


def confirmed(times: int) -> Callable[[Ledger], bool]:
    return lambda ledger: ledger.confirmed >= times


def faults_of(call: str) -> list[Fault]:
    unfit = FOR_WATCHES_ONLY if call.startswith("list") else FOR_LISTS_ONLY
    return [fault for fault in FAULTS if fault not in unfit and (fault != "mixed pages" or "page" in call)]


CASES = [(call, fault) for call in PAGED_CALLS + STREAMED_CALLS for fault in faults_of(call)]


@pytest.mark.parametrize(("call", "fault"), CASES)
async def test_a_fault_in_a_call_loses_nothing_and_passes(call: str, fault: Fault, tmp_path: Path) -> None:
    async with FakeKubernetes(streaming=call.startswith("stream"), page_size=4 if "services" not in call else 2) as api:
        populate(api)
        async with opened(api, tmp_path, nodes=True) as (source, _, _):
            ledger = Ledger()
            assert await follow(source, ledger, listed) is None
            assert ledger.ids == LIVING

            api.fail(call, fault, times=2 if fault in ("401", "403") else 1)
            before = ledger.confirmed
            failure = await follow(source, ledger, confirmed(before + 2))
            assert failure is not None or ledger.rejected or ledger.unknown or overcome(call, fault)
            if fault == "403" and failure is not None:
                assert isinstance(failure, ForbiddenError)
                assert call.split(" ")[1] in str(failure)

            await api.heal()
            settled = ledger.listings
            assert await follow(source, ledger, lambda now: now.listings > settled) is None
            assert (ledger.ids, ledger.unknown, ledger.rejected) == (LIVING, [], {})


def overcome(call: str, fault: Fault) -> bool:
    """Where the source helps itself: another kind of list, the list once more, a new listing at once, another character."""
    if fault == "half a pair" or call.startswith("stream") or (fault == "hang" and call.startswith("watch")):
        return True
    return fault in ("400", "410", "mixed pages") or (fault == "410 event" and call.startswith("watch"))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_first_listing_never_says_less_than_is_there(fault: Fault, streaming: bool, tmp_path: Path) -> None:
    async with FakeKubernetes(streaming=streaming, page_size=4) as api:
        populate(api)
        api.fail("stream endpointslices" if streaming else "list endpointslices page 2", fault, times=2)
        async with opened(api, tmp_path, nodes=True) as (source, _, _):
            async with asyncio.timeout(DEADLINE), aclosing(source.watch_scope("")) as observations:
                try:
                    first = await anext(observations)
                except SourceError:
                    return
            assert isinstance(first, Listing)
            ids = {instance.id for group in first.groups for instance in group.instances}
            assert ids == LIVING or first.unknown or first.rejected


async def test_a_dead_server_is_unknown_and_comes_back_with_what_changed(tmp_path: Path) -> None:
    async with FakeKubernetes(page_size=4) as api:
        populate(api)
        async with opened(api, tmp_path) as (source, _, _):
            ledger = Ledger()
            await follow(source, ledger, listed)
            await api.refuse()
            failure = await follow(source, ledger)
            assert isinstance(failure, TransientError)
            assert "refused" in str(failure)
            api.put("endpointslices", objects.endpointslice("new-1", "new", [objects.endpoint("10.9.9.9", "new")]))
            await api.accept()
            assert await follow(source, ledger, lambda now: now.listings > 1) is None
            assert ledger.ids == LIVING | {"shop/new/uid-new"}


async def test_what_went_unseen_is_absent_from_the_next_listing(tmp_path: Path) -> None:
    async with FakeKubernetes() as api:
        populate(api)
        extra = objects.endpointslice("extra-1", "extra", [objects.endpoint("10.9.9.9", "extra")])
        api.put("endpointslices", extra)
        async with opened(api, tmp_path) as (source, _, _):
            ledger = Ledger()
            await follow(source, ledger, listed)
            api.lose("endpointslices", "extra-1")
            await follow(source, ledger, lambda now: now.listings > 1)
            assert ledger.ids == LIVING


@pytest.mark.parametrize("streaming", [True, False])
async def test_an_unchanged_relist_says_so(streaming: bool, tmp_path: Path) -> None:
    async with FakeKubernetes(streaming=streaming) as api:
        populate(api)
        async with opened(api, tmp_path) as (source, _, _):
            await follow(source, Ledger(), listed)
            async with aclosing(source.watch_scope("")) as observations:
                second = await anext(observations)
            assert isinstance(second, Listing)
            assert second.groups == ()
            assert len(second.unchanged) == 12


async def test_a_change_is_told_in_both_kinds_of_list_and_does_not_come_again(tmp_path: Path) -> None:
    async with FakeKubernetes(streaming=False) as api:
        populate(api)
        async with opened(api, tmp_path) as (source, _, _):
            ledger = Ledger()
            async with asyncio.timeout(DEADLINE), aclosing(source.watch_scope("")) as observations:
                ledger.apply(await anext(observations))
                api.put("endpointslices", objects.endpointslice("new-1", "new", [objects.endpoint("10.9.9.9", "new")]))
                while "shop/new/uid-new" not in ledger.ids:
                    ledger.apply(await anext(observations))
            async with aclosing(source.watch_scope("")) as observations:
                again = await anext(observations)
            assert isinstance(again, Listing)
            assert again.groups == ()


async def test_one_forbidden_namespace_does_not_touch_the_other(tmp_path: Path) -> None:
    async with FakeKubernetes() as api:
        populate(api)
        other = objects.endpointslice("x-1", "x", [objects.endpoint("10.8.0.1", "x")], namespace="other")
        api.put("endpointslices", other)
        api.forbid("endpointslices", "other")
        async with opened(api, tmp_path, namespaces_watched=["shop", "other"]) as (source, _, _):
            assert source.scopes == ("shop", "other")
            ledger = Ledger()
            assert await follow(source, ledger, listed, scope="shop") is None
            failure = await follow(source, ledger, scope="other")
            assert isinstance(failure, ForbiddenError)
            assert 'list endpointslices.discovery.k8s.io in namespace "other"' in str(failure)
            assert ledger.ids == LIVING
            await api.heal()
            await follow(source, ledger, lambda now: now.listings > 1, scope="other")
            assert ledger.ids == LIVING | {"other/x/uid-x"}


async def test_a_missing_right_to_watch_is_named_after_the_listing(tmp_path: Path) -> None:
    async with FakeKubernetes(streaming=False) as api:
        populate(api)
        api.fail("watch services", "403", times=9)
        async with opened(api, tmp_path) as (source, _, _):
            ledger = Ledger()
            failure = await follow(source, ledger)
            assert ledger.ids == LIVING
            assert isinstance(failure, ForbiddenError)
            assert "watch services in all namespaces" in str(failure)


async def test_a_clean_end_is_followed_by_a_watch_and_not_by_a_list(tmp_path: Path) -> None:
    async with FakeKubernetes(streaming=False) as api:
        populate(api)
        api.watch_seconds = 0.12
        async with opened(api, tmp_path) as (source, _, _):
            assert await follow(source, Ledger(), confirmed(6)) is None
        names = Counter(call.name for call in api.calls)
        assert names["watch endpointslices"] >= 2
        assert names["list endpointslices"] == 1
        versions = [int(call.query["resourceVersion"]) for call in api.calls if call.name == "watch endpointslices"]
        assert versions == sorted(versions)


async def test_a_watch_that_ends_at_once_is_a_failure_and_no_hot_loop(tmp_path: Path) -> None:
    async with FakeKubernetes(streaming=False) as api:
        populate(api)
        api.watch_seconds = 0.0
        async with opened(api, tmp_path) as (source, _, _):
            assert isinstance(await follow(source, Ledger()), TransientError)
        assert Counter(call.name for call in api.calls)["watch endpointslices"] <= 2


async def test_an_expired_version_after_an_outage_leads_to_a_list(tmp_path: Path) -> None:
    async with FakeKubernetes(streaming=False) as api:
        populate(api)
        async with opened(api, tmp_path) as (source, _, _):
            ledger = Ledger()
            api.fail("watch endpointslices", "410")
            assert isinstance(await follow(source, ledger), TransientError)
            api.watch_seconds = 0.12
            async with asyncio.timeout(DEADLINE), aclosing(source.watch_scope("")) as observations:
                async for observation in observations:
                    ledger.apply(observation)
                    if ledger.confirmed:
                        api.fail("watch endpointslices", "410 event", times=99)
            # Ended without an exception: list anew.
            await api.heal()
            await follow(source, ledger, lambda now: now.listings > 2)
            assert ledger.ids == LIVING


async def test_a_token_that_expires_between_pages_begins_the_list_again(tmp_path: Path) -> None:
    async with FakeKubernetes(streaming=False, page_size=4) as api:
        populate(api)
        faults: tuple[Fault, ...] = ("410", "400")
        for fault in faults:
            api.fail("list endpointslices page 2", fault, times=2)
            async with opened(api, tmp_path) as (source, _, _):
                ledger = Ledger()
                assert await follow(source, ledger, listed) is None
                assert ledger.ids == LIVING
        api.fail("list endpointslices page 2", "410", times=99)
        async with opened(api, tmp_path) as (source, _, _):
            assert isinstance(await follow(source, Ledger()), TransientError)


async def test_pages_of_different_states_are_no_list(tmp_path: Path) -> None:
    """What moved from an unread page to a read one between the two would be in neither."""
    async with FakeKubernetes(streaming=False, page_size=4) as api:
        populate(api)
        async with opened(api, tmp_path) as (source, _, _):
            ledger = Ledger()
            api.fail("list endpointslices page 3", "mixed pages")
            assert await follow(source, ledger, listed) is None
            assert ledger.ids == LIVING
            assert Counter(call.name for call in api.calls)["list endpointslices"] == 2
            api.fail("list endpointslices page 2", "mixed pages", times=99)
            failure = await follow(source, ledger)
            assert isinstance(failure, TransientError)
            assert "in a list of" in str(failure)
            assert ledger.listings == 1


async def test_a_broken_node_does_not_end_the_watch(tmp_path: Path) -> None:
    async with FakeKubernetes() as api:
        populate(api)
        async with opened(api, tmp_path, nodes=True) as (source, _, _):
            ledger = Ledger()
            async with asyncio.timeout(DEADLINE), aclosing(source.watch_scope("")) as observations:
                ledger.apply(await anext(observations))
                api.put("nodes", objects.node("n1") | {"status": {"addresses": "nine"}})
                while "Node/n1" not in ledger.rejected:
                    ledger.apply(await anext(observations))
                api.put("endpointslices", objects.endpointslice("new-1", "new", [objects.endpoint("10.9.9.9", "new")]))
                (event,) = [item for item in await changed(observations) if isinstance(item, InstanceGroup)]
                assert [instance.region for instance in event.instances] == ["r1"]
                api.put("nodes", objects.node("n1"))
                assert Gone("Node/n1") in await changed(observations)
            assert Counter(call.name for call in api.calls)["stream nodes"] == 1


@pytest.mark.parametrize("streaming", [True, False])
async def test_half_a_surrogate_pair_costs_nothing(streaming: bool, tmp_path: Path) -> None:
    async with FakeKubernetes(streaming=streaming) as api:
        populate(api)
        odd = objects.endpointslice("odd-1", "odd", [objects.endpoint("10.9.9.9", "odd")])
        odd["metadata"]["annotations"] = {"note": "\ud800"}
        api.put("endpointslices", odd)
        async with opened(api, tmp_path) as (source, _, _):
            ledger = Ledger()
            async with asyncio.timeout(DEADLINE), aclosing(source.watch_scope("")) as observations:
                ledger.apply(await anext(observations))
                assert ledger.ids == LIVING | {"shop/odd/uid-odd"}
                assert (ledger.rejected, ledger.unknown) == ({}, [])
                odd["endpoints"] = [objects.endpoint("10.9.9.8", "odder")]
                api.put("endpointslices", odd)
                ledger.apply(await changed(observations))
                assert ledger.ids == LIVING | {"shop/odd/uid-odder"}


async def test_a_store_brought_back_from_a_backup_is_followed_back(tmp_path: Path) -> None:
    async with FakeKubernetes() as api:
        populate(api)
        api.put("endpointslices", objects.endpointslice("late-1", "late", [objects.endpoint("10.9.9.9", "late")]))
        async with opened(api, tmp_path) as (source, _, _):
            ledger = Ledger()
            await follow(source, ledger, listed)
            del api.objects["endpointslices"]["shop", "late-1"]
            api.restore(5)
            await follow(source, ledger, lambda now: now.listings > 1)
            assert ledger.ids == LIVING


async def test_a_watch_of_the_future_is_silent_and_the_silence_is_noticed(tmp_path: Path) -> None:
    async with FakeKubernetes(streaming=False) as api:
        populate(api)
        async with opened(api, tmp_path) as (source, _, _):
            ledger = Ledger()
            async with asyncio.timeout(DEADLINE), aclosing(source.watch_scope("")) as observations:
                ledger.apply(await anext(observations))
                api.restore(5)
                with pytest.raises(TransientError, match="silent"):
                    await changed(observations)


async def test_a_watch_where_nothing_happens_is_no_failure_and_no_reason_to_list(tmp_path: Path) -> None:
    async with FakeKubernetes(streaming=False, bookmark_every=60.0) as api:
        populate(api)
        async with opened(api, tmp_path) as (source, _, _):
            ledger = Ledger()
            assert await follow(source, ledger, confirmed(3)) is None
            assert ledger.listings == 1
        names = Counter(call.name for call in api.calls)
        assert names["list endpointslices"] == 1
        assert 3 <= names["ask endpointslices"] <= 4


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_silent_watch_is_not_trusted_when_the_server_cannot_say_why(fault: Fault, tmp_path: Path) -> None:
    if fault in FOR_WATCHES_ONLY or fault in ("wrong type", "nameless", "half a pair", "mixed pages"):
        pytest.skip("only the answer's being a list counts")
    async with FakeKubernetes(streaming=False, bookmark_every=60.0) as api:
        populate(api)
        api.fail("ask services", fault, times=2)
        async with opened(api, tmp_path) as (source, _, _):
            ledger = Ledger()
            failure = await follow(source, ledger, confirmed(2))
            assert failure is not None
            assert ledger.ids == LIVING


async def test_rotated_credentials_are_read_anew(tmp_path: Path) -> None:
    async with FakeKubernetes() as api:
        populate(api)
        api.token = "secret-token"
        async with opened(api, tmp_path) as (source, _, kubeconfig):
            ledger = Ledger()
            await follow(source, ledger, listed)
            api.token = "second-token"
            failure = await follow(source, ledger)
            assert isinstance(failure, ForbiddenError)
            assert "secret-token" not in str(failure)
            kubeconfig.write_text(api.kubeconfig("second-token"))
            assert await follow(source, ledger, lambda now: now.listings > 1) is None


async def test_a_stopped_source_leaves_no_thread_and_no_connection(tmp_path: Path) -> None:
    async with FakeKubernetes(bookmark_every=60.0) as api:
        populate(api)
        async with opened(api, tmp_path, silence="60s", request_timeout="60s") as (source, _, _):
            await follow(source, Ledger(), listed)
            api.fail("stream services", "hang")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2), aclosing(source.watch_scope("")) as observations:
                    await anext(observations)
            async with asyncio.timeout(2.0):
                while any(thread.name.startswith("kubernetes") for thread in threading.enumerate()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                while api.watching("services") or api.watching("endpointslices"):
                    # A closed connection shows when it is written to.
                    api.put("services", objects.service("s0"))
                    api.put("endpointslices", objects.endpointslice("s0-0", "s0"))
                    await asyncio.sleep(0.01)


async def test_a_server_without_streaming_lists_is_not_asked_again(tmp_path: Path) -> None:
    async with FakeKubernetes(streaming=False) as api:
        populate(api)
        async with opened(api, tmp_path) as (source, _, _):
            ledger = Ledger()
            for times in range(3):
                await follow(source, ledger, listings(times + 1))
        assert Counter(call.name for call in api.calls)["stream services"] == 1


async def test_a_very_long_line_is_one_event(tmp_path: Path) -> None:
    async with FakeKubernetes() as api:
        many = [objects.endpoint(f"10.{n // 250}.{n % 250}.1", f"m{n}") for n in range(1000)]
        api.put("endpointslices", objects.endpointslice("m-1", "m", many))
        # A line counts as silence until it is whole.
        patient = opened(api, tmp_path, request_timeout="5s", silence="5s")
        async with patient as (source, _, _), asyncio.timeout(DEADLINE), AsyncExitStack() as stack:
            observations = await stack.enter_async_context(aclosing(source.watch_scope("")))
            assert isinstance(await anext(observations), Listing)
            api.put("endpointslices", objects.endpointslice("m-1", "m", many[:-1]))
            event = await changed(observations)
            assert len(event[0].instances) == 999


async def changed(observations: AsyncGenerator[Observation, None]) -> Any:
    """The next observation that says more than that all is as it was."""
    while True:
        observation = await anext(observations)
        assert isinstance(observation, tuple)
        if any(not isinstance(event, Confirmed) for event in observation):
            return observation
