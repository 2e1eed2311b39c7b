"""The writer of a catalog as the daemon has it, without a daemon around it."""

from __future__ import annotations

import logging

from bridge.aio import SystemClock
from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Indexes
from bridge.catalog.partition import Partition
from bridge.sync.ingest import Ingest
from bridge_plugins.sources.kubernetes.config import KubernetesConfig

ENVIRONMENT = "bench"
SOURCE = "cluster"


def ingest(ceiling: int = 1_000_000) -> Ingest:
    """An empty catalog's writer with one source, `SOURCE`. ``ceiling``: indexes that may be handed out."""
    catalog = Catalog(Indexes("bench", 1, ceiling))
    partition = catalog.partitions[ENVIRONMENT] = Partition(ENVIRONMENT, "bench", 1, 0)
    made = Ingest(catalog, partition, SystemClock(), logging.getLogger("bench"))
    made.add(SOURCE, KubernetesConfig(type="kubernetes"), scopes=("",), polled=False)
    return made
