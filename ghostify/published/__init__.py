"""The figures of the GhostNet paper's tables, to stand beside what is measured here."""

from ghostify.published.tables import (
    CITATION,
    PublishedRow,
    PublishedTable,
    published_tables,
    read_published,
)

__all__ = ["CITATION", "PublishedRow", "PublishedTable", "published_tables", "read_published"]
