"""The same experiment by two versions of the code: losses and accuracies, seed by seed, as a Markdown table.

    python benchmarks/losses.py OLD_URI NEW_URI [--experiment NAME]

The URIs are those of MLflow tracking databases, which are only read. Runs are matched by KEYS, among them the seed; means are
over the seeds that both stores have.
"""

from __future__ import annotations

import argparse

import mlflow
import pandas as pd

TAGS = ["stage", "task", "weak", "strong", "method"]
PARAMS = ["head", "weights", "labels", "loss", "train_size"]
KEYS = [*TAGS, *PARAMS, "seed"]
SHOWN = [*TAGS, "head"]
METRICS = {"train_loss": "metrics.train/loss", "accuracy": "metrics.test/accuracy"}
COLUMNS = [*SHOWN, "seeds", "loss, old", "loss, new", "largest difference", "accuracy, old", "accuracy, new"]


def runs(uri: str, experiment: str | None) -> pd.DataFrame:
    """One row a finished run of a trained model, by KEYS."""
    mlflow.set_tracking_uri(uri)
    names = [experiment] if experiment else [item.name for item in mlflow.search_experiments() if "claims" not in item.name]
    if len(names) != 1:
        raise SystemExit(f"--experiment must be one of {', '.join(names)}")
    rows = mlflow.search_runs(experiment_names=names, filter_string="attributes.status = 'FINISHED'", max_results=50_000)
    assert isinstance(rows, pd.DataFrame)
    if METRICS["train_loss"] not in rows:
        return pd.DataFrame(columns=[*KEYS, *METRICS])
    rows = rows[rows[METRICS["train_loss"]].notna()]
    columns = {name: f"tags.w2s.{name}" for name in TAGS} | {name: f"params.{name}" for name in [*PARAMS, "seed"]}
    keys = {name: rows.get(column, pd.Series("", rows.index)).fillna("") for name, column in columns.items()}
    values = {name: rows.get(column, pd.Series(float("nan"), rows.index)) for name, column in METRICS.items()}
    return pd.DataFrame(keys | values)


def table(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """The rows that both have, by SHOWN. Raises SystemExit where KEYS do not tell the runs of a store apart."""
    for name, rows in (("OLD_URI", old), ("NEW_URI", new)):
        if rows.duplicated(KEYS).any():
            raise SystemExit(f"{name} has several runs of {dict(rows[rows.duplicated(KEYS)].iloc[0][KEYS])}")
    both = old.merge(new, on=KEYS, suffixes=("_old", "_new"), validate="one_to_one")
    both["apart"] = (both["train_loss_old"] - both["train_loss_new"]).abs()
    groups = both.groupby([*TAGS, *PARAMS], sort=False)
    means = groups[["train_loss_old", "train_loss_new", "accuracy_old", "accuracy_new"]].mean()
    rows = means.assign(seeds=groups.size(), apart=groups["apart"].max()).reset_index()
    order = [*SHOWN, "seeds", "train_loss_old", "train_loss_new", "apart", "accuracy_old", "accuracy_new"]
    return rows[order].set_axis(COLUMNS, axis=1).sort_values(SHOWN, kind="stable")


def markdown(rows: pd.DataFrame) -> str:
    """The table as text; numbers to four decimals, the difference to two digits."""
    lines = [f"| {' | '.join(rows.columns)} |", "|" + "---|" * len(rows.columns)]
    for row in rows.itertuples(index=False):
        cells = [f"{value:.2g}" if at == COLUMNS.index("largest difference") else _cell(value) for at, value in enumerate(row)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: object) -> str:
    return ("" if pd.isna(value) else f"{value:.4f}") if isinstance(value, float) else str(value)


def main() -> None:
    """Read both stores and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--experiment", help="name of the experiment; required if a store has several")
    options = parser.parse_args()
    old, new = (runs(uri, options.experiment) for uri in (options.old, options.new))
    rows = table(old, new)
    print(markdown(rows))
    print(f"\n{int(rows['seeds'].sum())} runs in both; {len(old)} and {len(new)} trained runs in all")


if __name__ == "__main__":
    main()
