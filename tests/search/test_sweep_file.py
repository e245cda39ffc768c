"""Which file a sweep's name means. Files are run as code, so none is run that was not asked for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.search import space, storage, sweep_file, trials

GRID = "SETTINGS = [{'stage': 'student'}]\n"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with sweeps of its own, one of them named as a shipped one."""
    (tmp_path / "sweeps").mkdir()
    for name in ("default", "mine"):
        (tmp_path / "sweeps" / f"{name}.py").write_text(GRID)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("directory")
def test_a_plain_name_means_the_shipped_sweep_and_a_path_the_file() -> None:
    assert sweep_file.path("default") == sweep_file.FOLDER / "default.py"
    assert sweep_file.path("sweeps/default.py") == Path("sweeps/default.py")
    assert sweep_file.read("./sweeps/mine.py").SETTINGS == [{"stage": "student"}]
    with pytest.raises(ConfigError, match=r"got 'mine'.*give its path: --sweep sweeps/mine\.py"):
        sweep_file.path("mine")
    for missing in ("sweeps/default", "other/default.py", "default.py"):
        with pytest.raises(
            ConfigError, match=r"--sweep must be the name of a shipped sweep or the path of an existing \.py file"
        ):
            sweep_file.path(missing)


@pytest.mark.parametrize("code", ["0", "None", "'bye'"])
def test_a_file_that_ends_the_process_is_an_error(directory: Path, code: str) -> None:
    file = directory / "ends.py"
    file.write_text(f"raise SystemExit({code})\n")
    with pytest.raises(ConfigError, match=r"--sweep .*ends\.py cannot be loaded: SystemExit"):
        sweep_file.read(str(file))

    def ends(trial: Any) -> dict[str, Any]:
        raise SystemExit(0)

    search: Any = SimpleNamespace(name="ends", space=ends, objective="oracle")
    with pytest.raises(ConfigError, match=r"space\(trial\) failed: SystemExit"):
        space.sample_params(search, Any)  # type: ignore[arg-type]


def test_plots_that_cannot_be_drawn_are_left_out(tmp_path: Path) -> None:
    """Optuna cannot draw choices that are tuples; and a `$` in a name is no mathematics."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for pair, value in (((1e-4, 1), 0.5), ((1e-3, 2), 0.7), ((1e-4, 1), 0.6)):
        trial = study.ask()
        with storage.suppress_warnings():
            trial.suggest_categorical("pair $_{", [(1e-4, 1), (1e-3, 2)])  # type: ignore[list-item]
        trial.suggest_float("rate", 1e-5, 1e-2, log=True)
        study.tell(trial, value + pair[1] / 100)
    search: Any = SimpleNamespace(metric="selection/accuracy $_{")
    trials.plot(study, search, tmp_path / "search")
    assert (tmp_path / "search/trials.csv").exists()
    assert (tmp_path / "search/optimization_history.png").stat().st_size > 1000
