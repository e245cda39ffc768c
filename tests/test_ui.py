"""What a person sees of the runs in the MLflow UI, in a real browser."""

from __future__ import annotations

import html
import re

import pytest

from docs import screenshots
from tests.conftest import SMALL
from w2s_mlflow.stages import student
from w2s_mlflow.tracking import server

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(screenshots.browser() is None, reason=f"none of {', '.join(screenshots.BROWSERS)} is on PATH"),
]


def seen(url: str) -> str:
    """The words of a page, as the browser shows them after its scripts have run."""
    page = screenshots.browse(url, "--dump-dom", f"--window-size={screenshots.WIDTH},900")
    return " ".join(html.unescape(re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)).split())


def test_the_ui_shows_students_in_groups_over_seeds(experiment: str, tracking_uri: str) -> None:
    found = [
        student.run(student.Config(method=method, seed=seed, **SMALL))
        for method, seed in (("baseline", 0), ("baseline", 1), ("confidence", 0))
    ]
    experiment_id = server.experiment().experiment_id
    with screenshots.serving(tracking_uri) as served:
        screenshots.keep_view(served, experiment_id)
        page = seen(served.pages + screenshots.runs_page(experiment_id))
    assert "Group: strong: chess-426k, method: baseline 2" in page
    assert "Group: strong: chess-426k, method: confidence 1" in page
    assert all(result.name in page for result in found)
    assert "test/accuracy" in page and "test/pgr" in page
    assert str(found[2].metrics["test/accuracy"])[:6] in page
