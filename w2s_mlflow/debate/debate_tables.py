"""Write the Parquet tables of a debate run: one with a row per debate, and one with a row per verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow.debate.play import DebateTranscripts
from w2s_mlflow.debate.verdicts import Verdicts

if TYPE_CHECKING:
    import pandas as pd

DEBATES, VERDICTS = "debates.parquet", "verdicts.parquet"


def write(directory: Path, played: DebateTranscripts, verdicts: Sequence[Verdicts]) -> None:
    """Write the tables of debates and of verdicts to `directory`."""
    _debates(played).to_parquet(directory / DEBATES, index=False)
    _verdicts(played, verdicts).to_parquet(directory / VERDICTS, index=False)


def _debates(played: DebateTranscripts) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for number, debate in enumerate(played.debates):
        question = debate.question
        row: dict[str, Any] = {"id": question.id, "group": question.group, "segments": list(question.segments)}
        row |= {"candidates": list(question.candidates)}
        for side in (debate.first, debate.second):
            values: dict[str, Any] = {"decision": side.decision, "claim": side.claim}
            values |= {"said": list(played.said[side.name][number]), "heard": list(played.heard[side.name][number])}
            values |= {"explanation": side.explanation.text, "pieces": list(side.explanation.pieces)}
            row |= {f"{side.name}_{name}": value for name, value in values.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def _verdicts(played: DebateTranscripts, verdicts: Sequence[Verdicts]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {"id": debate.question.id, "judge": answer.judge, **asdict(verdict)}
        for answer in verdicts
        for debate, *both in zip(played.debates, answer.strong_first, answer.weak_first, strict=True)
        for verdict in both
    ]
    return pd.DataFrame(rows)
