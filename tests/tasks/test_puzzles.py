"""Real chess: Lichess's puzzles, puzzles cut from games by exact search or an engine, and what none is made of."""

from __future__ import annotations

import csv
import json
import random
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import chess
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tasks import mirror
from w2s_mlflow import tasks
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.records import Row, Rows
from w2s_mlflow.stages import student
from w2s_mlflow.tasks import _puzzle_search as search
from w2s_mlflow.tasks import puzzles
from w2s_mlflow.tracking import results

TEXTS = ("PuzzleId", "FEN", "Moves", "Themes", "GameUrl", "OpeningTags")
NUMBERS = ("Rating", "RatingDeviation", "Popularity", "NbPlays")
ORDER = ("PuzzleId", "FEN", "Moves", *NUMBERS, "Themes", "GameUrl", "OpeningTags")
SCHEMA = {name: pa.string() if name in TEXTS else pa.int64() for name in ORDER}
BACK_RANK = "6k1/5ppp/2p5/8/8/7P/5PPK/Rn6 b - - 0 1"
"""After black's c6c5, Ra8 mates. The only other forcing move takes the knight."""
SAMPLE = {"PuzzleId": "p1", "FEN": BACK_RANK, "Moves": "c6c5 a1a8", "GameUrl": "https://lichess.org/abc/black#31"}
# 1. e4 e5 2. Bc4 Nc6 3. Qh5 Nf6 4. Qxf7#
SCHOLAR = "e4 e5 Bc4 Nc6 Qh5 Nf6 Qxf7#"
FOOL = "f3 e5 g4 Qh4#"
STOCKFISH = shutil.which("stockfish", path="/usr/games:/usr/local/bin:/usr/bin")


def hub(directory: Path, rows: Sequence[Mapping[str, object]], task: str = "puzzles") -> Rows:
    mirror.write(directory, "Lichess/chess-puzzles/default", "train", SCHEMA, rows)
    return tasks.find(task).load(directory)


def every(rows: Rows) -> list[Row]:
    return [*rows.train, *rows.heldout]


