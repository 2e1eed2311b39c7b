"""Run by the tests of the disk in a process of its own: writes until it is killed, or under a limit of file sizes.

Arguments: ``kill DIRECTORY`` or ``limit DIRECTORY``.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

from store_kit import open_store, record

from bridge.errors import StoreError
from bridge.sync.store import Batch

ROWS = 40


async def write_until_killed(directory: Path) -> None:
    """Each batch rewrites every record with its index; what was acknowledged is printed."""
    store, snapshot = open_store(directory)
    index = snapshot.floor
    while True:
        index += 1
        if index > store.ceiling() - 50:
            await store.reserve(index)
        await store.write(Batch(index, index, put_records=tuple(record(number, version=index) for number in range(ROWS))))
        print(index, flush=True)


async def write_under_a_limit(directory: Path) -> None:
    """Write until the limit refuses, then lift it and write again."""
    store, snapshot = open_store(directory)
    index, refusals = snapshot.floor, 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    while refusals < 3 and index < 100:
        try:
            await store.write(batch(index + 1))
            index += 1
        except StoreError as error:
            refusals += 1
            print(error)
    stored = index
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.write(batch(index + 1))
    await store.reserve(index + 1)
    await store.close()
    print("stored", stored, "refusals", refusals)


def batch(index: int) -> Batch:
    """Forty new records."""
    return Batch(index, index, put_records=tuple(record(index * ROWS + number, version=index) for number in range(ROWS)))


if __name__ == "__main__":
    asyncio.run({"kill": write_until_killed, "limit": write_under_a_limit}[sys.argv[1]](Path(sys.argv[2])))
