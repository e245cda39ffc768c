"""What a person sees of the runs in the MLflow UI, in a real browser."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow.genai import review_queues

from docs import screenshots
from tests import clicking
from tests.clicking import seen
from tests.conftest import SMALL
from w2s_mlflow.debate import transcripts
from w2s_mlflow.stages import analyze, debate, student
from w2s_mlflow.tracking import human_feedback, results, traces
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.results import Result

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(screenshots.browser() is None, reason=f"none of {', '.join(screenshots.BROWSERS)} is on PATH"),
]


def test_the_ui_shows_students_in_groups_over_seeds(experiment: str, tracking_uri: str) -> None:
    found = [
        student.run(student.Config(method=method, seed=seed, early_stopping="none", **SMALL))
        for method, seed in (("baseline", 0), ("baseline", 1), ("confidence", 0))
    ]
    experiment_id = server.experiment().experiment_id
    with screenshots.serving(tracking_uri) as served:
        screenshots.keep_view(served, experiment_id)
        seen(
            served.pages + screenshots.runs_page(experiment_id),
            "Group: strong: chess-426k, method: baseline, weak: chess-60k 2",
            "Group: strong: chess-426k, method: confidence, weak: chess-60k 1",
            *("test/accuracy", "test/pgr", str(found[2].metrics["test/accuracy"])[:6]),
            *(result.name for result in found),
        )
        bar = np.mean([run.metrics["test/pgr"] for run in found[:2]])  # of baseline, over its seeds
        seen(
            served.pages + screenshots.charts_page(experiment_id),
            *("PGR (2)", "model/parameters vs. test/pgr", f"{bar:.2f}".replace("-", "\N{MINUS SIGN}")),
        )


def test_the_report_says_in_a_browser_what_the_stored_files_say(experiment: str) -> None:
    found = [student.run(student.Config(seed=seed, weak="chess-27k", strong="chess-222k")) for seed in (0, 1)]
    report = analyze.run(analyze.Config()).artifact("report.html")
    page = screenshots.browse(report.as_uri(), "--dump-dom")
    (table,) = re.findall(r'<div class="scroll" id="headline-table">(.*?)</div>', page, flags=re.DOTALL)
    names = re.findall(r"<th>(.*?)</th>", table)
    (cells,) = (re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(<td.*?)</tr>", table))
    shown = dict(zip(names, cells, strict=True))
    weak, own, top = np.mean([accuracies(run) for run in found], axis=0)
    assert shown["accuracy"] == f"{own:.3f}" and shown["weak_accuracy"] == f"{weak:.3f}"
    assert shown["pgr"] == f"{(own - weak) / (top - weak):.3f}" and shown["n"] == "2"
    assert page.count("<svg") >= 4 and page.count("<title>") > 5  # the script has given each point its words


def accuracies(run: Result) -> list[float]:
    """Of a student's supervisor, of itself and of its ceiling, from the parquet files alone."""
    gold = pq.read_table(run.artifact("gold/test.parquet")).to_pydict()
    truth, found = dict(zip(gold["id"], gold["gold"], strict=True)), []
    for other in (run.tags["w2s.weak_run_id"], run.run_id, run.tags["w2s.ceiling_run_id"]):
        table = pq.read_table(results.get(other).artifact("predictions/test.parquet")).to_pydict()
        right = [int(np.argmax(p)) == truth[id_] for id_, p in zip(table["id"], table["probabilities"], strict=True)]
        found.append(float(np.mean(right)))
    return found


def test_the_ui_opens_a_report_from_the_artifact_pane(experiment: str, tracking_uri: str) -> None:
    student.run(student.Config(**SMALL))
    analysis = analyze.run(analyze.Config())
    path = f"/experiments/{server.experiment().experiment_id}/runs/{analysis.run_id}/artifacts/report.html"
    with screenshots.serving(tracking_uri) as served:
        seen(served.pages + path, "report.html", element="iframe.mlflow-html-iframe[src^='blob:']")


def test_a_debate_is_read_and_judged_on_its_trace_and_in_the_review_queue(experiment: str, tracking_uri: str) -> None:
    held = debate.run(debate.Config(weak="chess-27k", strong="chess-121k", num_questions=3, eval_split="none", **SMALL))
    table, _ = transcripts.read(held)
    one = next(row for row in transcripts.rows(table))
    place, trace = server.experiment().experiment_id, traces.trace_id(held.run_id, one["id"])
    queue = human_feedback.review(held.run_id)
    shown = next(shown for shown in human_feedback.unjudged(held.run_id, "ann") if shown.trace_id == trace)
    human_feedback.log(shown, "tie", "ann")
    with screenshots.serving(tracking_uri) as served:
        page = seen(f"{served.pages}/experiments/{place}/traces/{trace}", "Spans debate", *one["segments"])
        # the verdict of a person, beside the question
        seen(f"{served.pages}/experiments/{place}/runs/{held.run_id}/traces", "winner STRING", "tie")
        review_page = f"{served.pages}/experiments/{place}/review-queue?selectedQueueId={queue_id(queue, place)}"
        seen(review_page, f"{queue} 1 question", "Needs review (3)")
        form = f"winner {human_feedback.QUESTION} Select an option Submit"
        asked = seen(f"{review_page}&startReview=true", form, '"strong": "', '"weak": "')
    (spans,) = re.findall(r"Spans debate .*", page)
    claims = [f"{side} : {one[f'{side}_claim']}" for side in ("strong", "weak")]
    assert all(text in spans for text in ("strong", "weak", "judge model", *one["segments"], *claims))
    assert re.search(r"Outputs .*winner (strong|weak|tie) claim", spans)  # the verdict of the machine
    (first,) = (row for row in transcripts.rows(table) if row["segments"][0] in asked)
    for side in ("strong", "weak"):
        assert f'"{side}": "{first[f"{side}_claim"]}"' in asked and f'"{side}": "{first[f"{side}_explanation"]}"' in asked


def test_what_a_person_clicks_in_the_review_queue_is_a_vote(experiment: str, tracking_uri: str) -> None:
    held = debate.run(debate.Config(weak="chess-27k", strong="chess-121k", num_questions=3, eval_split="none", **SMALL))
    place, queue = server.experiment().experiment_id, human_feedback.review(held.run_id)

    async def judge(pages: str) -> None:
        async with clicking.browser() as page:
            await page.open(
                f"{pages}/experiments/{place}/review-queue?selectedQueueId={queue_id(queue, place)}&startReview=true"
            )
            for winner, done in (("weak", 1), ("tie", 2)):
                await page.click("Select an option")
                await page.click(winner)
                await page.click("Submit")
                await page.wait_for(f"{done} of 3 reviewed")

    with screenshots.serving(tracking_uri) as served:
        asyncio.run(judge(served.pages))
    found = human_feedback.pull(held.run_id)
    assert sorted(found.votes.values()) == [(), ("tie",), ("weak",)] and found.unreadable == 0
    found.check()


def queue_id(name: str, experiment_id: str) -> str:
    """The id of a review queue."""
    return str(review_queues.get_review_queue(name=name, experiment_id=experiment_id).queue_id)
