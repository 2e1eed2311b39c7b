"""`python -m tests.bench [--quick] [--compare OLD] [--out DIR] [BENCH ...]`: a table; bench.json and SVGs in DIR."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, ModuleType

from tests.bench import benches, machine
from tests.bench.compare import compare
from tests.bench.picture import picture
from tests.bench.results import Report, load
from tests.bench.session import Session
from tests.bench.table import table, verdict

ORDER = ("read", "wait", "change", "memory", "resync", "kubernetes", "persist", "restart", "ingest-lag", "start", "growth")
"""As they are run and shown; others follow."""


def found() -> dict[str, ModuleType]:
    """The benches by name, in order; each is imported, which must cost nothing."""
    names = [module.name for module in pkgutil.iter_modules(benches.__path__)]
    modules = [importlib.import_module(f"{benches.__name__}.{name}") for name in names]
    known = {module.NAME: module for module in modules}
    return {name: known[name] for name in [*(name for name in ORDER if name in known), *sorted(known.keys() - set(ORDER))]}


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all ran (whether or not goals are met); 1: a bench failed; 2: wrong usage; 130: interrupted."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    known = found()
    cores = machine.Cores.choose()
    report = Report({**machine.describe(), "quick": options.quick, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
    if cores.shared:
        _say("there is one core only: server and load take time from each other")
    if report.machine["load"][0] > 0.5:
        _say(f"the machine is busy (load {report.machine['load'][0]}): believe ratios only, and those little")
    machine.bypass_proxies()
    machine.allow_files()
    cores.take_load()
    status = 0
    try:
        for name in options.benches or known:
            repetitions = options.repetitions or (1 if options.quick else 3)
            _say(f"{name} ...")
            began = time.monotonic()
            try:
                with Session(name, report, cores, quick=options.quick, repetitions=repetitions, say=_say) as session:
                    known[name].run(session)
            except Exception as error:  # noqa: BLE001  # the other benches, and what was found, are worth having
                report.failures[name] = f"{type(error).__name__}: {error}"
                traceback.print_exc()
                status = 1
            _say(f"{name}: {time.monotonic() - began:.1f} s")
    except KeyboardInterrupt:
        report.failures[name] = "interrupted"
        status = 130
    _write(report, options.out, known)
    print(table(report))
    for bench, reason in report.failures.items():
        print(f"{bench} FAILED: {reason}")
    if options.old is not None:
        print("\n".join(compare(options.old, report)))
    print(" ".join(filter(None, [verdict(report), f"Written to {options.out}"])))
    return status


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    known = list(found())
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("benches", nargs="*", metavar="BENCH", help=f"some of {', '.join(known)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="10,000 instances, one repetition: a smoke test")
    parser.add_argument("--compare", type=Path, metavar="OLD", help="say what moved beyond its spread since an older bench.json")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR", help="where bench.json and the SVGs go")
    parser.add_argument("--repetitions", type=int, metavar="N", help="of each measurement (default: 3)")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.benches if name not in known]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    options.old = None
    if options.compare:
        try:
            options.old = load(options.compare)  # before a run with the same --out writes over it
        except (OSError, ValueError) as error:
            parser.error(f"--compare: {error}")
        if options.old.quick != options.quick:
            sort = {True: "quick", False: "full"}
            parser.error(
                f"--compare: {options.compare} is of a {sort[options.old.quick]} run, this is a {sort[options.quick]} one: "
                "their sizes differ, and nothing can be compared"
            )
    return options


def _write(report: Report, folder: Path, known: dict[str, ModuleType]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    report.write(folder / "bench.json")
    facts = report.machine
    note = f"{facts['cpu']}, {facts['cores']} cores, {facts['kernel']}, {facts['python']}"
    for name, module in known.items():
        results = [result for result in report.results if result.bench == name]
        curves = [curve for curve in report.curves if curve.bench == name]
        if results or curves:
            title = (module.__doc__ or name).partition("\n")[0].rstrip(".").replace("`", "")
            if report.quick:  # the title tells of the full sizes
                title = f"{name}: a smoke test with small sizes, no claim"
            (folder / f"{name}.svg").write_text(picture(title, results, curves, note))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
