"""Goals of figures: "ratio >= 0.9", "ours <= 3", "ratio <= 2 or difference <= 2"."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_TERM = re.compile(r"(ratio|ours|difference) (<=|>=) (\d+(?:\.\d+)?)")
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Goal:
    """What a figure should be: terms joined by ``or``, or by ``and``.

    `ours` is our figure in its unit, `ratio` is ours / reference, `difference` is ours - reference. Raises ValueError for
    a text that is no goal.
    """

    text: str

    def __post_init__(self) -> None:
        if " or " in self.text and " and " in self.text:
            raise ValueError(f"either `or` or `and`: {self.text!r}")
        for term in self._terms():
            if _TERM.fullmatch(term) is None:
                raise ValueError(f"no goal: {term!r} in {self.text!r}")

    @property
    def needs_reference(self) -> bool:
        """Whether it cannot be judged without a reference."""
        return "ratio" in self.text or "difference" in self.text

    @property
    def less_is_better(self) -> bool:
        """Which way is better."""
        return "<=" in self.text

    def shown(self, unit: str) -> str:
        """The text with its unit: "ratio <= 2 or difference <= 2 ms"."""
        return re.sub(r"(?:ours|difference) [<>]= [0-9.]+", lambda term: f"{term[0]} {unit}", self.text)

    def met(self, ours: float, reference: float | None) -> bool | None:
        """Whether it is met; None where it needs a reference and there is none."""
        if self.needs_reference and not reference:
            return None
        figures = {"ours": ours}
        if reference:
            figures |= {"ratio": ours / reference, "difference": ours - reference}
        every = any if " or " in self.text else all
        return every(self._holds(term, figures) for term in self._terms())

    def _terms(self) -> list[str]:
        return re.split(r" or | and ", self.text)

    @staticmethod
    def _holds(term: str, figures: Mapping[str, float]) -> bool:
        found = _TERM.fullmatch(term)
        assert found is not None
        name, comparison, bound = found.groups()
        return _OPERATORS[comparison](figures[name], float(bound))