def write(file: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return file


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def playouts(games: int, plies: int) -> Iterator[chess.Board]:
    """Boards of random games, by a seed."""
    drawn = random.Random(0)
    for _ in range(games):
        board = chess.Board()
        while board.ply() < plies and not board.is_game_over():
            yield board.copy(stack=False)
            board.push(drawn.choice(list(board.legal_moves)))


# --- the moves of UCI -------------------------------------------------------------------------------------------------


def test_there_is_a_class_for_every_legal_move() -> None:
    assert len(puzzles.UCI_MOVES) == len(set(puzzles.UCI_MOVES)) == 1968
    promotions = chess.Board("1r1r1r1k/2P1P3/8/8/8/8/p6p/1R5K b - - 0 1")
    boards = [*playouts(20, 150), promotions, promotions.mirror()]
    legal = {move.uci() for board in boards for move in board.legal_moves}
    assert legal <= set(puzzles.UCI_MOVES) and {"e7d8q", "a2b1n"} <= legal | {"e7d8q"} and len(legal) > 1000


# --- a puzzle ---------------------------------------------------------------------------------------------------------


def test_the_board_is_that_after_the_opponents_move(tmp_path: Path) -> None:
    rows = hub(tmp_path, [{**SAMPLE, "Rating": 1200, "Themes": "backRankMate mateIn1"}], "puzzles_best")
    (row,) = every(rows)
    shown = "White: Kh2 Ra1 Pf2 Pg2 Ph3. Black: Kg8 Nb1 Pc5 Pf7 Pg7 Ph7. White to move."
    assert row.example.segments == (shown,)
    assert puzzles.UCI_MOVES[row.label] == "a1a8" and row.example.id == "p1"
    assert row.about == {"Rating": 1200, "Themes": "backRankMate mateIn1"}


def test_moves_that_led_there_are_the_board_before_and_the_opponents(tmp_path: Path) -> None:
    (row,) = every(hub(tmp_path, [SAMPLE], "puzzles_moves_best"))
    before = "White: Kh2 Ra1 Pf2 Pg2 Ph3. Black: Kg8 Nb1 Pc6 Pf7 Pg7 Ph7. Black to move."
    assert row.example.segments == (f"{before} Then c6c5.",)


@pytest.mark.parametrize(("best", "last"), [("e1g1", "e8c8"), ("e1h1", "e8a8")])
def test_castling_is_one_move_however_it_is_written(best: str, last: str, tmp_path: Path) -> None:
    castling = {**SAMPLE, "FEN": "r3k3/7p/8/8/8/8/7P/4K2R b Kq - 0 1", "Moves": f"{last} {best}"}
    rows = [{**castling, "PuzzleId": f"c{number}"} for number in range(60)]
    for row in every(hub(tmp_path, rows)):
        assert (row.example.segments[1] == "e1g1") == (row.label == 1)
    (row,) = every(hub(tmp_path, rows[:1], "puzzles_moves_best"))
    assert puzzles.UCI_MOVES[row.label] == "e1g1" and row.example.segments[0].endswith(" Then e8c8.")


def test_a_board_tells_castling_and_en_passant_where_there_are_such() -> None:
    board = chess.Board("r3k2r/8/8/8/8/8/8/4K2R w Kq - 0 1")
    assert puzzles.text(board) == "White: Ke1 Rh1. Black: Ke8 Ra8 Rh8. Castling: Kq. White to move."
    passing = chess.Board("4k3/8/8/3pP3/8/8/8/4K3 w - d6 0 1")
    assert puzzles.text(passing) == "White: Ke1 Pe5. Black: Ke8 Pd5. En passant: d6. White to move."
    nobody = chess.Board("4k3/8/8/3p4/8/8/8/4K3 w - d6 0 1")  # no pawn stands by: the square says nothing
    assert puzzles.text(nobody) == "White: Ke1. Black: Ke8 Pd5. White to move."


def test_two_boards_have_two_texts() -> None:
    seen: dict[str, str] = {}
    for board in playouts(15, 100):
        assert seen.setdefault(puzzles.text(board), board.epd(en_passant="legal")) == board.epd(en_passant="legal")
    assert len(seen) > 1000


def test_half_of_the_candidates_are_the_solution_and_the_rest_other_forcing_moves(tmp_path: Path) -> None:
    two_captures = {**SAMPLE, "FEN": BACK_RANK.replace("/8/8/7P/", "/8/p7/7P/")}  # a pawn on a4 keeps the rook from a8
    quiet = {**two_captures, "Moves": "c6c5 h2g1"}
    rows = hub(tmp_path, [{**SAMPLE, "PuzzleId": f"p{number}"} for number in range(600)])
    shown = {label: {row.example.segments[1] for row in every(rows) if row.label == label} for label in (0, 1)}
    assert shown == {0: {"a1b1"}, 1: {"a1a8"}}
    found = hub(tmp_path, [{**two_captures, "PuzzleId": f"p{number}", "Moves": "c6c5 a1b1"} for number in range(100)])
    assert {row.example.segments[1] for row in every(found)} == {"a1b1", "a1a4"}
    found = hub(tmp_path, [{**quiet, "PuzzleId": f"p{number}"} for number in range(400)])
    wrong = {row.example.segments[1] for row in every(found) if row.label == 0}
    assert len(wrong) > 5 and wrong.isdisjoint({"a1b1", "a1a4", "h2g1"})
    assert 240 < sum(row.label for row in every(rows)) < 360
    assert len({row.example.group for row in every(rows)}) == 1


def test_a_puzzle_without_another_move_as_forcing_is_skipped(tmp_path: Path) -> None:
    alone = {**SAMPLE, "FEN": BACK_RANK.replace("Rn6", "R7")}
    found = hub(tmp_path, [SAMPLE, {**alone, "PuzzleId": "alone"}])
    assert [row.example.id for row in every(found)] == ["p1"]
    assert found.skipped == {"has no wrong move that is as forcing as the solution": 1}
    assert len(every(hub(tmp_path, [{**alone, "PuzzleId": "alone"}], "puzzles_best"))) == 1


def test_rows_of_one_game_or_one_position_are_one_group(tmp_path: Path) -> None:
    other = "6k1/5ppp/2p5/8/8/8/5PPP/Rn4K1 b - - 0 1"
    rows: list[dict[str, str | None]] = [
        {**SAMPLE, "PuzzleId": "a"},
        {**SAMPLE, "PuzzleId": "b", "FEN": other, "GameUrl": "https://lichess.org/abc#55"},  # the game of a
        {**SAMPLE, "PuzzleId": "c", "GameUrl": "https://lichess.org/xyz#1"},  # the position of a
        {**SAMPLE, "PuzzleId": "d", "FEN": other.replace("P", "B", 1), "GameUrl": "https://lichess.org/uvw#1"},
        {**SAMPLE, "PuzzleId": "e", "FEN": other.replace("P", "N", 1), "GameUrl": None},
    ]
    groups = {row.example.id: row.example.group for row in every(hub(tmp_path, rows))}
    assert groups["a"] == groups["b"] == groups["c"] and len(set(groups.values())) == 3


ILLEGAL: dict[str, list[dict[str, str | None]]] = {
    "has an illegal position": [
        {"FEN": "6k1/8/8/8/8/8/8/8 b - - 0 1"},
        {"FEN": "nonsense"},
        {"FEN": None},
    ],
    "has an illegal move": [
        {"Moves": "c6c5 a1b8"},
        {"Moves": "c6c5"},
        {"Moves": "zz"},
        {"Moves": "c6c5 0000"},
        {"Moves": None},
    ],
    "has only one legal move": [{"FEN": "7k/8/8/8/8/6q1/8/R6K b - - 0 1", "Moves": "g3h3 h1g1"}],
    "has several mating moves": [{"FEN": "6k1/5ppp/2p5/8/8/7P/5PPK/RQ6 b - - 0 1"}],
}


@pytest.mark.parametrize("task", ["puzzles", "puzzles_best"])
def test_illegal_and_ambiguous_rows_are_counted_and_never_trained_on(task: str, tmp_path: Path) -> None:
    awkward = [row for rows in ILLEGAL.values() for row in rows]
    rows = [{**SAMPLE, "PuzzleId": f"x{number}", **row} for number, row in enumerate(awkward)]
    found = hub(tmp_path, [SAMPLE, *rows], task)
    assert [row.example.id for row in every(found)] == ["p1"]
    assert found.skipped == {reason: len(rows) for reason, rows in ILLEGAL.items()}


def test_of_a_larger_table_the_same_rows_are_read_in_whatever_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**SAMPLE, "PuzzleId": f"p{number}"} for number in range(60)]
    whole = hub(tmp_path, rows)
    monkeypatch.setattr(puzzles, "LIMIT", 20)
    some, turned = hub(tmp_path, rows), hub(tmp_path, rows[::-1])
    ids = [{row.example.id for row in every(found)} for found in (some, turned)]
    assert len(ids[0]) == 20 and ids[0] == ids[1] < {row.example.id for row in every(whole)}
    assert some.skipped == {"is over the row limit": 40}
    file = tasks.find(f"puzzles:{write(tmp_path / 'p.csv', rows)}").load(None)
    assert {row.example.id for row in every(file)} == ids[0] and file.skipped == some.skipped


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", puzzles.FORMS)
def test_a_file_of_puzzles_gives_the_rows_of_the_hub(form: str, tmp_path: Path) -> None:
    rows = [{**SAMPLE, "PuzzleId": f"p{number}", "GameUrl": f"https://lichess.org/{number % 50}#1"} for number in range(100)]
    of_hub = hub(tmp_path, rows, f"puzzles{form}")
    of_file = tasks.find(f"puzzles{form}:{write(tmp_path / 'puzzles.csv', rows)}").load(None)
    assert of_file == of_hub


