"""Load sweep files (grids and searches) by name or path, and parse seeds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from w2s_mlflow.exceptions import ConfigError, must, unknown
from w2s_mlflow.records import canonical_json

FOLDER = Path(__file__).parents[2] / "sweeps"


def read(name: str) -> ModuleType:
    """Load the file `sweeps/NAME.py`, or the file at the path NAME if NAME ends with `.py`, as a module.

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

    Each comparison has the fields of tables.CLAIMS, except the claim's name.

    Raises:
        ConfigError: CLAIM does not have the form that docs/how-to/sweeps.md describes.
    """
    declared = getattr(read(name), "CLAIM", None)
    if declared is None:
        return ""
    _check_claim(name, declared)
    one = {key: declared[key] for key in ("task", "weak")} | {"method": declared.get("method", "baseline")}
    pairs = [(strong, reference) for strong in declared["strong"] for reference in declared["above"]]
    return canonical_json([one | {"strong": strong, "reference": reference} for strong, reference in pairs])


def _check_claim(name: str, declared: object) -> None:
    texts, lists = {"task", "weak", "method"}, {"strong", "above"}
    form = "a dictionary with the texts task and weak, the lists strong and above, and optionally the text method"
    valid = isinstance(declared, dict) and {"task", "weak", *lists} <= declared.keys() <= texts | lists
    if valid and isinstance(declared, dict):
        valid = all(isinstance(declared[key], str) for key in texts & declared.keys())
        valid &= all(isinstance(declared[key], list) and declared[key] for key in lists)
        valid &= all(isinstance(item, str) for key in lists for item in declared[key])
    if not valid:
        raise ConfigError(f"--sweep {name}: CLAIM must be {form}, got {declared!r}")


def parse_seeds(text: str, option: str = "seeds") -> list[int]:
    """Parse seeds written as `0..4` or `0,3,7`. Raises ConfigError for anything else."""
    try:
        first, dots, last = text.partition("..")
        seeds = list(range(int(first), int(last) + 1)) if dots else [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise must(option, "a range such as 0..4, or distinct whole numbers separated by commas such as 0,3,7", repr(text))
    return seeds


def path(name: str) -> Path:
    """Return the path `sweeps/NAME.py`, or NAME itself if it ends with `.py`. Raises ConfigError if no such file exists."""
    if name.endswith(".py"):
        if Path(name).is_file():
            return Path(name)
        raise ConfigError(f"--sweep must be the path of an existing file, got {name!r}")
    files = {path.stem: path for folder in (FOLDER, Path("sweeps")) for path in sorted(folder.glob("*.py"))}
    if name not in files:
        raise unknown("--sweep", name, files)
    return files[name]
