"""Verdicts as they come: both orders of each debate, kept on this machine until the run that wants them is finished.

A judge may fail in the middle (a key that is missing, a server that is out of reach). What it has said by then is kept by what
was asked, and a second start asks for the rest alone: nothing is paid for twice. What nobody has gone on from for as long as
a checkpoint waits is removed when the next run is judged; a paid judge's answers are in its own store (judges/endpoint.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from w2s_mlflow import judges
from w2s_mlflow.judges import Judge
from w2s_mlflow.local import scratch
from w2s_mlflow.records import Debate, Verdict, canonical_json

LOG = logging.getLogger("w2s_mlflow")
CHUNK = 64
"""Debates in one call of a judge, each in both orders: what is lost, at most, where it fails."""


@dataclass(frozen=True)
class Verdicts:
    """What one judge says of debates, row for row: with the strong side shown first, and with the weak side."""

    judge: str
    strong_first: tuple[Verdict, ...]
    weak_first: tuple[Verdict, ...]

    def preference_N(self) -> NDArray[np.float64]:
        """D of each debate, not a number where an order has no verdict (Definition 4)."""
        pairs = zip(self.strong_first, self.weak_first, strict=True)
        return np.array([judges.preference(*pair) for pair in pairs], dtype=np.float64)

    def bias_N(self) -> NDArray[np.float64]:
        """The log-odds given to the first place, not a number where an order has no verdict."""
        pairs = zip(self.strong_first, self.weak_first, strict=True)
        return np.array([judges.bias(*pair) for pair in pairs], dtype=np.float64)

    def cost(self) -> int:
        """Tokens paid for, all told."""
        return sum(verdict.cost for verdict in self.strong_first + self.weak_first)


def ask(name: str, judge: Judge, debates: Sequence[Debate], kept: Path) -> Verdicts:
    """The judge's verdicts of debates whose first side is the strong one, in both orders.

    Args:
        kept: the file of what was said before, which grows as the judge speaks.

    Raises:
        ConfigError: the judge cannot go on; what it has said is kept.
    """
    known = _read(kept)
    both = [order for debate in debates for order in (debate, debate.swapped())]
    keys = [_key(name, debate) for debate in both]
    missing = [row for row, key in enumerate(keys) if key not in known]
    if known and len(missing) < len(both):
        LOG.info("%d of %d verdicts of the judge %s were kept", len(both) - len(missing), len(both), name)
    for start in range(0, len(missing), 2 * CHUNK):
        rows = missing[start : start + 2 * CHUNK]
        found = judge([both[row] for row in rows])
        said = {keys[row]: verdict for row, verdict in zip(rows, found, strict=True)}
        _append(kept, said)
        known |= said
    verdicts = [known[key] for key in keys]
    return Verdicts(name, tuple(verdicts[::2]), tuple(verdicts[1::2]))


def cache_path(fingerprint: str) -> Path:
    """Where the verdicts of a run that is not finished are kept."""
    return scratch.cache_path("verdicts") / f"{fingerprint}.jsonl"


def _key(name: str, debate: Debate) -> str:
    return hashlib.sha256(canonical_json([name, dataclasses.asdict(debate)]).encode()).hexdigest()[:32]


def _append(kept: Path, said: dict[str, Verdict]) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    if not kept.exists():
        scratch.remove_old(kept.parent.glob("*.jsonl"))
    with kept.open("a", encoding="utf-8") as file:
        for key, verdict in said.items():  # the newline first: what a kill has cut does not spoil the next line
            file.write("\n" + canonical_json([key, dataclasses.asdict(verdict)]))


def _read(kept: Path) -> dict[str, Verdict]:
    """What was said before, which is so marked as used; a line that a kill has cut is left out."""
    if not kept.exists():
        return {}
    kept.touch()
    return dict(_lines(kept.read_text(encoding="utf-8")))


def _lines(text: str) -> Iterator[tuple[str, Verdict]]:
    for line in text.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            key, verdict = json.loads(line)
            yield key, Verdict(**verdict)
