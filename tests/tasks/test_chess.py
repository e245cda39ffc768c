"""The generator against slow restatements with python-chess, the two parts of the positions, and the shipped rows."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import chess
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s_mlflow.records import Example
from w2s_mlflow.tasks import Rows
from w2s_mlflow.tasks import _chess_play as chess_play
from w2s_mlflow.tasks import chess as chess_task
from w2s_mlflow.tasks._chess_play import Position

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


def test_the_expert_wins_the_most() -> None:
    rng = random.Random(0)
    for position in draw(5, 20, task=False):
        move = chess_play.play(position, "expert", rng)
        assert move.exchange == max(other.exchange for other in position.named_once())


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
        assert len(found.train) > 7_500
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
        if row.example.id.startswith("chess-"):
            assert sum(value >= worth[better] for value in worth.values()) == 1  # the unique best of all its moves


@pytest.mark.slow
def test_how_far_each_rule_solves_the_task(rows: Rows) -> None:
    for name, rule in chess_task.RULES.items():
        right = [rule(row.example) == row.label for row in rows.heldout]
        low, high = (0.78, 0.85) if name == "gain_beside_king" else (0, 0.65)
        assert low < sum(right) / len(right) < high, name


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


def test_shares_are_a_distribution() -> None:
    assert sum(chess_task.SHARES.values()) == pytest.approx(1)


def test_draw_is_reproducible_and_composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        chess_task, "SHARES", {(chess_task.MORE, chess_task.DEARER): 0.5, (chess_task.MORE, chess_task.EQUAL): 0.5}
    )
    drawn = chess_task.draw("chess", 6, seed=3)
    assert drawn == chess_task.draw("chess", 6, seed=3)
    assert len(drawn) == 6
    chess_task.write(drawn, tmp_path / "some.parquet")
    monkeypatch.setattr(chess_task, "POSITIONS", tmp_path / "some.parquet")
    found = chess_task.load("chess")
    assert {row.example.candidates[row.label] for row in (*found.train, *found.heldout)} == {
        better for _, _, better, _ in drawn
    }
