"""Sets up and runs the quickstart: one bridge over a small shop in a file. Needs nothing but Python 3.11 and this checkout.

By default it looks at nothing on this machine but its own file; --kubeconfig and --docker add what they name.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "quickstart"
TEMPLATE = ROOT / "config" / "quickstart.yaml"
SHOP = ROOT / "config" / "quickstart" / "shop.yaml"

LISTEN = "127.0.0.1:7400"
MADE = "# Made by `make run` from config/quickstart.yaml, anew each time; the shop in services/ is yours to edit.\n\n"

READY_WITHIN = 60.0
"""Seconds until the bridge must be ready; a source that only fails holds it back for 30 s."""

SAY_AFTER = 3.0
"""Seconds of waiting after which a person is told what for."""


class RefusedError(Exception):
    """Why the quickstart cannot run, and what to do about it."""


def main(arguments: list[str] | None = None) -> int:
    """Set up, run the daemon until it ends, and say what to try once it answers; the exit code."""
    options = parse(arguments)
    try:
        with contextlib.ExitStack() as stack:
            refuse_running(options)
            set_up(options)
            lock = lock_folder(options)
            stack.callback(os.close, lock)
            return run(prepare(options), options, lock)
    except RefusedError as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print("make run: setting up failed; the reason is above", file=sys.stderr)
        return error.returncode or 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default=LISTEN, metavar="HOST:PORT", help="where to listen (default: %(default)s)")
    parser.add_argument("--kubeconfig", metavar="FILE", help="also observe the cluster of this kubeconfig")
    parser.add_argument(
        "--docker", metavar="HOST", help="also observe the Swarm of this manager, e.g. unix:///var/run/docker.sock"
    )
    return parser.parse_args(arguments)


def refuse_running(options: argparse.Namespace) -> None:
    """Raise RefusedError where a quickstart runs already or its port is taken; nothing is touched."""
    if (HOME / "lock").exists():
        os.close(lock_folder(options))
    host, _, port = options.listen.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) <= 65535:
        raise RefusedError(f"--listen must be HOST:PORT with a port from 1 to 65535, not {options.listen}")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found[:1]:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        whose = " by a bridge" if answer(options.listen, "/v1/status") else ""
        remedy = f'free it, or take another: make run FLAGS="--listen {host}:{int(port) + 1}"'
        raise RefusedError(f"{options.listen} is taken{whose} or cannot be listened on ({error.strerror}); {remedy}") from error


def lock_folder(options: argparse.Namespace) -> int:
    """The lock that says a quickstart runs in this folder; it lasts as long as any process has it open. Raises RefusedError."""
    HOME.mkdir(exist_ok=True)
    lock = os.open(HOME / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        where = os.read(lock, 200).decode(errors="replace").strip() or options.listen
        os.close(lock)
        raise RefusedError(
            f"a quickstart runs already, at http://{where}; use that one, or end it first (Ctrl-C in its terminal)"
        ) from error
    return lock


def set_up(options: argparse.Namespace) -> None:
    """Have .venv with what the options need; says so only where there is something to do. Raises CalledProcessError."""
    extras = [extra for extra, wanted in (("kubernetes", options.kubeconfig), ("docker", options.docker)) if wanted]
    subprocess.run([str(ROOT / "scripts" / "venv.sh"), ",".join(extras)], check=True)


def prepare(options: argparse.Namespace) -> Path:
    """A folder of its own for what the quickstart reads and writes; the configuration in it. Edits of the shop stay."""
    services = HOME / "services"
    services.mkdir(parents=True, exist_ok=True)
    if not any(services.iterdir()):
        shutil.copyfile(SHOP, services / SHOP.name)
    path = HOME / "bridge.yaml"
    path.write_text(configuration(TEMPLATE.read_text(), options))
    return path


def configuration(template: str, options: argparse.Namespace) -> str:
    """The template with the folder's own shop, the address to listen on, and the sources that were asked for, which are last."""
    _, _, sources = template.partition("\nserve:")
    listen, paths = json.dumps(LISTEN), "quickstart/*.yaml"
    if listen not in sources or paths not in sources or "\nsources:" not in sources:
        raise RefusedError(f"{TEMPLATE} lacks {listen}, {paths} or sources at its end")
    text = "environment:" + template.partition("\nenvironment:")[2]
    text = text.replace(listen, json.dumps(options.listen)).replace(paths, "services/*.yaml")
    if options.kubeconfig:
        file = json.dumps(str(Path(options.kubeconfig).expanduser().absolute()), ensure_ascii=False)
        text += f"  cluster: {{type: kubernetes, kubeconfig: {file}}}\n"
    if options.docker:
        text += f"  swarm: {{type: docker_swarm, hosts: [{json.dumps(options.docker)}]}}\n"
    return MADE + text


