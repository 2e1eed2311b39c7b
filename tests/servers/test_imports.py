"""SDKs that share libraries are imported on first use by sources that start together: none finds a library half made."""

from __future__ import annotations

import subprocess
import sys

_START = """
import asyncio
from bridge.aio import import_modules

async def main():
    await asyncio.gather(*(import_modules(name, deadline=120.0) for name in ("docker", "kubernetes.client", "boto3", "docker")))

asyncio.run(main())
import docker, kubernetes, requests
requests.exceptions, docker.errors
"""


def test_sdks_are_imported_one_after_the_other() -> None:
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", _START], capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode, done.stderr) == (0, "")
