"""Multiple-choice tasks as binary questions. A question is shown with its right option (label 1) or with a wrong option (0).

A hash of the row's id chooses the option shown; the id does not depend on which option is right. Rows that share an article,
a passage, a video, a source or a question form one group.
"""

from __future__ import annotations

from collections.abc import Sequence

from w2s_mlflow.tasks import Human, Task
from w2s_mlflow.tasks._groups import Key, by_text, by_value, digest, normalised
from w2s_mlflow.tasks._hub import CONVERTED, Table, TaskSource, task
from w2s_mlflow.tasks._rows import ParsedRow, SkippedRow, Source, draw, of_class

LETTERS = {letter: number for number, letter in enumerate("ABCD")}
DIGITS = {str(number): number for number in range(4)}
NUMBERS = {number: number for number in range(4)}
RIGHT = "the option is the right one"
RACE_PAPER = "Lai et al. 2017, RACE, arXiv:1704.04683, Table 5"


def _draft(id_: str, context: Sequence[str], options: Sequence[str], right: int, groups: Sequence[Key]) -> ParsedRow:
    """Build a row that shows the context and one option, chosen by a hash of the id.

    Raises SkippedRow if `right` is not the index of an option, or if a wrong option equals the right one.
    """
    if not 0 <= right < len(options):
        raise SkippedRow("has an invalid label")
    wrong = sorted(option for number, option in enumerate(options) if number != right)
    if normalised(options[right]) in map(normalised, wrong):
        raise SkippedRow("has the right option twice")
    label = draw("option", id_, 2)
    shown = options[right] if label else wrong[draw("wrong", id_, len(wrong))]
    return ParsedRow(id_, (*context, shown), label, tuple(groups))


def _race(row: Source, part: str) -> ParsedRow:
    id_ = f"{part}-{digest(row['article'], row['question'], *row['options'])}"
    right = of_class(LETTERS, row["answer"])
    return _draft(id_, (row["article"], row["question"]), row["options"], right, by_text(article=row["article"]))


def _swag(row: Source, part: str) -> ParsedRow:
    endings = [row[f"ending{number}"] for number in range(4)]
    id_ = f"{part}-{digest(row['video-id'], row['startphrase'], *endings)}"
    groups = by_value(video=row["video-id"]) + by_text(start=row["startphrase"])
    return _draft(id_, (row["startphrase"],), endings, of_class(NUMBERS, row["label"]), groups)


def _hellaswag(row: Source, part: str) -> ParsedRow:
    groups = by_value(source=row["source_id"]) + by_text(context=row["ctx"])
    return _draft(f"{part}-{row['ind']}", (row["ctx"],), row["endings"], of_class(DIGITS, row["label"]), groups)


def _sciq(row: Source, part: str) -> ParsedRow:
    options = sorted(row[name] for name in ("correct_answer", "distractor1", "distractor2", "distractor3"))
    id_ = f"{part}-{digest(row['question'], *options)}"
    support = row["support"].strip()
    context = (support, row["question"]) if support else (row["question"],)
    groups = by_text(question=row["question"], support=support)
    return _draft(id_, context, options, options.index(row["correct_answer"]), groups)


def _race_task(name: str, config: str, human: float) -> Task:
    columns = {"article": "text", "question": "text", "answer": "text", "options": "list"}
    table = Table(path="ehovy/race", config=config, revision="2fec9fd81f1dc971569a9b729c43f2f0e6436637", columns=columns)
    human_score = Human(human, "accuracy over four options, workers of Amazon Mechanical Turk", RACE_PAPER)
    return task(
        name,
        "multiple_choice",
        TaskSource(table=table),
        _race,
        positive=RIGHT,
        license="other (non-commercial)",
        human=human_score,
    )


SWAG = Table(
    path="allenai/swag",
    config="regular",
    revision=CONVERTED,
    columns={
        **dict.fromkeys(("video-id", "startphrase", "ending0", "ending1", "ending2", "ending3"), "text"),
        "label": "integer",
    },
)
HELLASWAG = Table(
    path="Rowan/hellaswag",
    revision="218ec52e09a7e7462a5400043bb9a69a41d06b76",
    columns={"ind": "integer", "ctx": "text", "endings": "list", "source_id": "text", "label": "text"},
)
SCIQ = Table(
    path="allenai/sciq",
    revision="2c94ad3e1aafab77146f384e23536f97a4849815",
    columns=dict.fromkeys(("question", "correct_answer", "distractor1", "distractor2", "distractor3", "support"), "text"),
)

TASKS = (
    _race_task("race", "all", 0.733),
    _race_task("race_high", "high", 0.694),
    _race_task("race_middle", "middle", 0.851),
    task(
        "swag",
        "multiple_choice",
        TaskSource(table=SWAG),
        _swag,
        positive=RIGHT,
        license="not stated on the hub card",
        human=Human(0.850, "accuracy over four endings, one expert on 100 questions", "Zellers et al. 2018, arXiv:1808.05326"),
    ),
    task(
        "hellaswag",
        "multiple_choice",
        TaskSource(table=HELLASWAG),
        _hellaswag,
        positive=RIGHT,
        license="MIT",
        human=Human(0.956, "accuracy over four endings, majority of workers", "Zellers et al. 2019, arXiv:1905.07830"),
    ),
    task("sciq", "multiple_choice", TaskSource(table=SCIQ), _sciq, positive=RIGHT, license="CC-BY-NC-3.0"),
)
