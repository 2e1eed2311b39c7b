"""`make run`: what it touches, what it says and when, and how it ends. The checkout is a copy, the daemon the real one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOON = 30.0
BANNER = "In another terminal"
SHOP = "quickstart/services/shop.yaml"
EDITED = "services: []\n"


class Run:
    """One `make run` in a copy of the checkout; ``out`` and ``err`` are what it said so far."""

    def __init__(self, checkout: Path, *arguments: str) -> None:
        command = [sys.executable, "-u", str(checkout / "scripts" / "quickstart.py"), *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        self.out = self.err = ""
        self._threads = [threading.Thread(target=self._read, args=(name,)) for name in ("out", "err")]
        for thread in self._threads:
            thread.start()

    def _read(self, name: str) -> None:
        stream = self.process.stdout if name == "out" else self.process.stderr
        assert stream is not None
        for line in stream:
            setattr(self, name, getattr(self, name) + line)

    def says(self, text: str) -> None:
        end = time.monotonic() + SOON
        while text not in self.out:
            assert time.monotonic() < end, f"{self.out}\n{self.err}"
            assert self.process.poll() is None, f"{self.out}\n{self.err}"
            time.sleep(0.02)

    def ends(self) -> int:
        code = self.process.wait(SOON)
        for thread in self._threads:
            thread.join(SOON)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what `make run` uses, whose .venv is there already: an `envbridge` that runs this checkout."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "quickstart.py", tmp_path / "scripts")
    venv = tmp_path / "scripts" / "venv.sh"
    venv.write_text("#!/bin/sh\n")
    envbridge = tmp_path / ".venv" / "bin" / "envbridge"
    envbridge.parent.mkdir(parents=True)
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in [str(ROOT), str(ROOT / "plugins"), *sys.path])
    envbridge.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path[:0] = {path!r}.split({os.pathsep!r})\nfrom bridge.cli import main\nmain()\n"
    )
    for script in (venv, envbridge):
        script.chmod(0o755)
    return tmp_path


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def running(checkout: Path, port: int) -> Iterator[Run]:
    """A quickstart that said what to try; the shop was edited before."""
    shop = checkout / SHOP
    shop.parent.mkdir(parents=True)
    shop.write_text(EDITED)
    run = Run(checkout, "--listen", f"127.0.0.1:{port}")
    try:
        run.says(BANNER)
        yield run
    finally:
        run.process.send_signal(signal.SIGTERM)
        code = run.ends()
    assert code == 0


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def configured(checkout: Path) -> dict[str, bytes]:
    """All of the quickstart's folder but what the daemon itself writes."""
    return {name: content for name, content in contents(checkout / "quickstart").items() if not name.startswith("data/")}


def test_it_says_what_to_try_once_the_bridge_is_ready_and_a_second_one_touches_nothing(
    running: Run, checkout: Path, port: int
) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert "setting up" not in running.out
    before = configured(checkout)
    for listen in (f"127.0.0.1:{port}", "127.0.0.1:1"):  # whatever port it asks for
        second = Run(checkout, "--listen", listen)
        assert second.ends() == 1
        assert f"runs already, at http://127.0.0.1:{port}; use that one, or end it first" in second.err
        assert second.out == ""
    assert configured(checkout) == before
    assert (checkout / SHOP).read_text() == EDITED


def test_a_taken_port_is_told_with_a_way_out_and_nothing_is_touched(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        run = Run(checkout, "--listen", f"127.0.0.1:{port}")
        assert run.ends() == 1
    assert f"127.0.0.1:{port} is taken" in run.err
    assert f'make run FLAGS="--listen 127.0.0.1:{port + 1}"' in run.err
    assert run.out == ""
    assert not (checkout / "quickstart").exists()


def test_a_bridge_that_does_not_start_ends_it_with_the_bridges_own_error(checkout: Path, port: int) -> None:
    run = Run(checkout, "--listen", f"0.0.0.0:{port}")
    assert run.ends() == 2
    assert "error: serve.http.listen:" in run.err
    assert "did not start: it ended with exit code 2" in run.err
    assert BANNER not in run.out


@pytest.mark.parametrize("listen", ["7400", "127.0.0.1:0", "127.0.0.1:70000", "nowhere.invalid:x"])
def test_what_is_no_address_is_told(checkout: Path, listen: str) -> None:
    run = Run(checkout, "--listen", listen)
    assert run.ends() == 1
    assert f"not {listen}" in run.err


def test_a_setup_that_fails_ends_it(checkout: Path, port: int) -> None:
    (checkout / "scripts" / "venv.sh").write_text("#!/bin/sh\necho no network >&2\nexit 3\n")
    run = Run(checkout, "--listen", f"127.0.0.1:{port}")
    assert run.ends() == 3
    assert "no network" in run.err
    assert not (checkout / "quickstart").exists()


def test_its_configuration_is_the_one_in_config_with_what_the_flags_add(checkout: Path) -> None:
    import importlib.util

    import yaml

    spec = importlib.util.spec_from_file_location("quickstart", checkout / "scripts" / "quickstart.py")
    assert spec is not None
    assert spec.loader is not None
    quickstart = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quickstart)
    template = (ROOT / "config" / "quickstart.yaml").read_text()
    options = quickstart.parse(["--listen", "127.0.0.1:7999", "--kubeconfig", "/ü/config", "--docker", "unix:///docker.sock"])
    made = yaml.safe_load(quickstart.prepare(options).read_text())
    wanted = yaml.safe_load(template)
    wanted["serve"]["http"]["listen"] = "127.0.0.1:7999"
    wanted["sources"]["shop"]["paths"] = ["services/*.yaml"]
    wanted["sources"]["cluster"] = {"type": "kubernetes", "kubeconfig": "/ü/config"}
    wanted["sources"]["swarm"] = {"type": "docker_swarm", "hosts": ["unix:///docker.sock"]}
    assert made == wanted
    assert (checkout / SHOP).read_bytes() == (ROOT / "config" / "quickstart" / "shop.yaml").read_bytes()


def test_venv_says_that_it_sets_up_only_where_it_does(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "venv.sh", tmp_path / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "envbridge"):  # a pip that has nothing to do
        script = tmp_path / ".venv" / "bin" / name
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
    said = [
        subprocess.run(
            [str(tmp_path / "scripts" / "venv.sh")],
            env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=True,
        ).stdout
        for _ in range(2)
    ]  # fmt: skip
    assert "setting up" in said[0]
    assert said[1] == ""
