"""Functions that find the files of one split of a data set in a local mirror.

A mirror may be laid out in three ways:

- ours: `<owner>/<name>/<configuration>/<split>.parquet`, with the configuration `default` if a data set has no others;
- as `hf download OWNER/NAME --repo-type dataset --local-dir MIRROR/OWNER/NAME` leaves the files: one or more files per split,
  such as `<configuration>/train-00000-of-00002.parquet`, or `<configuration>/train/0000.parquet` in the branch of converted
  copies; the directory of a data set without configurations is called `data`, or there is none;
- as `hf download` leaves them in a cache (`--cache-dir MIRROR`): `datasets--<owner>--<name>/snapshots/<commit>/...`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from w2s_mlflow.exceptions import ConfigError

DEFAULT = "default"
"""Configuration of a data set that has no configurations."""
_SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?\.parquet")
_CONVERTED = re.compile(r"\d{4,5}\.parquet")


def repositories(mirror: Path, path: str, revision: str) -> list[Path]:
    """Return the directories of the mirror that hold a copy of the data set `path`, in the order in which they are searched."""
    cache = mirror / f"datasets--{path.replace('/', '--')}"
    reference = cache / "refs" / revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    return [directory for directory in (mirror / path, cache / "snapshots" / commit) if directory.is_dir()]


def files(mirror: Path, path: str, config: str, revision: str, split: str) -> list[Path]:
    """Return the parquet files of a split, in the order of their numbers; empty if the mirror has none.

    Raises:
        ConfigError: some of the files are missing.
    """
    for repository in repositories(mirror, path, revision):
        for directory in [repository / config, *([repository / "data", repository] if config == DEFAULT else [])]:
            if (file := directory / f"{split}.parquet").is_file():
                return [file]
            if shards := _shards(directory, split) or _converted(directory / split):
                return shards
    return []


def _shards(directory: Path, split: str) -> list[Path]:
    matches = [match for name in _names(directory) if (match := _SHARD.fullmatch(name)) and match["split"] == split]
    if not matches:
        return []
    names = {int(match["number"]): match.string for match in matches}
    count = int(matches[0]["count"])
    if missing := set(range(count)) - names.keys():
        number = min(missing)
        raise ConfigError(f"{directory} must have {count} files of the split {split}, but number {number:05} is missing")
    return [directory / names[number] for number in range(count)]


def _converted(directory: Path) -> list[Path]:
    names = sorted(name for name in _names(directory) if _CONVERTED.fullmatch(name))
    if missing := [number for number, name in enumerate(names) if int(name.partition(".")[0]) != number]:
        raise ConfigError(f"{directory} must have a file of every number, but number {missing[0]:04} is missing")
    return [directory / name for name in names]


def _names(directory: Path) -> Iterator[str]:
    return (file.name for file in directory.iterdir() if file.is_file()) if directory.is_dir() else iter(())