def test_games_that_end_in_mate_are_cut_where_one_move_mates(tmp_path: Path) -> None:
    games = [
        {"id": "scholar", "rated": "TRUE", "moves": SCHOLAR, "white_rating": "1500"},
        {"id": "fool", "rated": "TRUE", "moves": FOOL, "white_rating": "1500"},
        {"id": "drawn", "rated": "TRUE", "moves": "e4 e5 Nf3 Nc6", "white_rating": "1500"},
        {"id": "torn", "rated": "TRUE", "moves": "e4 e5 Ke3", "white_rating": "1500"},
        {"id": "none", "rated": "TRUE", "moves": "", "white_rating": "1500"},
    ]
    file = write(tmp_path / "games.csv", games)
    found = tasks.find(f"games_moves_best:{file}").load(None)
    assert {row.example.id: (row.example.segments[0], puzzles.UCI_MOVES[row.label]) for row in every(found)} == {
        "scholar-6": ("e4 e5 Bc4 Nc6 Qh5 Nf6", "h5f7"),
        "fool-3": ("f3 e5 g4", "d8h4"),
    }
    assert found.skipped == {"has no position with exactly one best move": 2, "has an illegal move": 1}
    boards = tasks.find(f"games:{file}").load(None)
    assert all(row.example.segments[0].endswith(" to move.") for row in every(boards))


