"""Debates as MLflow traces: the UI shows each transcript on its Traces page and on the run's page.

A trace has a root span, one child span for each turn of a side and one for each verdict. The trace's id is derived from the ids
of the run and the question, so writing a debate twice gives one trace. Human verdicts (feedback `winner`) are attached to
traces by this id.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.entities import Span, SpanType, TraceInfo, TraceLocation, TraceState
from mlflow.tracing.client import TracingClient
from mlflow.tracing.constant import SpanAttributeKey, TraceMetadataKey, TraceTagKey

from w2s_mlflow.tracking.backend.server import experiment

QUESTION, RUN = "w2s.question", "w2s.debate_run_id"
"""Trace tags with the id of the question and the id of the debate's run."""
BATCH = 100
"""Number of traces whose spans are sent in one request."""
PREVIEW = 1000
"""Maximum number of characters of the question and of the verdict in the UI's list of traces."""
KINDS = {"side": SpanType.AGENT, "judge": SpanType.EVALUATOR}


@dataclass(frozen=True)
class Turn:
    """One child span: the input (`inputs`) and output (`outputs`) of a side or a judge. `kind` is `side` or `judge`."""

    name: str
    kind: str
    inputs: Any
    outputs: Any


@dataclass(frozen=True)
class Transcript:
    """One debate with its turns in order. `question` is the question's id; `inputs` and `outputs` belong to the root span."""

    question: str
    inputs: Any
    outputs: Any
    turns: Sequence[Turn]
    tags: Mapping[str, str]


def trace_id(run_id: str, question: str) -> str:
    """Return the id of the trace that holds a run's debate on a question."""
    return f"tr-{hashlib.sha256(f'{run_id}/{question}'.encode()).hexdigest()[:32]}"


def write(run_id: str, transcripts: Sequence[Transcript]) -> None:
    """Write one trace per debate of a run.

    Each trace is created by its own request. The spans of up to BATCH traces are then sent in one request.
    """
    client, experiment_id = TracingClient(mlflow.get_tracking_uri()), experiment().experiment_id
    for start in range(0, len(transcripts), BATCH):
        part = transcripts[start : start + BATCH]
        for transcript in part:
            client.start_trace(_info(run_id, experiment_id, transcript))
        client.log_spans(experiment_id, [span for transcript in part for span in _spans(run_id, transcript)])


def _info(run_id: str, experiment_id: str, transcript: Transcript) -> TraceInfo:
    tags = {QUESTION: transcript.question, RUN: run_id, TraceTagKey.TRACE_NAME: f"debate {transcript.question}"}
    return TraceInfo(
        trace_id(run_id, transcript.question),
        TraceLocation.from_experiment_id(experiment_id),
        int(time.time() * 1000),
        TraceState.OK,
        request_preview=_text(transcript.inputs)[:PREVIEW],
        response_preview=_text(transcript.outputs)[:PREVIEW],
        execution_duration=0,
        trace_metadata={TraceMetadataKey.SOURCE_RUN: run_id},
        tags=tags | dict(transcript.tags),
    )


def _spans(run_id: str, transcript: Transcript) -> Iterator[Span]:
    """Yield the root span, then one span per turn. Their start times increase, because the UI sorts spans by start time."""
    trace, now = trace_id(run_id, transcript.question), time.time_ns()
    root = _span_id(trace, 0)
    root_turn = Turn("debate", "debate", transcript.inputs, transcript.outputs)
    for number, turn in enumerate((root_turn, *transcript.turns)):
        attributes = {
            SpanAttributeKey.REQUEST_ID: trace,
            SpanAttributeKey.SPAN_TYPE: KINDS.get(turn.kind, SpanType.CHAIN),
            SpanAttributeKey.INPUTS: turn.inputs,
            SpanAttributeKey.OUTPUTS: turn.outputs,
        }
        yield Span.from_dict(
            {
                "name": turn.name,
                "trace_id": trace,
                "span_id": _span_id(trace, number),
                "parent_span_id": root if number else None,
                "start_time_unix_nano": now + 1000 * number,
                "end_time_unix_nano": now + 1000 * (len(transcript.turns) + 1 if number == 0 else number + 1),
                "status": {"code": "STATUS_CODE_OK", "message": ""},
                "events": [],
                "attributes": {name: json.dumps(value, ensure_ascii=False) for name, value in attributes.items()},
            }
        )


def _span_id(trace: str, number: int) -> str:
    return hashlib.sha256(f"{trace}/{number}".encode()).hexdigest()[:16]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
