"""Read the error types that a person entered in the column `annotation` of the CSV file of the table `error_examples`."""

from __future__ import annotations

import csv

from w2s_mlflow.analysis.former_names import COLUMNS
from w2s_mlflow.data.user_files import regular_file
from w2s_mlflow.exceptions import must, unknown

NEEDED = ("run_id", "id", "annotation")


def read(path: str) -> dict[tuple[str, str], str]:
    """Return the type of each annotated error, by run id and example id. Rows without an annotation are skipped.

    Raises:
        ConfigError: the file does not exist, lacks a column, has an unknown type, or gives one error two types.
    """
    from w2s_mlflow.tables import errors

    file = regular_file("--error-annotations", path, "a CSV file")
    try:
        # The encoding utf-8-sig skips the byte order mark that spreadsheet programs write.
        with file.open(newline="", encoding="utf-8-sig") as opened:
            lines = csv.reader(opened)
            names = [COLUMNS.get(name, name) for name in next(lines, [])]
            rows = [dict(zip(names, line, strict=False)) for line in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise must("error_annotations", "a readable CSV file", f"{path} ({error})") from error
    if missing := [name for name in NEEDED if name not in names]:
        raise must(
            "error_annotations", f"a CSV file with the columns {', '.join(NEEDED)}", f"{path} without {', '.join(missing)}"
        )
    if repeated := [name for name in NEEDED if names.count(name) > 1]:
        raise must("error_annotations", f"a CSV file with one column {repeated[0]}", f"{path} with {names.count(repeated[0])}")
    code_by_error: dict[tuple[str, str], str] = {}
    for line, row in enumerate(rows, start=2):
        code, key = row.get("annotation", "").strip(), (row["run_id"], row["id"])
        if not code:
            continue
        if code not in errors.TYPES:
            raise unknown(f"the annotation in row {line} of --error-annotations {path}", code, errors.TYPES)
        if code_by_error.setdefault(key, code) != code:
            raise must(
                "error_annotations",
                "a CSV file with one annotation per error",
                f"{code_by_error[key]} and {code} for id {row['id']}",
            )
    return code_by_error