def test_a_file_lacks_a_column(tmp_path: Path) -> None:
    file = write(tmp_path / "games.csv", [{"id": "a", "pgn": "e4"}])
    with pytest.raises(ConfigError, match=r"must have the column moves, but row 1 of .*games.csv has only id, pgn"):
        tasks.find(f"games:{file}").load(None)


def test_moves_that_are_no_text_are_named_with_their_row(tmp_path: Path) -> None:
    file = tmp_path / "games.jsonl"
    file.write_text(json.dumps({"id": "a", "moves": "e4 e5"}) + "\n" + json.dumps({"id": "b", "moves": ["e4", "e5"]}) + "\n")
    with pytest.raises(ConfigError, match=r"must have text in the column moves, but row 2 of .*games.jsonl has the list"):
        tasks.find(f"games:{file}").load(None)


# --- exact search -----------------------------------------------------------------------------------------------------


def mates_in(board: chess.Board, moves: int) -> list[chess.Move]:
    """The moves that force mate in at most `moves`, by a search that knows no shortcut."""
    found = []
    for move in board.legal_moves:
        after = board.copy()
        after.push(move)
        if after.is_checkmate() or (moves > 1 and any(after.legal_moves) and all(answered(after, moves - 1))):
            found.append(move)
    return found


def answered(after: chess.Board, moves: int) -> Iterator[bool]:
    for reply in after.legal_moves:
        board = after.copy()
        board.push(reply)
        yield bool(mates_in(board, moves))


MATES = [
    "6k1/5ppp/8/8/8/7P/5PPK/R7 w - - 0 1",  # a rook's move
    "6k1/5ppp/8/8/8/7P/5PPK/RQ6 w - - 0 1",  # two moves mate
    "kbK5/pp6/1P6/8/8/8/8/R7 w - - 0 1",  # Morphy: 1. Ra6 forces mate in two
    "7k/P5pp/8/8/8/8/8/K7 w - - 0 1",  # a pawn becomes queen or rook: two moves
    "4k3/8/4K3/8/8/8/8/7R w - - 0 1",  # the rook's eighth rank
    "7k/5K2/8/6Q1/8/8/8/8 w - - 0 1",  # several mates
    "8/8/8/8/8/5k2/6q1/7K w - - 0 1",  # mated already
]


@pytest.mark.parametrize("fen", MATES)
def test_the_only_mate_is_that_of_a_plain_search(fen: str) -> None:
    board = chess.Board(fen)
    found = mates_in(board, 1) or mates_in(board, 2)
    assert search.only_mate(board) == (found[0] if len(found) == 1 else None)
    assert board.fen() == fen


