"""Load sweep files (grids and searches) by name or path, and parse seeds."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from w2s_mlflow.exceptions import ConfigError, must, unknown
from w2s_mlflow.records import canonical_json

MOST_SEEDS = 1_000
"""Maximum number of seeds. The data of each is split before the first run starts, also with --plan."""
FOLDER = Path(__file__).parents[2] / "sweeps"


def read(name: str) -> ModuleType:
    """Run the file of a sweep (see `path`) and return it as a module.

    Raises:
        ConfigError: the file does not exist, cannot be loaded, or does not define exactly one of a grid and a search.
    """
    file = path(name)
    spec = importlib.util.spec_from_file_location("sweep_settings", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the file is the user's code: report any error as a short message
        raise ConfigError(f"--sweep {name}: {file.name} cannot be loaded: {type(error).__name__}: {error}") from error
    settings = getattr(module, "SETTINGS", None)
    if (settings is not None) == hasattr(module, "space") or (settings is not None and not _is_grid(settings)):
        raise ConfigError(
            f"--sweep {name}: {file.name} must define either SETTINGS (a list of dictionaries of options) or space(trial)"
        )
    return module


def _is_grid(settings: object) -> bool:
    """Return whether `settings` is a non-empty list or tuple of dictionaries whose keys are strings."""
    if not isinstance(settings, (list, tuple)) or not settings:
        return False
    return all(isinstance(setting, dict) and all(isinstance(name, str) for name in setting) for setting in settings)


def claim(name: str) -> str:
    """Return the comparisons of the claim that a grid file declares (CLAIM), as JSON; an empty string if it declares none.

    A list of dictionaries is one claim on several tasks or supervisors. Each comparison has the fields of tables.CLAIMS, except
    the claim's name.

    Raises:
        ConfigError: CLAIM does not have the form that docs/how-to/sweeps.md describes.
    """
    declared = getattr(read(name), "CLAIM", None)
    if declared is None:
        return ""
    parts = declared if isinstance(declared, list) and declared else [declared]
    for part in parts:
        _check_claim(name, part)
    return canonical_json([comparison for part in parts for comparison in _comparisons(part)])


def _comparisons(part: dict[str, Any]) -> list[dict[str, str]]:
    one = {key: part[key] for key in ("task", "weak")} | {"method": part.get("method", "baseline")}
    pairs = [(strong, reference) for strong in part["strong"] for reference in part["above"]]
    return [one | {"strong": strong, "reference": reference} for strong, reference in pairs]


def _check_claim(name: str, declared: object) -> None:
    texts, lists = {"task", "weak", "method"}, {"strong", "above"}
    form = "a dictionary with the texts task and weak, the lists strong and above, and optionally the text method"
    valid = isinstance(declared, dict) and {"task", "weak", *lists} <= declared.keys() <= texts | lists
    if valid and isinstance(declared, dict):
        valid = all(isinstance(declared[key], str) for key in texts & declared.keys())
        valid &= all(isinstance(declared[key], list) and declared[key] for key in lists)
        valid &= all(isinstance(item, str) for key in lists for item in declared[key])
    if not valid:
        raise ConfigError(f"--sweep {name}: CLAIM must be {form} (or a list of such dictionaries), got {declared!r}")


def parse_seeds(text: str, option: str = "seeds") -> list[int]:
    """Parse at most MOST_SEEDS seeds written as `0..4` or `0,3,7`. Raises ConfigError for anything else."""
    first, dots, last = text.partition("..")
    try:
        numbers = [int(part) for part in ((first, last) if dots else text.split(","))] if text.isascii() else []
    except ValueError:
        numbers = []
    if numbers and dots:
        if numbers[1] - numbers[0] >= MOST_SEEDS:
            raise must(option, f"at most {MOST_SEEDS:,} seeds", repr(text))
        numbers = list(range(numbers[0], numbers[1] + 1))
    if not numbers or min(numbers) < 0 or len(set(numbers)) != len(numbers):
        raise must(option, "a range such as 0..4, or distinct whole numbers separated by commas such as 0,3,7", repr(text))
    return numbers


def path(name: str) -> Path:
    """Return the file of a sweep: a shipped one if NAME is a plain name, else the file at the path NAME.

    A path has a slash or ends with `.py`. Files are run as code, so a plain name never means a file of the working directory.

    Raises:
        ConfigError: the file does not exist.
    """
    if name.endswith(".py") or "/" in name or os.sep in name:
        if name.endswith(".py") and Path(name).is_file():
            return Path(name)
        raise must("sweep", "the name of a shipped sweep or the path of an existing .py file", repr(name))
    files = {path.stem: path for path in sorted(FOLDER.glob("*.py"))}
    if name in files:
        return files[name]
    if (local := Path("sweeps") / f"{name}.py").is_file():
        raise ConfigError(
            f"{unknown('--sweep', name, files)}; to run the file of this directory, give its path: --sweep {local}"
        )
    raise unknown("--sweep", name, files)
