"""Where two texts of a list of endpoints differ, found without reading them: most changes of a slice are of one endpoint.

Both texts are JSON. Up to the endpoint in which they begin to differ, and from the one behind which they do not any more, they
say the same; what lies between is all that has to be read.
"""

from __future__ import annotations

from typing import NamedTuple

_BETWEEN = b'},{"addresses":'
"""What stands between endpoints where each begins with its addresses, as Go's encoder writes them; never inside a string."""
_OBJECTS = b"},{"
_START = len(b"},")
_STEP = 512
_OPEN, _CLOSE = b"[", b"]"


class Difference(NamedTuple):
    """What lies between the endpoints that two lists begin with, and those that both end with (numbers of endpoints).

    text: what lies there in the second list, a JSON list itself.
    """

    head: int
    tail: int
    text: bytes


def difference(before: bytes, now: bytes, count: int) -> Difference | None:
    """Where two lists of endpoints differ; None where that cannot be told. count: how many the first one has."""
    limit = min(len(before), len(now))
    last = before.rfind(_BETWEEN, 0, _common_start(before, now, limit) - _START + len(_BETWEEN))
    start = len(_OPEN) if last < 0 else last + _START
    next_ = before.find(_BETWEEN, len(before) - _common_end(before, now, limit - start) - 1)
    end = len(before) - len(_CLOSE) if next_ < 0 else next_ + 1
    head = before.count(_BETWEEN, 0, start - _START + len(_BETWEEN))
    tail = before.count(_BETWEEN, end - 1)
    boundaries = head + before.count(_BETWEEN, start, end) + tail
    if boundaries != count - 1 or before.count(_OBJECTS) != boundaries or limit < len(_OPEN + _CLOSE):
        return None  # something begins otherwise than with its addresses, or holds objects of its own
    stop = len(now) - (len(before) - end)
    if stop < start or not now.endswith(_CLOSE):
        return None
    return Difference(head, tail, _OPEN + now[start:stop] + _CLOSE)


def _common_start(first: bytes, second: bytes, limit: int) -> int:
    """With how many equal bytes two texts begin, up to ``limit``; by halves, because comparing bytes is all but free."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if first.startswith(second[low:middle], low):
            low = middle
        else:
            high = middle - 1
    return low


def _common_end(first: bytes, second: bytes, limit: int) -> int:
    """With how many equal bytes two texts end, up to ``limit``."""
    low, high, step = 0, limit, _STEP
    while step < limit:  # as a rule one endpoint differs, and all behind it is the same
        if first.endswith(second[len(second) - limit + step :]):
            low, high = limit - step, limit - step // 2 if step > _STEP else limit
            break
        step *= 2
    while low < high:
        middle = (low + high + 1) // 2
        if first.endswith(second[len(second) - middle : len(second) - low], 0, len(first) - low):
            low = middle
        else:
            high = middle - 1
    return low
