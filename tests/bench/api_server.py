"""A cluster's API server as a process: `python -m tests.bench.api_server INSTANCES` prints its kubeconfig as one line of JSON.

It is told on its standard input to ``change`` every endpoint (which it says when it is done), and ends with it. It yields the
processor to whoever else is on its core, so that readers there are not kept waiting by what is only the load.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from tests.bench import cluster
from tests.kit.fakes.kubernetes import FakeKubernetes


async def serve(instances: int) -> None:
    """Until standard input ends."""
    api = cluster.api_server(instances)
    changed = 0
    async with api:
        print(json.dumps(json.loads(api.kubeconfig())), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            changed += 1
            for number in range(instances // cluster.SLICE):
                move(api, number, changed)
                await asyncio.sleep(0)
            print("changed", flush=True)


def move(api: FakeKubernetes, number: int, turn: int) -> None:
    """Move every endpoint of a slice to the zone `zone_of` that turn."""
    made = json.loads(cluster.slice_text(number))
    for endpoint in made["endpoints"]:
        endpoint["zone"] = zone_of(turn)
    api.put("endpointslices", made)


def zone_of(turn: int) -> str:
    """The zone of everything after so many changes."""
    return f"moved-{turn}"


if __name__ == "__main__":
    os.nice(19)
    asyncio.run(serve(int(sys.argv[1])))
