"""The file of a grid or a search, by its name or path; and seeds as they are written."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from w2s_mlflow.exceptions import ConfigError, must, unknown

FOLDER = Path(__file__).parents[2] / "sweeps"


def read(name: str) -> ModuleType:
    """The module `sweeps/NAME.py`, or the file NAME.

    Raises:
        ConfigError: there is none, it cannot be read, or it defines neither a grid nor a search.
    """
    file = path(name)
    spec = importlib.util.spec_from_file_location("sweep_settings", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the file is the user's: whatever is wrong with it is one sentence
        raise ConfigError(f"--sweep {name}: {file.name} cannot be read: {type(error).__name__}: {error}") from error
    settings = getattr(module, "SETTINGS", None)
    if (settings is not None) == hasattr(module, "space") or (settings is not None and not _is_grid(settings)):
        raise ConfigError(
            f"--sweep {name}: {file.name} must define SETTINGS, a list of dictionaries of options, or space(trial), not both"
        )
    return module


def _is_grid(settings: object) -> bool:
    """Whether it is a list of one dictionary or more, from names to values."""
    if not isinstance(settings, (list, tuple)) or not settings:
        return False
    return all(isinstance(setting, dict) and all(isinstance(name, str) for name in setting) for setting in settings)


def parse_seeds(text: str, option: str = "seeds") -> list[int]:
    """`0..4` or `0,3,7` as numbers. Raises ConfigError for anything else."""
    try:
        first, dots, last = text.partition("..")
        found = list(range(int(first), int(last) + 1)) if dots else [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0 or len(set(found)) != len(found):
        raise must(option, "a range such as 0..4 or a list such as 0,3,7 of different whole numbers", repr(text))
    return found


def path(name: str) -> Path:
    """Where the file lies. Raises ConfigError where there is none."""
    if name.endswith(".py"):
        if Path(name).is_file():
            return Path(name)
        raise ConfigError(f"--sweep must be the path of a file that exists, got {name!r}")
    known = {path.stem: path for folder in (FOLDER, Path("sweeps")) for path in sorted(folder.glob("*.py"))}
    if name not in known:
        raise unknown("--sweep", name, known)
    return known[name]
