"""Sets up and runs the quickstart: one bridge over a small shop in a file. Needs nothing but Python 3.11 and this checkout.

By default it looks at nothing on this machine but its own file; --kubeconfig and --docker add what they name.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "quickstart"


def main() -> None:
    """Prepare, say what to try, and become the daemon."""
    options = parse()
    extras = [extra for extra, wanted in (("kubernetes", options.kubeconfig), ("docker", options.docker)) if wanted]
    print("setting up .venv (the first time takes a minute) ...", flush=True)
    subprocess.run([str(ROOT / "scripts" / "venv.sh"), ",".join(extras)], check=True)
    config = prepare(options)
    envbridge = ROOT / ".venv" / "bin" / "envbridge"
    explain(options, envbridge)
    os.execv(envbridge, [str(envbridge), "run", str(config)])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="127.0.0.1:7400", metavar="HOST:PORT", help="where to listen (default: %(default)s)")
    parser.add_argument("--kubeconfig", metavar="FILE", help="also observe the cluster of this kubeconfig")
    parser.add_argument(
        "--docker", metavar="HOST", help="also observe the Swarm of this manager, e.g. unix:///var/run/docker.sock"
    )
    return parser.parse_args()


def prepare(options: argparse.Namespace) -> Path:
    """A folder of its own for what the quickstart reads and writes; the configuration in it. Edits made there stay."""
    (HOME / "services").mkdir(parents=True, exist_ok=True)
    shop = HOME / "services" / "shop.yaml"
    if not shop.exists():
        shutil.copyfile(ROOT / "config" / "quickstart" / "shop.yaml", shop)
    sources: dict[str, dict[str, object]] = {"shop": {"type": "file", "paths": ["services/*.yaml"]}}
    if options.kubeconfig:
        sources["cluster"] = {"type": "kubernetes", "kubeconfig": str(Path(options.kubeconfig).absolute())}
    if options.docker:
        sources["swarm"] = {"type": "docker_swarm", "hosts": [options.docker]}
    config = {
        "environment": "quickstart",
        "data_dir": "data",
        "sources": sources,
        "serve": {"http": {"listen": options.listen}},
    }
    path = HOME / "bridge.json"
    path.write_text(json.dumps(config, indent=2) + "\n")  # JSON is YAML
    return path


def explain(options: argparse.Namespace, envbridge: Path) -> None:
    """What to try next."""
    command = envbridge.relative_to(ROOT)
    url = "" if options.listen == "127.0.0.1:7400" else f" --url http://{options.listen}"
    print(
        f"""
envbridge runs at http://{options.listen}. In another terminal, from this folder, try:

  {command} services{url}
  curl 'http://{options.listen}/v1/services/shop/web'
  {command} watch{url}      # then edit quickstart/services/shop.yaml and save: the change shows here

Ctrl-C ends it.
""",
        flush=True,
    )


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
