"""Classify a student's errors by its answers to parts of the text (the paper's Figure 5).

The student answers each test row that it gets wrong three more times: given only the tokens with the highest attribution scores
for its own answer, given only those for the ceiling's answer (modeling/attribution.py), and, as a control, given the same
number of random tokens. The rules in `tables/errors.py` classify the error by these answers. In chess tasks, errors are
classified without evidence, because a chess position or game without some of its words is a different position or game.

Metrics: `errors/count`, the number of errors; `errors/<type>`, the share of errors of each type;
`errors/<type>_by_chance`, the same share with random tokens as evidence.
Artifacts: `errors.csv`, one row per error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from w2s_mlflow import models, streams
from w2s_mlflow.analysis.stage_tables import ERRORS, ON_EVIDENCE
from w2s_mlflow.config import checked_dataclass, inherited, option, selected
from w2s_mlflow.data import gold as data_gold
from w2s_mlflow.exceptions import must
from w2s_mlflow.methods import presets
from w2s_mlflow.pipeline import finetune, runs
from w2s_mlflow.pipeline.context import Context, resolve
from w2s_mlflow.pipeline.options import OF_STRONG
from w2s_mlflow.records import Example, Ints
from w2s_mlflow.stages import ceiling, student

if TYPE_CHECKING:
    from w2s_mlflow.modeling.attribution import Mask
    from w2s_mlflow.modeling.heads import Encoded, Head
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 3
ANSWERS = ("answer", "weak_answer", "ceiling_answer")
COLUMNS = ("id", "text", "gold", *ANSWERS, *ON_EVIDENCE, "own_evidence", "ceiling_evidence")
GAMES = ("chess", "puzzles")
"""Task families whose errors are classified without evidence, because their texts are chess positions or moves."""


@checked_dataclass
class Config(student.Config):
    """Options of the student, and the share of a text that counts as evidence."""

    evidence: float = option(default=0.2, gt=0, lt=1)
    """Share of a text's tokens that counts as evidence. The tokens with the highest attribution scores are chosen."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("ceiling", "gold"), ("eval_split", "test")):
            if (given := vars(self)[name]) != value:
                raise must(name, f"{value}, because the student's test errors are compared with the ceiling", given)
        if presets.labels_file(self.labels):
            raise must(
                "labels", "a name or run:ID, not a file, because errors are compared with a supervisor's answers", self.labels
            )

    def reads_text(self) -> bool:
        """Return whether a part of a text can be evidence. False for chess, where a part of a position is another position."""
        return self.find_task().family not in GAMES


def run(config: Config) -> Result:
    """Find or make the error analysis, after finding or training the student and the ceiling.

    Raises ConfigError for invalid options, before anything is written.
    """
    from w2s_mlflow.tracking import fingerprint, source, store

    keep = {"keep_model": "always" if config.reads_text() else config.keep_model}
    student_run = student.run(student.Config(**inherited(student.Config, config) | keep))
    context = resolve(config)
    config, spec = context.options, context.model
    ceiling_run = ceiling.run(ceiling.Config(**selected(config, OF_STRONG), **config.shared() | keep))
    parts = fingerprint.FingerprintParts(
        stage="errors",
        version=VERSION,
        options={"evidence": config.evidence, "seed": config.seed},
        data=context.split.digest,
        inputs={"student": student_run.fingerprint, "ceiling": ceiling_run.fingerprint},
        libraries=fingerprint.libraries(),
        source=source.digests(
            ["stages.errors:_make", "data.loading:resolve_and_split", "tables.errors", f"models.{spec.family}:load"]
        ),
        weights=models.revision(spec),
    )
    identity = {"task": config.task, **context.names(), "method": config.method, "seed": str(config.seed)}
    tags = {"w2s.student_run_id": student_run.run_id, "w2s.ceiling_run_id": ceiling_run.run_id}
    note = f"The test errors of {student_run.name}, with the answers of its supervisor and its ceiling to the same rows."
    request = store.RunRequest(runs.run_name("errors", identity), parts, config, identity, tags, note)
    return store.produce(request, lambda recorder: _make(context, student_run, ceiling_run, recorder))


def _make(context: Context[Config], student_run: Result, ceiling_run: Result, recorder: Recorder) -> None:
    import pandas as pd

    from w2s_mlflow.tables import errors as table
    from w2s_mlflow.tracking import results

    config, test = context.options, context.split.test
    weak, gold = results.get(student_run.tags["w2s.weak_run_id"]), data_gold.gold_of(config)
    ids = [example.id for example in test]
    gold_N = data_gold.read(gold, test, "test", "errors")
    answers = [run.predictions("test").of(ids).argmax(axis=1) for run in (student_run, weak, ceiling_run)]
    wrong = np.flatnonzero(answers[0] != gold_N)
    examples = [test[row] for row in wrong]
    columns: dict[str, Any] = {"id": [example.id for example in examples], "text": [_text(example) for example in examples]}
    columns |= {"gold": gold_N[wrong]} | {name: answer_N[wrong] for name, answer_N in zip(ANSWERS, answers, strict=True)}
    if config.reads_text() and examples:
        columns |= _on_evidence(config, examples, columns, student_run, ceiling_run)
    errors = pd.DataFrame(columns).reindex(columns=list(COLUMNS))
    recorder.text(ERRORS, errors.to_csv(index=False))
    shares = {name: value for name, value in table.shares(errors).items() if math.isfinite(value)} if examples else {}
    recorder.metrics({f"errors/{name}": value for name, value in shares.items()})
    recorder.metrics({"errors/count": float(len(examples)), **data_gold.reads(gold)})


def _text(example: Example) -> str:
    return "\n".join(example.segments + example.candidates)


def _on_evidence(
    config: Config, examples: Sequence[Example], answers: Mapping[str, Ints], student_run: Result, ceiling_run: Result
) -> dict[str, Any]:
    """Return the student's answers given only its own evidence, only the ceiling's evidence, and only random tokens.

    The quoted evidence of the student and of the ceiling is returned as well.
    """
    from w2s_mlflow.modeling import attribution

    head, ceiling_head = (finetune.load_kept_model(run) for run in (student_run, ceiling_run))
    data = head.encode(examples)
    scored = {
        "own": attribution.scores(head, data, answers["answer"], config.micro_batch),
        "ceiling": attribution.scores(ceiling_head, data, answers["ceiling_answer"], config.micro_batch),
        "random": streams.generator(config.seed, streams.RANDOM_EVIDENCE).random(len(data.flat), dtype=np.float32),
    }
    evidence = {name: attribution.top_tokens(head, data, scores_T, config.evidence) for name, scores_T in scored.items()}
    answers_on_evidence = [_answers(config, head, data, evidence[name]) for name in ("own", "ceiling", "random")]
    texts = {f"{name}_evidence": attribution.quotes(head, data, evidence[name]) for name in ("own", "ceiling")}
    return dict(zip(ON_EVIDENCE, answers_on_evidence, strict=True)) | texts


def _answers(config: Config, head: Head, data: Encoded, kept_T: Mask) -> Ints:
    """Return the student's classes given only the tokens `kept_T`, computed in the same way as the stored predictions."""
    from w2s_mlflow.modeling import attribution

    answers_N: Ints = finetune.probabilities(head, attribution.select_tokens(data, kept_T), config).argmax(axis=1)
    return answers_N
