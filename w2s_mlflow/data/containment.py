"""Containment: rows of one part that contain a row of another part, or are contained in one, are dropped and counted.

A row is contained in another if each of its texts is a run of words of a text of the other row, and at least one of its texts
has four words or more (`texts.RUN`; a character of a script without spaces counts half). Words are normalised (`texts.words`).
Shorter texts do not count: in SST-2, where many rows are single words, every second row would be dropped. Rows of the same
group are not compared, because they are never in different parts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from w2s_mlflow.data import texts
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.records import Row, Rows

MANY = 0.2
"""Share of the rows of a part above which the command `tasks --check` warns that so many were dropped."""

Groups = list[list[Row]]
Partners = Mapping[str, frozenset[str]]
"""Ids of the training rows that contain a row or are contained in it, by the row's id."""


def partners(rows: Rows) -> Partners:
    """Return the training rows that contain each row or are contained in it. Rows without compared texts have none."""
    compared = [row for row in (*rows.train, *rows.heldout) if row.compared]
    if not compared:
        return {}
    items = [[texts.words(text) for text in row.compared] for row in compared]
    groups = np.unique([row.example.group for row in compared], return_inverse=True)[1].tolist()
    training = {row.example.id for row in rows.train}
    found: dict[str, set[str]] = defaultdict(set)
    for pair in texts.containments(items, groups):
        first, second = (compared[number].example.id for number in pair)
        for one, other in ((first, second), (second, first)):
            if other in training:
                found[one].add(other)
    return {id_: frozenset(others) for id_, others in found.items()}


def drop(parts: dict[str, Groups], others: Groups, partners: Partners, where: str) -> dict[str, int]:
    """Remove the rows of `parts` that have a partner among `others`, in place, and return the number of such rows by part.

    Raises:
        ConfigError: no row of a part is left; the message says that the partners are in `where`.
    """
    ids = {row.example.id for group in others for row in group}
    dropped = {}
    for name, groups in parts.items():
        kept = [[row for row in group if ids.isdisjoint(partners.get(row.example.id, ()))] for group in groups]
        parts[name] = [group for group in kept if group]
        dropped[name] = sum(map(len, groups)) - sum(map(len, kept))
        if groups and not parts[name]:
            raise ConfigError(f"every row of {name} contains a row of {where}, or is contained in one, so none is left")
    return {name: count for name, count in dropped.items() if count}
