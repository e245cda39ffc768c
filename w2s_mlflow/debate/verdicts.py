"""Ask a judge about both orders of each debate, and cache its verdicts on this machine until the run is finished.

A judge may fail midway (missing key, unreachable server). Its verdicts are cached under a hash of judge and debate, so a
restarted run asks and pays for the missing verdicts only. Cache files that have not been used for 30 days are deleted when a
new cache file is created. The answers of the judge `endpoint` are also cached by judges/_chat.py.
"""

from __future__ import annotations

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
from w2s_mlflow.local import kept, scratch
from w2s_mlflow.records import Debate, Verdict, canonical_json

LOG = logging.getLogger("w2s_mlflow")
CHUNK = 64
"""Number of debates per call of a judge, each in both orders. If a call fails, only the verdicts of that call are lost."""


@dataclass(frozen=True)
class Verdicts:
    """Verdicts of one judge on each debate. Each debate is judged twice: with the strong and with the weak side shown first."""

    judge: str
    strong_first: tuple[Verdict, ...]
    weak_first: tuple[Verdict, ...]

    def preference_N(self) -> NDArray[np.float64]:
        """Return D of each debate (Definition 4); NaN unless both orders of the debate have a verdict."""
        pairs = zip(self.strong_first, self.weak_first, strict=True)
        return np.array([judges.preference(*pair) for pair in pairs], dtype=np.float64)

    def bias_N(self) -> NDArray[np.float64]:
        """Return the judge's log-odds for the side shown first in each debate; NaN unless both orders have a verdict."""
        pairs = zip(self.strong_first, self.weak_first, strict=True)
        return np.array([judges.bias(*pair) for pair in pairs], dtype=np.float64)

    def cost(self) -> int:
        """Return the total cost of the verdicts in tokens."""
        return sum(verdict.cost for verdict in self.strong_first + self.weak_first)


def ask(name: str, judge: Judge, debates: Sequence[Debate], cache: Path) -> Verdicts:
    """Return the judge's verdicts on both orders of each debate.

    Args:
        debates: the debates, with the strong side first.
        cache: file of cached verdicts, to which the verdicts of each call of the judge are appended.

    Raises:
        ConfigError: the judge cannot continue. The verdicts of completed calls are cached.
    """
    known = _read(cache)
    both = [order for debate in debates for order in (debate, debate.swapped())]
    keys = [_key(name, debate) for debate in both]
    missing = [row for row, key in enumerate(keys) if key not in known]
    if known and len(missing) < len(both):
        LOG.info("%d of %d verdicts of the judge %s were cached", len(both) - len(missing), len(both), name)
    for start in range(0, len(missing), 2 * CHUNK):
        rows = missing[start : start + 2 * CHUNK]
        answers = judge([both[row] for row in rows])
        added = {keys[row]: verdict for row, verdict in zip(rows, answers, strict=True)}
        _append(cache, added)
        known |= added
    verdicts = [known[key] for key in keys]
    return Verdicts(name, tuple(verdicts[::2]), tuple(verdicts[1::2]))


def cache_path(fingerprint: str) -> Path:
    """Return the path of the file that caches the verdicts of an unfinished run."""
    return scratch.cache_path("verdicts") / f"{fingerprint}.jsonl"


def _key(name: str, debate: Debate) -> str:
    return hashlib.sha256(canonical_json([name, dataclasses.asdict(debate)]).encode()).hexdigest()[:32]


def _append(cache: Path, added: dict[str, Verdict]) -> None:
    scratch.make_directory(cache.parent)
    if not cache.exists():
        scratch.remove_old(cache.parent.glob("*.jsonl"))
    with cache.open("a", encoding="utf-8") as file:
        # Write a newline first, because the file may end in a truncated line.
        for key, verdict in added.items():
            line = canonical_json([key, dataclasses.asdict(verdict)])
            file.write(f"\n{kept.digest(line.encode()).decode()} {line}")


def _read(cache: Path) -> dict[str, Verdict]:
    """Return the cached verdicts by key, without those of damaged lines. The file's modification time is updated."""
    if not cache.exists():
        return {}
    cache.touch()
    return dict(_lines(cache.read_bytes()))


def _lines(content: bytes) -> Iterator[tuple[str, Verdict]]:
    for line in content.split(b"\n"):
        recorded, _, text = line.partition(b" ")
        if text and recorded == kept.digest(text):  # a truncated or damaged line is asked for again
            key, verdict = json.loads(text)
            yield key, Verdict(**verdict)
