"""What was rejected is counted for as long as it is, whichever listing tells that it is over."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from typing import Literal

import pytest

from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Indexes
from bridge.catalog.partition import Partition
from bridge.contracts import AnySource, PluginContext, SourceConfig
from bridge.model import InstanceGroup, Listing, ServiceInstance
from bridge.sync.ingest import Ingest
from bridge.testing.clock import ManualClock


class AnyConfig(SourceConfig):
    """Of a source that is never opened."""

    type: Literal["any"] = "any"

    def open(self, ctx: PluginContext) -> AbstractAsyncContextManager[AnySource]:
        raise NotImplementedError


@pytest.fixture
def ingest() -> Ingest:
    catalog = Catalog(Indexes("lineage", 1, 10_000))
    made = Ingest(catalog, Partition("test", "uid", 1, 0), ManualClock(), logging.getLogger("test"))
    made.add("s", AnyConfig(), scopes=("",), polled=True)
    return made


def rejected(ingest: Ingest) -> set[str]:
    return set(ingest.feeds["s"].status.rejected)


GROUP = InstanceGroup("part/web", (ServiceInstance(id="part/web/1", namespace="part", service="web", addresses=("10.0.0.1",)),))


@pytest.mark.parametrize("key", ["part/objects[3]", "part/web/2", "part"])
@pytest.mark.parametrize("scope", ["", "part"])
def test_a_listing_of_the_part_or_of_all_ends_what_a_listing_of_all_rejected(ingest: Ingest, key: str, scope: str) -> None:
    ingest.accept("s", Listing("", (GROUP,), rejected={key: "is no object", "other/objects[0]": "is none either"}))
    assert rejected(ingest) == {key, "other/objects[0]"}
    ingest.accept("s", Listing(scope, (GROUP,)))
    assert rejected(ingest) == ({"other/objects[0]"} if scope else set())