def test_morphys_problem_is_solved() -> None:
    assert search.only_mate(chess.Board(MATES[2])) == chess.Move.from_uci("a1a6")


@pytest.mark.slow
def test_mating_moves_are_those_of_a_plain_search_in_many_positions() -> None:
    found = 0
    for board in playouts(60, 120):
        moves = search.mating_moves(board)
        assert moves == [move for move in board.legal_moves if mates(board, move)]
        found += bool(moves)
    assert found > 3


def mates(board: chess.Board, move: chess.Move) -> bool:
    after = board.copy()
    after.push(move)
    return after.is_checkmate()


# --- an engine --------------------------------------------------------------------------------------------------------

ENGINE = """#!{python}
import sys
for line in sys.stdin:
    word = line.split()[0] if line.strip() else ""
    if word == "uci":
        print("option name MultiPV type spin default 1 min 1 max 2\\nuciok", flush=True)
    if word == "isready":
        print("readyok", flush=True)
    if word == "position":
        black = (" b " in line) != (" moves " in line)  # the position before its last move, and that move
    if word == "go":
        for said in {said!r}:
            print(said.replace("a2a3", "a7a6").replace("a2a4", "a7a5") if black else said, flush=True)
"""
BEST = "bestmove a2a3"
ANSWERS = {
    # what an engine says of a position -> whether a puzzle is cut of it
    "one good move": ("info depth 1 multipv 1 score cp 500 pv a2a3\ninfo depth 1 multipv 2 score cp 10 pv a2a4", 1),
    "two good moves": ("info depth 1 multipv 1 score cp 500 pv a2a3\ninfo depth 1 multipv 2 score cp 400 pv a2a4", 0),
    "a mate": ("info depth 1 multipv 1 score mate 3 pv a2a3\ninfo depth 1 multipv 2 score cp 400 pv a2a4", 1),
    "two mates": ("info depth 1 multipv 1 score mate 3 pv a2a3\ninfo depth 1 multipv 2 score mate 5 pv a2a4", 0),
    "one line": ("info depth 1 multipv 1 score cp 500 pv a2a3", 0),
}
QUIET = "Nf3 Nf6 Ng1 Ng8 Nf3 Nf6 Ng1 Ng8 Nf3 Nf6 Ng1 Ng8"
CUT = [sys.executable, "-m", "w2s_mlflow.tasks.puzzles"]


def engine(directory: Path, said: Sequence[str]) -> Path:
    file = directory / "engine"
    file.write_text(ENGINE.format(python=sys.executable, said=list(said)))
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


@pytest.mark.parametrize("said", ANSWERS)
def test_a_puzzle_is_where_the_second_best_move_is_much_worse(said: str, tmp_path: Path) -> None:
    lines, cut = ANSWERS[said]
    games = write(tmp_path / "games.csv", [{"id": "g", "moves": f"{QUIET} e4"}])
    path = engine(tmp_path, [*lines.split("\n"), BEST])
    counts = puzzles.write(games, tmp_path / "puzzles.csv", path, nodes=10, margin=200)
    assert counts["puzzles"] == cut
    found = {row["Moves"].split()[1] for row in read(tmp_path / "puzzles.csv")}
    assert found <= {"a2a3", "a7a6"} and len(found) == cut


