"""A task of the user's own rows: `--task file:PATH`, a parquet, CSV or JSON lines file.

Columns: `text`, and where there are pairs `text_pair`; `label`, 0 or 1 (without it nothing can be scored); and, each optional,
`group` (rows that must not be separated), `id`, and `part`, "train" or "heldout". Without parts, one group in five is held out.
"""

from __future__ import annotations

from pathlib import Path

from w2s_mlflow.config import ConfigError
from w2s_mlflow.records import NO_LABEL, Rows
from w2s_mlflow.tasks import Task, _files
from w2s_mlflow.tasks._hub import TEST_SIZE, TRAIN_SIZE
from w2s_mlflow.tasks._rows import Draft, Source, assemble, digest

TASKS: tuple[Task, ...] = ()
PARTS = ("train", "heldout")


def task(path: str) -> Task:
    """The task of a file, called by its stem. Raises ConfigError where there is no such file."""
    file = Path(path).expanduser()
    option = f"--task file:{path}"
    next(_files.rows(option, file, ()), None)  # what is wrong with the file as such is said before anything starts
    return Task(
        name=f"file:{path}",
        family="file",
        head="classify",
        classes=2,
        load=lambda data_dir: load(option, file),
        train_size=TRAIN_SIZE,
        test_size=TEST_SIZE,
        positive="the file's label 1",
        source=file.name,
        license="the file's own",
        key=file.stem,
    )


FILES = {"file": task}


def load(option: str, path: Path) -> Rows:
    """The rows of a file. Raises ConfigError that names the row for an empty text, a label or a part that is none."""
    numbered = enumerate(_files.rows(option, path, ("text",)), start=1)
    rows = [_checked(option, number, row) for number, row in numbered]
    if len({id_ for row in rows if (id_ := row.get("id")) is not None}) < sum(row.get("id") is not None for row in rows):
        raise ConfigError(f"{option} must have each id once")
    parts = [[row for row in rows if row.get("part", "train") == part] for part in PARTS]
    return assemble(_read, parts[0], parts[1] or None)


def _read(row: Source, part: str) -> Draft:
    segments = tuple(row[name] for name in ("text", "text_pair") if row.get(name) is not None)
    id_ = str(row["id"]) if row.get("id") is not None else f"{part}-{digest(*segments)}"
    groups = (str(row["group"]),) if row.get("group") is not None else ()
    return Draft(id_, segments, row["label"], groups)


def _checked(option: str, number: int, row: Source) -> Source:
    for name in ("text", "text_pair"):
        text = row.get(name, "-" if name == "text_pair" else None)
        if text is None and name == "text_pair":
            continue
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{option} must have text in the column {name}, row {number} has {text!r}")
    if row.get("part", "train") not in PARTS:
        raise ConfigError(f"{option} must have {' or '.join(PARTS)} in the column part, row {number} has {row['part']!r}")
    return {**row, "label": _label(option, number, row)}


def _label(option: str, number: int, row: Source) -> int:
    label = row.get("label", NO_LABEL)
    if isinstance(label, str) and label in ("0", "1"):
        return int(label)
    if label in (0, 1) or "label" not in row:
        return int(label)
    raise ConfigError(f"{option} must have 0 or 1 in the column label, row {number} has {label!r}")
