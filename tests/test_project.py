"""The files around the package say the same as the package."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from w2s_mlflow import exceptions, registry

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "LOG.md"]
GENERATED = "reference/api/"
"""Pages that the site's hook makes."""
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())
ENTRY_POINTS: dict[str, Any] = PROJECT["entry_points"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return {_plain(name): version for name, version in (line.split("==") for line in lines)}


def requirements() -> set[str]:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return {_plain(re.split(r"[><=]", line)[0]) for line in found}


def _lowest_python() -> str:
    lowest: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    return lowest.removeprefix(">=")


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def test_every_stage_is_an_entry_point() -> None:
    assert set(ENTRY_POINTS) == set(registry.plugins("stages"))


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_declared_parameters_are_the_config_s_own_with_its_defaults(name: str) -> None:
    fields = {field.name: field.default for field in dataclasses.fields(registry.plugin("stages", name, "").Config)}
    for parameter, declared in ENTRY_POINTS[name]["parameters"].items():
        assert str(fields[parameter]) == str(declared["default"])
        assert f"{exceptions.flag(parameter)} {{{parameter}}}" in ENTRY_POINTS[name]["command"]


@pytest.mark.parametrize("name", ["supervisor", "ceiling", "student"])
def test_what_names_a_run_is_declared(name: str) -> None:
    fields = {field.name for field in dataclasses.fields(registry.plugin("stages", name, "").Config)}
    assert set(ENTRY_POINTS[name]["parameters"]) == fields & {"task", "weak", "strong", "method", "seed"}


def test_conda_and_pyproject_name_the_same_packages_at_the_pinned_versions() -> None:
    python, pip, dependencies = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
    constraints, *lines = dependencies["pip"]
    conda = dict(line.split("==") for line in lines)
    assert {_plain(name) for name in conda} == requirements()
    assert {name: pins()[_plain(name)] for name in conda} == conda
    assert (python, pip, constraints) == (f"python={_lowest_python()}", "pip", "-c constraints.txt")


def test_the_readme_has_exactly_two_commands() -> None:
    section = (ROOT / "README.md").read_text().split("## Two commands")[1].split("\n## ")[0]
    commands = [line for line in section.splitlines() if line.startswith("    ")]
    assert len(commands) == 2
    assert "mlflow run ." in commands[0] and "pytest" in commands[1]
    assert all("-c constraints.txt" in command for command in commands)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_between_pages_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert [target for target in missing if not target.startswith(GENERATED)] == []


def test_every_page_stands_in_the_index_of_the_documentation() -> None:
    index = ROOT / "docs" / "index.md"
    named = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)\s#]+)", index.read_text())}
    assert {page.resolve() for page in PAGES if page != index} <= named
