"""Human verdicts on debates, stored as MLflow feedback named `winner` (strong, weak or tie) on the traces of the debates.

People give a verdict on a trace's page in the MLflow UI, in a review queue of the UI (see `review`), or at a terminal
(`python -m w2s_mlflow judge RUN`). All three write the same kind of assessment. If a named reviewer has assessed a debate
more than once, only the latest assessment counts. An MLflow server without accounts gives all users of the UI the same name.
Each of their valid assessments then counts as one vote, and a vote is changed by editing the assessment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.entities import Assessment, AssessmentSource, AssessmentSourceType, Feedback, Trace
from mlflow.exceptions import MlflowException
from mlflow.genai import label_schemas, review_queues
from mlflow.genai.label_schemas import InputCategorical, LabelSchema
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.judges import human
from w2s_mlflow.judges.human import WINNERS
from w2s_mlflow.records import canonical_json
from w2s_mlflow.tracking import results, traces
from w2s_mlflow.tracking.backend.server import client, experiment

NAME = "winner"
QUESTION = (
    "Which side argues better? Choose the side whose evidence supports its claim more, whatever you think of the claim itself."
)
NAMELESS = {"", "default", "unknown", "anonymous"}
"""Source ids of assessments whose reviewer is unknown to MLflow."""
PAGE = 100


@dataclass(frozen=True)
class Turn:
    """One side's claim and evidence in one round."""

    side: str
    claim: str
    evidence: str


@dataclass(frozen=True)
class DebateForReview:
    """A debate for review: the question and the sides' turns, without any judge's verdict."""

    trace_id: str
    question: str
    turns: tuple[Turn, ...]

    def swapped(self) -> bool:
        """Return whether the weak side is shown first.

        The weak side is shown first in about half of the debates, and in the same debates for all reviewers.
        """
        return hashlib.sha256(self.trace_id.encode()).digest()[0] % 2 == 1


@dataclass(frozen=True)
class Assessments:
    """Human votes on the debates of one run, by question id. A debate without votes has an empty tuple."""

    run_id: str
    votes: Mapping[str, tuple[str, ...]]
    unreadable: int
    """Number of `winner` assessments whose value is not in WINNERS. They are not counted as votes."""

    @property
    def judged(self) -> int:
        """Number of debates with at least one vote."""
        return sum(bool(votes) for votes in self.votes.values())

    def describe(self) -> str:
        """Return a sentence on how many debates have votes, how many have none, and how often people agree."""
        votes, agreement = sum(map(len, self.votes.values())), human.agreement(list(self.votes.values()))
        text = f"people have judged {self.judged} of {len(self.votes)} debates of run {self.run_id}, with {votes} votes"
        text += f"; debates without a vote: {len(self.votes) - self.judged}"
        text += "" if agreement is None else f"; two people who judged the same debate agree in {agreement:.0%} of cases"
        return text + (f"; answers other than {', '.join(WINNERS)}: {self.unreadable}" if self.unreadable else "")

    def check(self) -> None:
        """Raise ConfigError if half of the debates or more have no vote."""
        if 2 * self.judged <= len(self.votes):
            advice = f"in the MLflow UI or with `python -m w2s_mlflow judge {self.run_id}`"
            raise ConfigError(
                f"people must judge more than half of the debates: {self.describe()}; give the feedback `{NAME}` {advice}"
            )

    def digest(self) -> str:
        """Return a digest of the votes."""
        return hashlib.sha256(canonical_json({name: sorted(votes) for name, votes in self.votes.items()}).encode()).hexdigest()[
            :16
        ]


def pull(run: str) -> Assessments:
    """Read the votes on a run's debates.

    Raises:
        ConfigError: the run does not exist, or it has no debate traces.
    """
    result = results.find(run)
    votes: dict[str, tuple[str, ...]] = {}
    unreadable = 0
    for trace in _traces(result.run_id, include_spans=False):
        values = [str(feedback.value).strip().lower() for feedback in _latest_votes(trace.info.assessments)]
        votes[trace.info.tags[traces.QUESTION]] = tuple(value for value in values if value in WINNERS)
        unreadable += sum(value not in WINNERS for value in values)
    return Assessments(result.run_id, votes, unreadable)


def unjudged(run: str, reviewer: str) -> Iterator[DebateForReview]:
    """Yield the debates of a run that `reviewer` has not judged, sorted by question id. Raises the same errors as `pull`."""
    debates = list(_traces(results.find(run).run_id, include_spans=True))
    for trace in sorted(debates, key=lambda trace: trace.info.tags[traces.QUESTION]):
        if not any(feedback.source.source_id == reviewer for feedback in _latest_votes(trace.info.assessments)):
            yield _debate_for_review(trace)


