"""Where each server's program is: an environment variable, PATH, the build cache, else built or installed now.

A server more is one line in a table here.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .cache import python_environment
from .debian import DebianProgram
from .gobuild import GoProgram
from .process import ServerUnavailable

_K8S_VERSION = "k8s.io/component-base/version"
_K8S = "k8s.io/kubernetes"
_MOTO = "moto[server]>=5.2,<6"
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
"""No program: what Debian's nginx loads."""


def _kubernetes(name: str) -> GoProgram:
    return GoProgram(name, "kubernetes", _K8S, f"{_K8S}/cmd/{name}", _K8S_VERSION)


_GO = [
    GoProgram("consul", "consul", "github.com/hashicorp/consul", "github.com/hashicorp/consul"),
    GoProgram("etcd", "etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kubectl"),
]
_DEBIAN = [
    DebianProgram("etcd-3.4", Path("/usr/bin/etcd"), ("etcd-server",), "3.4."),
    DebianProgram("dockerd", Path("/usr/sbin/dockerd"), ("docker.io", "iptables")),
    DebianProgram("docker", Path("/usr/bin/docker"), ("docker.io",)),
    DebianProgram("iptables", Path("/usr/sbin/iptables"), ("iptables",)),
    DebianProgram("ip", Path("/usr/sbin/ip"), ("iproute2",)),
    DebianProgram("cc", Path("/usr/bin/cc"), ("gcc", "libc6-dev")),
    DebianProgram("nginx", Path("/usr/sbin/nginx"), ("nginx",)),
    DebianProgram("nchan", NCHAN_MODULE, ("nginx", "libnginx-mod-nchan")),
    DebianProgram("wrk", Path("/usr/bin/wrk"), ("wrk",)),
]
GO: dict[str, GoProgram] = {program.name: program for program in _GO}
DEBIAN: dict[str, DebianProgram] = {program.name: program for program in _DEBIAN}
KINDS: dict[str, tuple[str, ...]] = {
    "etcd": ("etcd",),
    "etcd-3.4": ("etcd-3.4",),
    "kubernetes": ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl"),
    "kubernetes-etcd-3.4": ("etcd-3.4", "kube-apiserver", "kube-controller-manager", "kubectl"),
    "swarm": ("dockerd", "docker", "iptables", "ip", "cc"),
    "moto": ("moto_server",),
    "nginx": ("nginx",),
    "nchan": ("nginx", "nchan"),
    "consul": ("consul",),
    "wrk": ("wrk",),
}
"""What each kind of server needs; the names that `fixtures.require` and `python -m tests.kit.servers` take."""

BENCH_KINDS = ("nginx", "nchan", "consul", "wrk")
"""Kinds that only `make bench` asks for."""


@dataclass(frozen=True)
class Found:
    """A program and how it was had."""

    name: str
    path: Path
    how: str
    """"environment", "PATH", "cache", "built", "installed" or "interpreter"."""
    seconds: float


def find(name: str) -> Path:
    """The program's path; raises ServerUnavailable when it cannot be had here."""
    return locate(name).path


def locate(name: str) -> Found:
    """Like `find`, with how the program was had and how long that took.

    Asked once per process, failures too: a build that fails is not tried again for each test.
    """
    result = _once(name)
    if isinstance(result, str):
        raise ServerUnavailable(result)
    return result


@functools.cache
def _once(name: str) -> Found | str:
    began = time.monotonic()
    try:
        path, how = _locate(name)
    except ServerUnavailable as error:
        return error.reason
    return Found(name, path, how, time.monotonic() - began)


def _locate(name: str) -> tuple[Path, str]:
    named = _from_environment(name)
    if named is not None:
        return named, "environment"
    if name == "moto_server":
        return _moto_server()
    if name not in GO and name not in DEBIAN:
        raise ServerUnavailable(f"no way to get {name} is known")
    on_path = _from_path(name)
    if on_path is not None:
        return on_path, "PATH"
    if name in GO:
        there = GO[name].built.exists()
        return GO[name].build(), "cache" if there else "built"
    there = DEBIAN[name].path.exists()
    return DEBIAN[name].install(), "PATH" if there else "installed"


def _from_environment(name: str) -> Path | None:
    variable = "ENVBRIDGE_" + re.sub(r"\W", "_", name).upper()
    if os.environ.get(variable):
        path = Path(os.environ[variable])
        if not os.access(path, os.X_OK):
            raise ServerUnavailable(f"{variable} names {path}, which is not a program")
        return path
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and name in ("etcd", "kube-apiserver", "kubectl") and os.access(Path(assets) / name, os.X_OK):
        return Path(assets) / name
    return None


def _from_path(name: str) -> Path | None:
    """A program on PATH whose version is of the recipe's minor line.

    Debian's etcd 3.4 is on PATH under the same name as 3.6, and a kubectl of a cloud SDK may be years older.
    """
    found = shutil.which(name.removesuffix("-3.4"))
    if found is None:
        return None
    if name in GO:
        wanted: str | None = ".".join(GO[name].version.split(".")[:2]) + "."
    else:
        wanted = DEBIAN[name].version
    return Path(found) if wanted is None or _version(Path(found)).startswith(wanted) else None


def _version(path: Path) -> str:
    """The first a.b.c in what the program says of its version, or an empty string."""
    arguments = ["version", "--client"] if path.name == "kubectl" else ["--version"]
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
    return found.group() if found else ""


def _moto_server() -> tuple[Path, str]:
    """moto of the running interpreter's environment, else in an environment of the cache."""
    beside = Path(sys.executable).parent / "moto_server"
    if all(importlib.util.find_spec(module) for module in ("moto", "flask")) and beside.exists():
        return beside, "interpreter"
    return python_environment("moto", _MOTO) / "moto_server", "cache"
