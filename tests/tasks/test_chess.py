"""The generator against slow restatements with python-chess, the two parts of the positions, and the shipped rows."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice
from pathlib import Path

import chess
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s_mlflow.records import Example
from w2s_mlflow.tasks import Row, Rows, _chess_rows
from w2s_mlflow.tasks import _chess_play as chess_play
from w2s_mlflow.tasks import chess as chess_task
from w2s_mlflow.tasks._chess_play import Position
from w2s_mlflow.tasks._chess_rows import GeneratedRow

VALUES = {"p": 1, "n": 3, "b": 3, "r": 5, "q": 9, "k": 0}


def literal_exchange(board: chess.Board, move: chess.Move) -> int:
    """Make the move; if any legal reply lands on its square, the moved piece is lost."""
    taken, mover = board.piece_at(move.to_square), board.piece_at(move.from_square)
    assert mover is not None
    after = board.copy()
    after.push(move)
    retaken = any(reply.to_square == move.to_square for reply in after.legal_moves)
    return (VALUES[taken.symbol().lower()] if taken else 0) - (VALUES[mover.symbol().lower()] if retaken else 0)


def draw(seed: int, count: int, *, task: bool) -> list[Position]:
    return list(islice(chess_play.positions(random.Random(seed), task=task), count))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_exchange_is_the_literal_one(seed: int) -> None:
    for position in draw(seed, 3, task=False):
        board = chess_play.parse(position.text)
        assert [move.exchange for move in position.moves] == [literal_exchange(board, move) for move in board.legal_moves]


def test_exchange_by_hand() -> None:
    # The rook takes a protected knight: 3 - 5. The queen takes a loose rook: 5.
    board = chess_play.parse("Kc2 Qd3 Rc5 kf7 rd7 nc7 pb6")
    exchanges = {move.word: move.exchange for move in chess_play.analyse(board).moves}
    assert exchanges["Rc7"] == 3 - 5
    assert exchanges["Qd7"] == 5


def test_a_pinned_piece_cannot_retake() -> None:
    # The bishop e6 would retake on d5, but it is pinned to its king by the rook on e2.
    board = chess_play.parse("Kc2 Re2 Qd3 ke7 be6 nd5")
    assert {move.word: move.reply for move in chess_play.analyse(board).moves}["Qd5"] == chess_play.NONE
    board = chess_play.parse("Kc2 Rf2 Qd3 ke7 be6 nd5")
    assert {move.word: move.reply for move in chess_play.analyse(board).moves}["Qd5"] == "bd5"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_a_mirror_image_has_the_same_game(seed: int) -> None:
    (position,) = draw(seed, 1, task=False)
    image = chess_play.analyse(chess_play.parse(chess_play.mirror(position.text)))
    assert image.text == position.mirrored().text
    assert chess_play.mirror(image.text) == position.text
    exchanges = [sorted((move.word, move.exchange) for move in one.moves) for one in (image, position.mirrored())]
    assert exchanges[0] == exchanges[1]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_positions_are_legal_and_on_their_side_of_the_cut(seed: int) -> None:
    for task in (False, True):
        (position,) = draw(seed, 1, task=task)
        board = chess_play.parse(position.text)
        assert board.status() == chess.STATUS_VALID
        assert chess_play.text(board) == position.text
        assert chess_play.belongs_to_task(position.text) is task
        assert chess_play.belongs_to_task(chess_play.mirror(position.text)) is task
        assert len(position.captures()) >= 2


def test_parse_reads_prompts() -> None:
    text = "Kc2 Qd3 kf7 rd7"
    assert chess_play.text(chess_play.parse(chess_play.prompt(text))) == text


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_a_pretraining_text_tells_what_moves_lead_to(seed: int) -> None:
    (position,) = draw(seed, 1, task=False)
    prompt, line = chess_play.sequence(position, random.Random(seed))
    words = line.split()
    shown = dict(zip(words[::2], words[1::2], strict=True))
    moves = {move.word: move for move in position.named_once()}
    assert prompt == chess_play.prompt(position.text)
    assert len(shown) == min(chess_play.MOVES_SHOWN, len(moves))
    assert all(moves[word].reply == reply for word, reply in shown.items())
    captures = sum(moves[word].captured > 0 for word in shown)
    assert captures == min(chess_play.MOVES_SHOWN, len(position.captures()))


def test_overlap_finds_a_planted_position_and_its_mirror_image() -> None:
    task = [position.text for position in draw(1, 5, task=True)]
    other = [chess_play.prompt(position.text) for position in draw(1, 50, task=False)]
    assert chess_task.overlap(task, other) == 0
    assert chess_task.overlap(task, [*other, chess_play.prompt(task[2])]) == 1
    assert chess_task.overlap(task, [*other, chess_play.mirror(task[2]), task[3]]) == 2


# --- the shipped rows -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["chess", "chess_preference"])
def rows(request: pytest.FixtureRequest) -> Rows:
    return chess_task.load(request.param)


def test_shipped_file_is_small_and_enough() -> None:
    assert chess_task.POSITIONS.stat().st_size < 1_000_000
    for task in chess_task.TASKS:
        found = task.load(None)
        assert len(found.train) > task.train_size
        assert len(found.heldout) * 0.75 > task.test_size


def test_shipped_positions_belong_to_the_task_and_stand_once(rows: Rows) -> None:
    shown = [chess_play.shown(row.example.segments[0]) for row in (*rows.train, *rows.heldout)]
    hashes = [chess_play.position_hash(position) for position in shown]
    assert all(chess_play.belongs_to_task(position) for position in shown)
    assert len(set(hashes)) == len(hashes)
    assert [hash_[:16] for hash_ in hashes] == [row.example.group for row in (*rows.train, *rows.heldout)]


def test_shipped_labels_are_the_literal_truth(rows: Rows) -> None:
    for row in random.Random(0).sample(rows.heldout, 100):
        board = chess_play.parse(row.example.segments[0])
        worth = {chess_play.move_word(board, move): literal_exchange(board, move) for move in board.legal_moves}
        better, worse = row.example.candidates[row.label], row.example.candidates[1 - row.label]
        assert worth[better] > worth[worse]
        if row.example.id.startswith("chess_preference-"):
            assert sum(value >= worth[better] for value in worth.values()) == 1  # the unique best of all its moves


def test_rules_that_read_values_and_the_place_of_the_king_are_at_chance(rows: Rows) -> None:
    every = (*rows.train, *rows.heldout)
    for name in ("most_valuable_capture", "least_valuable_piece", "most_gained", "gain_beside_king", "random"):
        right = [chess_task.RULES[name](row.example) == row.label for row in every]
        assert abs(sum(right) / len(right) - 0.5) < 0.02, name


def test_each_stratum_of_the_shipped_rows_is_balanced(rows: Rows) -> None:
    """Restated from the rows: within a pair of different cheap features, each side is the better one equally often."""
    times: Counter[tuple[Cheap, Cheap]] = Counter()
    for row in (*rows.train, *rows.heldout):
        better, worse = (cheap(row, side) for side in (row.label, 1 - row.label))
        times[better, worse] += 1
    assert all(count == times[worse, better] for (better, worse), count in times.items())


Cheap = tuple[int, int, bool]


def cheap(row: Row, side: int) -> Cheap:
    """Value taken, value of the capturing piece, and whether the capture lands beside the black king."""
    board, word = chess_play.parse(row.example.segments[0]), row.example.candidates[side]
    target = chess.parse_square(word[1:])
    taken, king = board.piece_at(target), board.king(chess.BLACK)
    assert taken is not None and king is not None
    return VALUES[taken.symbol().lower()], VALUES[word[0].lower()], chess.square_distance(king, target) == 1


def test_rules_by_hand() -> None:
    # Bxd7 takes a rook with check; Qxc5 takes a knight with the queen.
    example = Example("x", "x", ("Kc2 Qc4 Bb5 ke8 rd7 nc5 >",), ("Qc5", "Bd7"))
    names = ("most_valuable_capture", "least_valuable_piece", "most_gained", "first_check")
    assert {name: chess_task.RULES[name](example) for name in names} == dict.fromkeys(names, 1)
    swapped = Example("x", "x", example.segments, ("Bd7", "Qc5"))
    assert {name: chess_task.RULES[name](swapped) for name in names} == dict.fromkeys(names, 0)


def test_the_rule_of_the_king_by_hand() -> None:
    # Bxd7 takes a rook beside the king, 5 - 3; Qxc5 takes a knight out of his reach, 3.
    rule = chess_task.RULES["gain_beside_king"]
    assert rule(Example("x", "x", ("Kc2 Qc4 Bb5 ke7 rd7 nc5 >",), ("Qc5", "Bd7"))) == 0
    assert rule(Example("x", "x", ("Kc2 Qc4 Bb5 kf5 rd7 nc5 >",), ("Qc5", "Bd7"))) == 1


# --- drawing rows -----------------------------------------------------------------------------------------------------


def place(number: int) -> str:
    """A position of one king, another one for each number below 32, none of which is a mirror image of another."""
    return f"K{'abcd'[number % 4]}{1 + number // 4}"


CHEAP = st.tuples(st.integers(1, 3), st.integers(0, 2), st.booleans())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), CHEAP, CHEAP), max_size=80), st.integers(0, 100))
def test_any_rows_are_balanced(drawn: list[tuple[int, Cheap, Cheap]], seed: int) -> None:
    possible = [
        (GeneratedRow("chess", place(number), f"{better}", f"{worse}"), better, worse) for number, better, worse in drawn
    ]
    chosen = _chess_rows.balanced(possible, random.Random(seed))
    times = Counter((row.better, row.worse) for row in chosen)
    assert all(count == times[worse, better] for (better, worse), count in times.items() if better != worse)
    assert len({row.position for row in chosen}) == len(chosen)
    assert set(chosen) <= {row for row, _, _ in possible}


def test_balancing_by_hand() -> None:
    high, low = (9, 3, False), (1, 3, False)
    rows = [GeneratedRow("chess", place(number), "x", "y") for number in range(5)]
    possible = [(rows[0], high, low), (rows[1], high, low), (rows[2], low, high), (rows[3], low, low), (rows[4], high, high)]
    chosen = _chess_rows.balanced(possible, random.Random(0))
    assert rows[2] in chosen and rows[3] in chosen and rows[4] in chosen
    assert len(chosen) == 4  # one of the two rows whose more valuable capture is better


def test_drawn_rows_are_reproducible_and_do_not_depend_on_the_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_chess_rows, "CHUNK", 40)
    drawn = _chess_rows.draw("chess", seed=3, positions=80, workers=1)
    assert drawn == _chess_rows.draw("chess", seed=3, positions=80, workers=2)
    assert drawn and drawn != _chess_rows.draw("chess", seed=4, positions=80, workers=1)
    _chess_rows.write(drawn, tmp_path / "some.parquet")
    monkeypatch.setattr(chess_task, "POSITIONS", tmp_path / "some.parquet")
    found = chess_task.load("chess")
    assert Counter(row.example.candidates[row.label] for row in (*found.train, *found.heldout)) == Counter(
        row.better for row in drawn
    )