def log(debate: DebateForReview, winner: str, reviewer: str) -> None:
    """Log the verdict of `reviewer` on a debate, in the same form as a verdict given in the MLflow UI."""
    assert winner in WINNERS
    source = AssessmentSource(AssessmentSourceType.HUMAN, reviewer)
    mlflow.log_feedback(trace_id=debate.trace_id, name=NAME, value=winner, source=source)


def review(run: str) -> str:
    """Add a run's debates to its review queue in the MLflow UI, without duplicates, and return the queue's name.

    Raises:
        ConfigError: the run does not exist, or it has no debate traces; or the experiment has a label schema `winner` whose
            answers are not WINNERS.
    """
    result = results.find(run)
    ids, experiment_id = (
        [trace.info.trace_id for trace in _traces(result.run_id, include_spans=False)],
        experiment().experiment_id,
    )
    name = f"{result.name} {result.run_id[:8]}"
    try:
        queue = review_queues.get_review_queue(name=name, experiment_id=experiment_id)
    except MlflowException as error:
        _only_missing(error)
        schemas = [_schema(experiment_id).schema_id]
        queue = review_queues.create_review_queue(name, queue_type="custom", schema_ids=schemas, experiment_id=experiment_id)
    for start in range(0, len(ids), PAGE):
        review_queues.add_items_to_review_queue(queue.queue_id, item_ids=ids[start : start + PAGE])
    return name


def _schema(experiment_id: str) -> LabelSchema:
    """Return the label schema of review queues: the question and its possible answers. Create it if it does not exist."""
    choices = InputCategorical(options=list(WINNERS))
    try:
        schema = label_schemas.get_label_schema(NAME, experiment_id=experiment_id)
    except MlflowException as error:
        _only_missing(error)
        return label_schemas.create_label_schema(
            NAME, type="feedback", input=choices, instruction=QUESTION, enable_comment=True, experiment_id=experiment_id
        )
    if not (isinstance(schema.input, InputCategorical) and set(schema.input.options) == set(WINNERS)):
        legal = ", ".join(WINNERS)
        raise ConfigError(f"the experiment has a label schema {NAME} whose answers are not {legal}: rename it in the MLflow UI")
    return schema


def _only_missing(error: MlflowException) -> None:
    if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
        raise error


def _traces(run_id: str, *, include_spans: bool) -> Iterator[Trace]:
    """Yield the debate traces of a run. Raises ConfigError if there are none."""
    clause, token, experiment_id = f"tag.`{traces.RUN}` = '{run_id}'", None, client().get_run(run_id).info.experiment_id
    first_page = True
    while first_page or token:
        page = client().search_traces(
            locations=[experiment_id], filter_string=clause, max_results=PAGE, page_token=token, include_spans=include_spans
        )
        if first_page and not page:
            raise ConfigError(f"run {run_id} has no debates to judge: it must be a run of `debate` with --traces above 0")
        first_page, token = False, page.token
        yield from page


def _latest_votes(assessments: Iterable[Assessment]) -> list[Feedback]:
    """Return the latest vote of each named reviewer and every vote of anonymous reviewers."""
    latest: dict[str, Feedback] = {}
    for feedback in sorted(
        _human_votes(assessments), key=lambda feedback: (feedback.create_time_ms or 0, feedback.assessment_id or "")
    ):
        source_id = feedback.source.source_id
        latest[str(feedback.assessment_id) if source_id in NAMELESS else f"person {source_id}"] = feedback
    return list(latest.values())


def _human_votes(assessments: Iterable[Assessment]) -> list[Feedback]:
    """Return the valid `winner` feedback given by people."""
    feedback = [item for item in assessments if isinstance(item, Feedback) and item.name == NAME and item.valid is not False]
    return [item for item in feedback if item.source.source_type == AssessmentSourceType.HUMAN]


def _debate_for_review(trace: Trace) -> DebateForReview:
    root, spans = trace.data.spans[0], [span for span in trace.data.spans if span.span_type == traces.KINDS["side"]]
    turns = [Turn(span.name.split(",")[0], *_texts(span.inputs, span.outputs)) for span in spans]
    return DebateForReview(trace.info.trace_id, str(root.inputs["question"]), tuple(turns))


def _texts(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Sequence[str]:
    return str(inputs["claim"]), str(outputs["evidence"])
