"""pytest fixtures for the real servers, session scoped. A test module or the top `conftest.py` takes them with

    pytest_plugins = ("tests.kit.servers.fixtures",)

which makes one server for the whole run; names imported from here into several modules would make one for each.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from .dockerd import Swarm
from .etcd import Etcd
from .kubernetes import KubeCluster
from .moto import Moto
from .process import Server, ServerUnavailable
from .requirement import require, unavailable

S = TypeVar("S", bound=Server)


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    """A folder with a short path (dockerd's sockets), removed at the end; server logs lie in it."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    try:
        yield folder
    finally:
        if os.environ.get("ENVBRIDGE_TEST_KEEP"):
            print(f"the files of {name} stay in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _cluster(kind: str, etcd: str) -> Iterator[KubeCluster]:
    require(kind)
    with _folder("kube") as folder, KubeCluster(folder, Etcd(folder, etcd)) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kube_cluster() -> Iterator[KubeCluster]:
    """A Kubernetes control plane over the etcd it is released with; tests make namespaces of their own."""
    yield from _cluster("kubernetes", "etcd")


@pytest.fixture(scope="session")
def old_etcd_kube_cluster() -> Iterator[KubeCluster]:
    """The same API server over etcd 3.4: no RequestWatchProgress, so the streaming list fails."""
    yield from _cluster("kubernetes-etcd-3.4", "etcd-3.4")


@pytest.fixture(scope="session")
def swarm() -> Iterator[Swarm]:
    """A Docker Engine in Swarm mode, with a TCP listener too; call `reset` before relying on it being empty."""
    yield from _started("swarm", lambda folder: Swarm(folder, tcp=True))


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Moto]:
    """moto's server; call `reset` before relying on it being empty."""
    yield from _started("moto", Moto)


def _started(kind: str, make: Callable[[Path], S]) -> Iterator[S]:
    require(kind)
    with _folder(kind) as folder:
        try:
            server = make(folder)
        except ServerUnavailable as error:
            unavailable(kind, error.reason)
            return
        with server:
            yield server