def run(config: Path, options: argparse.Namespace, lock: int) -> int:
    """Run the daemon until it ends; its exit code, or 1 where it did not become ready."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, options.listen.encode(), 0)
    envbridge = ROOT / ".venv" / "bin" / "envbridge"
    daemon = subprocess.Popen([str(envbridge), "run", str(config)], pass_fds=(lock,))

    def end(*_: object) -> None:
        daemon.terminate()

    # Ctrl-C reaches the daemon by itself; a closed terminal would only make it reload.
    for number, handler in ((signal.SIGINT, lambda *_: None), (signal.SIGTERM, end), (signal.SIGHUP, end)):
        signal.signal(number, handler)
    problem = wait_ready(daemon, options.listen)
    if problem is None:
        explain(options, envbridge)
        return exit_code(daemon.wait())
    code = daemon.poll()
    if code is None:
        daemon.terminate()
        daemon.wait()
    print(f"make run: the bridge did not start: {problem}", file=sys.stderr)
    return exit_code(code or 1)


def exit_code(code: int) -> int:
    """A process's exit code; as in a shell where a signal ended it."""
    return code if code >= 0 else 128 - code


def wait_ready(daemon: subprocess.Popen[bytes], listen: str) -> str | None:
    """Wait until /readyz is 200; None then, else why it is not."""
    began = time.monotonic()
    said = ""
    while (waited := time.monotonic() - began) < READY_WITHIN:
        if (code := daemon.poll()) is not None:
            return f"it ended with exit code {code}; its own error is above"
        reply = answer(listen, "/readyz")
        if reply is not None and reply[0] == 200:
            return None
        if waited > SAY_AFTER and said != (reason := missing(reply)):
            said = reason
            print(f"not ready yet: {reason} ...", flush=True)
        time.sleep(0.1)
    return f"not ready within {READY_WITHIN:g} s: {missing(answer(listen, '/readyz'))}"


def missing(reply: tuple[int, Any] | None) -> str:
    """What /readyz says is missing."""
    if reply is None:
        return "it does not answer yet"
    body = reply[1]
    return str(body.get("detail") or body.get("title") or body) if isinstance(body, dict) else str(body)


def answer(listen: str, path: str) -> tuple[int, Any] | None:
    """Status and JSON body of a GET; None where nobody answers it."""
    host, _, port = listen.rpartition(":")
    here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104  # asked, not listened on
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{here}:{port}{path}", timeout=2) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        try:
            return error.code, json.loads(error.read())
        except (OSError, ValueError):
            return error.code, ""
    except (OSError, ValueError):
        return None


def explain(options: argparse.Namespace, envbridge: Path) -> None:
    """What to try next, and which sources are not as they should be."""
    command = envbridge.relative_to(ROOT)
    url = "" if options.listen == LISTEN else f" --url http://{options.listen}"
    status = answer(options.listen, "/v1/status")
    warnings = status[1].get("warnings", []) if status and isinstance(status[1], dict) else []
    notes = "".join(f"\n  but: {warning}" for warning in warnings)
    print(
        f"""
envbridge runs at http://{options.listen}.{notes}
In another terminal, from this folder, try:

  {command} services{url}
  curl 'http://{options.listen}/v1/services/shop/web'
  {command} watch{url}      # then edit quickstart/services/shop.yaml and save: the change shows here

Ctrl-C ends it, after some 3 s in which it still answers.
""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
