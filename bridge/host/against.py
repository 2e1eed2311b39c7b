"""What a running bridge would drop under another configuration. Pure, but for what the transformation itself does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bridge.contracts import SourceConfig
from bridge.errors import BridgeError
from bridge.host.connect import Outcome
from bridge.model import covers
from bridge.sync.transform import Transform


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one source: how many instances are shown now, which would go, how many would come (None: not known), and why.

    observed: whether it was looked at; without that, what would go is not known either.
    """

    source: str
    served: int
    dropped: tuple[str, ...]
    new: int | None
    reason: str
    observed: bool = True

    @property
    def would_go(self) -> int | None:
        """How many would go; None where that is not known."""
        return len(self.dropped) if self.observed or not self.served else None


def judge(
    environment: str,
    sources: Mapping[str, SourceConfig],
    served: Mapping[str, set[str]],
    outcomes: Mapping[str, Outcome],
    types: Mapping[str, str] | None = None,
) -> list[Verdict]:
    """Compare what each source shows now with what it would show, sources of both sides in one list.

    sources: the new configuration's, by name.
    served: instance ids by the source's present name.
    outcomes: fresh observations by the source's new name; a source without one keeps what it has, as far as one can tell.
    types: the types of the present sources by name, as far as they are known: with them, a source that seems to have got
        another name is told.
    """
    types = types or {}
    fresh = {name: config for name, config in sources.items() if name not in served and name not in types}
    takes_over = {config.renamed_from: name for name, config in sources.items() if config.renamed_from and name not in served}
    verdicts = []
    for name, ids in sorted(served.items()):
        if name not in sources and name not in takes_over:
            reason = "no longer configured" + _perhaps_renamed(name, types.get(name), fresh)
            verdicts.append(Verdict(name, len(ids), tuple(sorted(ids)), 0, reason))
    for name, config in sorted(sources.items()):
        former = config.renamed_from if config.renamed_from in takes_over and takes_over[config.renamed_from] == name else None
        ids = served.get(former or name, set())
        prefix = f"renamed from {former}; " if former else ""
        verdicts.append(_judge_source(name, ids, prefix, config, environment, outcomes.get(name)))
    return verdicts


def _perhaps_renamed(former: str, type: str | None, fresh: Mapping[str, SourceConfig]) -> str:
    """What to write where one of the new sources is the former one under another name."""
    heirs = [f"`{name}`" for name, config in sorted(fresh.items()) if config.type == type and config.renamed_from is None]
    if not heirs:
        return ""
    new = heirs[0] if len(heirs) == 1 else f"one of {', '.join(heirs)}"
    return f"; if {new} is the same under a new name, give it `renamed_from: {former}`, or its instances show twice for 5m"


def _judge_source(
    name: str, served: set[str], prefix: str, config: SourceConfig, environment: str, outcome: Outcome | None
) -> Verdict:
    if outcome is None:
        return Verdict(name, len(served), (), None, f"{prefix}not looked at; --connect does", observed=False)
    if outcome.state != "reachable":
        return Verdict(name, len(served), (), None, f"{prefix}{outcome.state} now, so everything is kept")
    shown, refused = _transformed(name, config, environment, outcome)
    kept = refused | outcome.rejected.keys() | {own for own in served if any(covers(key, own) for key in outcome.unknown)}
    missing = served - shown - kept
    reason = "nothing would go"
    if missing:
        reason = "not shown under the new rules, or gone"
        if outcome.unknown or outcome.rejected:
            reason += "; at most these: what cannot be told now keeps what it has"
    return Verdict(name, len(served), tuple(sorted(missing)), len(shown - served), prefix + reason)


def _transformed(name: str, config: SourceConfig, environment: str, outcome: Outcome) -> tuple[set[str], set[str]]:
    """The ids that the configuration's rules let through, and those whose instances the rules cannot make sense of (kept)."""
    transform = Transform(config, environment, name)
    shown: set[str] = set()
    refused: set[str] = set()
    for instance in outcome.instances:
        try:
            result = transform.apply(instance)
        except (BridgeError, ValueError):
            refused.add(instance.id)
            continue
        if result is not None:
            shown.add(result.id)
    return shown, refused
