"""Compare the error types that a person assigned with the types that the rules assign."""

from __future__ import annotations

import pandas as pd

from w2s_mlflow.tables import errors as by_rule

CAPTION = (
    "The n errors, over all seeds, that a person annotated (`analyze --error-annotations FILE`): the share of each annotated "
    "type, the agreement with the types that the rules assign, and Cohen's kappa."
)
FRAMES = ("errors",)
COLUMNS = [*by_rule.KEYS, "n", *by_rule.TYPES, "agreement", "kappa"]


def table(errors: pd.DataFrame) -> pd.DataFrame:
    """Return one row per combination of model pair, method and options that has annotated errors."""
    from sklearn.metrics import cohen_kappa_score

    coded = errors[errors["annotation"] != ""]
    rows = []
    for key, group in coded.groupby(by_rule.KEYS, sort=False):
        annotated, by_rules = group["annotation"], by_rule.types(group)
        row = dict(zip(by_rule.KEYS, key, strict=True)) | {"n": len(group), "agreement": float((annotated == by_rules).mean())}
        many_types = annotated.nunique() > 1 or by_rules.nunique() > 1  # kappa is undefined for a single type
        row |= {"kappa": float(cohen_kappa_score(annotated, by_rules)) if many_types else float("nan")}
        rows.append(row | {name: float((annotated == name).mean()) for name in by_rule.TYPES})
    return pd.DataFrame(rows, columns=COLUMNS)