@pytest.mark.parametrize("said", [(), ("bestmove e1e8",)])
def test_an_engine_that_goes_astray_is_not_waited_for(
    said: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "ANSWER_S", 0.5)
    games = write(tmp_path / "games.csv", [{"id": "g", "moves": f"{QUIET} e4"}])
    path = engine(tmp_path, said)
    with pytest.raises(ConfigError, match=rf"--engine must be a UCI engine, got {path}: "):
        puzzles.write(games, tmp_path / "puzzles.csv", path, nodes=10, margin=200)
    assert not list(tmp_path.glob("puzzles.csv*"))
    for thread in threading.enumerate():
        if thread.name.startswith("SimpleEngine"):  # which a command would wait for at its end
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("missing", "No such file or directory"),
        ("text", "Exec format error|Permission denied"),
        ("ends", "engine process died unexpectedly"),
    ],
)
def test_an_engine_that_is_none_is_one_sentence_and_nothing_is_written(path: str, said: str, tmp_path: Path) -> None:
    games = write(tmp_path / "games.csv", [{"id": "g", "moves": QUIET}])
    (tmp_path / "text").write_text("no program")
    (tmp_path / "ends").write_text("#!/bin/sh\nexit 0\n")
    for name in ("text", "ends"):
        (tmp_path / name).chmod(0o755)
    options = ["--games", games, "--out", tmp_path / "out.csv", "--engine", tmp_path / path]
    ended = subprocess.run([*CUT, *map(str, options)], capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and ended.stdout == ""
    start = f"w2s_mlflow: --engine must be a UCI engine, got {tmp_path / path}: "
    assert ended.stderr.startswith(start) and ended.stderr.count("\n") == 1
    assert not list(tmp_path.glob("out.csv*"))


@pytest.mark.skipif(STOCKFISH is None, reason="no Stockfish is installed")
def test_stockfish_cuts_the_same_puzzles_every_time(tmp_path: Path) -> None:
    assert STOCKFISH is not None
    hung = "e4 e5 Nf3 Nc6 Bb5 a6 Ba4 Nf6 O-O Be7 Re1 b5 Bb3 d6 c3 O-O h3 Nb8 d4 Qe8 dxe5 Bxh3 gxh3 h6 exf6 Bxf6"
    games = write(tmp_path / "games.csv", [{"id": "hung", "moves": hung}, {"id": "scholar", "moves": f"{QUIET} {SCHOLAR}"}])
    outs = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for out in outs:
        counts = puzzles.write(games, out, Path(STOCKFISH), nodes=5000, margin=150)
    assert outs[0].read_bytes() == outs[1].read_bytes() and counts["puzzles"] == 2
    rows = tasks.find(f"puzzles_best:{outs[0]}").load(None)
    assert {row.example.id.partition("-")[0] for row in every(rows)} == {"hung", "scholar"}
    for row in read(outs[0]):
        board = chess.Board(row["FEN"])
        for move in row["Moves"].split():
            board.push(chess.Move.from_uci(move))  # raises nothing: `load` has looked whether they are legal
        assert len(row["Game"].split()) == board.ply() - 1


# --- 1,968 classes ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_a_student_of_1968_classes_and_what_is_kept_beside_its_rows(tmp_path: Path) -> None:
    boards = [board.fen() for board in playouts(20, 60) if board.ply() > 8]
    rows = []
    for number, fen in enumerate(boards):
        board = chess.Board(fen)
        opponent = next(iter(board.legal_moves))
        board.push(opponent)
        solution = next(iter(board.legal_moves), None)
        row = {"PuzzleId": f"p{number}", "FEN": fen, "Moves": f"{opponent} {solution}", "GameUrl": f"l/{number // 5}"}
        rows.append({**SAMPLE, **row, "Rating": 1000 + number})
    hub(tmp_path, rows, "puzzles_best")
    given: dict[str, Any] = {"task": "puzzles_best", "data_dir": str(tmp_path), "weak": "chess-27k", "strong": "chess-43k"}
    found = student.run(student.Config(**given, method="confidence", train_size=200, test_size=60, epochs=1))
    predicted = found.predictions("test")
    assert predicted.probabilities_NC.shape == (len(predicted.ids), 1968)
    assert all(0 <= found.metrics[f"test/{name}"] <= 1 for name in ("accuracy", "agreement", "ceiling_accuracy"))
    kept = pq.read_table(results.get(found.tags["w2s.weak_run_id"]).artifact("rows.parquet")).to_pylist()
    assert len(kept) > 200
    assert all(json.loads(row["about"]) == {"Rating": 1000 + int(row["id"].removeprefix("p"))} for row in kept)
