"""`python -m tests.kit.servers [KIND ...]`: build and install what the test servers need, and print a table of it."""

from __future__ import annotations

import argparse
import sys

from .binaries import BENCH_KINDS, KINDS, locate
from .process import ServerUnavailable


def main() -> int:
    """Prepare the kinds named on the command line (default: all that tests need); the number of programs that cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m tests.kit.servers", description=__doc__)
    others = ", ".join(BENCH_KINDS)
    parser.add_argument(
        "kinds",
        nargs="*",
        metavar="KIND",
        help=f"one of {', '.join(KINDS)} (default: all but {others}, which are for `make bench`)",
    )
    kinds: list[str] = parser.parse_args().kinds or [kind for kind in KINDS if kind not in BENCH_KINDS]
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    missing: dict[str, str] = {}
    print(f"{'program':<25}{'how':<13}{'seconds':>8}  where", flush=True)
    for name in dict.fromkeys(program for kind in kinds for program in KINDS[kind]):
        try:
            found = locate(name)
        except ServerUnavailable as error:
            missing[name] = error.reason
            print(f"{name:<25}{'missing':<13}{'':>8}  {error.reason.splitlines()[0]}", flush=True)
        else:
            print(f"{name:<25}{found.how:<13}{found.seconds:>8.1f}  {found.path}", flush=True)
    for name, reason in missing.items():
        print(f"\n{name}: {reason}", file=sys.stderr)
    return min(len(missing), 100)


if __name__ == "__main__":
    sys.exit(main())
