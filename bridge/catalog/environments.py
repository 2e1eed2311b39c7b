"""The view of environments and their sources. Its digest covers states and counts, never ages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from bridge.catalog.cursor import item_digest
from bridge.catalog.log import Change
from bridge.catalog.partition import EnvironmentDocument
from bridge.catalog.view import Delta, Page, View, encode_json


class EnvironmentsView(View):
    """Every environment with the state of each source."""

    collection = ""

    def evaluate_status(self) -> int:
        return 200

    def key(self, item: Any) -> str:
        return str(item.name)

    def page(self) -> Page:
        catalog = self.catalog
        documents = [partition.document(catalog.now) for _, partition in sorted(catalog.partitions.items())]
        return Page(documents, None)

    def digests(self, page: Page, fragments: Sequence[bytes]) -> list[int]:  # noqa: ARG002  # those hold ages
        return [self.digest_of(item) for item in page.items]

    def digest_of(self, item: Any) -> int:
        document: EnvironmentDocument = item
        sources = tuple(replace(source, age_ms=0) for source in document.sources)
        return item_digest(encode_json(replace(document, age_ms=0, revision=0, sources=sources)))

    def delta(self, change: Change) -> Delta | None:  # noqa: ARG002  # it is revised, not told of records
        return None

    def delta_since(self, changes: Iterable[Change]) -> Delta:  # noqa: ARG002  # it has no streams
        return Delta()
