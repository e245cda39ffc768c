"""Tokens: hand-worked rows of three kinds of tokenizers, cuts at the exact limit, what is kept on disk, what is padded."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RobertaConfig, RobertaModel

from tests import trunks
from w2s_mlflow import models, tasks
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import arrays
from w2s_mlflow.local.scratch import OLD, cache_path
from w2s_mlflow.modeling import tokenization
from w2s_mlflow.modeling.heads import Head, build
from w2s_mlflow.modeling.token_rows import Encoded
from w2s_mlflow.modeling.tokenization import Reader, truncate
from w2s_mlflow.models import chess
from w2s_mlflow.records import Example
from w2s_mlflow.tasks import HEADS


def rows(data: Encoded) -> list[list[int]]:
    """The token rows one by one."""
    return [row.tolist() for row in np.split(data.flat, data.offsets_R[1:])]


def example(*segments: str, candidates: tuple[str, ...] = ()) -> Example:
    return Example(segments[0], segments[0], segments, candidates)


# --- hand-worked ------------------------------------------------------------------------------------------------------


def test_a_pair_of_bert_has_its_separators_and_types() -> None:
    """`a` is 4, ..., `h` is 11; [CLS] 1, [SEP] 2; a third text goes with the second."""
    model, tokenizer = trunks.bert()
    data = build("classification", model, tokenizer, 2).encode([example("A b", "c"), example("d"), example("e", "f", "g")])
    assert rows(data) == [[1, 4, 5, 2, 6, 2], [1, 7, 2], [1, 8, 2, 9, 10, 2]]
    batch = data.batch(np.array([0, 1]))
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]]
    assert batch["input_ids"].tolist()[1] == [1, 7, 2, 0, 0, 0]
    assert batch["attention_mask"].tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]


def test_two_texts_of_gpt2_are_one_with_a_newline_between() -> None:
    """Bytes from "!", 0: "a" is 64, "b" 65, " b" 257, and 198 a newline."""
    model, tokenizer = trunks.gpt2()
    data = build("classification", model, tokenizer, 2).encode([example("a b", "a!")])
    assert rows(data) == [[64, 257, 198, 64, 0]]
    assert data.types is None and data.batch(np.arange(1)).keys() == {"input_ids", "attention_mask"}


def test_the_second_text_of_llama_gets_no_beginning_of_its_own() -> None:
    """Its template for pairs has one: <s> A <s> B. Here "▁a" is 9, "▁b" 10, "b" 6 and a newline 4."""
    model, tokenizer = trunks.llama()
    data = build("reward", model, tokenizer, 2).encode([example("a", candidates=("b", "b b"))])
    assert rows(data) == [[1, 9, 4, 6], [1, 9, 4, 6, 10]]
    assert data.rows_per_example == 2 and len(data) == 1


def test_what_looks_like_a_special_token_in_a_text_is_text() -> None:
    model, tokenizer = trunks.bert()
    assert rows(Reader(tokenizer, model).read([("a [SEP] b",)])) == [[1, 4, 13, 15, 14, 5, 2]]
    assert tokenizer("a [SEP] b", add_special_tokens=False)["input_ids"] == [4, 2, 5]


def test_choose_ends_where_the_answer_stands() -> None:
    model, tokenizer = trunks.gpt2()
    data = build("lm_choice", model, tokenizer, 2).encode([example("a", "b", candidates=("a", "b"))])
    assert rows(data) == [[64, 198, 65]]
    assert data.candidates_NC is not None and data.candidates_NC.tolist() == [[256, 257]]
    model, tokenizer = trunks.bert()
    assert rows(Reader(tokenizer, model).read([("a",)], closed=False)) == [[1, 4]]


@pytest.mark.parametrize(("make", "tokens_"), [(trunks.gpt2, [[256, 257]]), (trunks.llama, [[9, 10]]), (trunks.bert, [[4, 5]])])
def test_a_candidate_is_the_word_as_it_stands_after_another(make: trunks.Maker, tokens_: list[list[int]]) -> None:
    model, tokenizer = make()
    assert [[Reader(tokenizer, model).continuation(word)[0] for word in "ab"]] == tokens_


def test_a_candidate_of_more_tokens_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="--head lm_choice needs candidates that are single tokens of the vocabulary, but 'c' has"
    ):
        build("lm_choice", *trunks.gpt2(), 2).encode([example("a", candidates=("a", "c"))])


def restated(head: str, words: dict[str, int], one: Example) -> list[list[int]]:
    """What the embedded ladder has always read: <bos>, then a token for each word, in order."""
    texts = {
        "lm_choice": [one.segments],
        "classification": [one.segments + one.candidates],
        "reward": [(*one.segments, response) for response in one.candidates],
    }
    return [[words["<bos>"], *(words[word] for word in " ".join(text).split())] for text in texts[head]]


@pytest.mark.parametrize("task", ["chess", "chess_preference"])
@pytest.mark.parametrize("head", HEADS)
def test_the_embedded_ladder_reads_a_token_a_word(head: str, task: str) -> None:
    found = tasks.find(task).load(None)
    asked = [row.example for part in (found.train, found.heldout) for row in part[:100]]
    words = {word: id_ for id_, word in enumerate(chess.VOCABULARY)}
    data = build(head, *models.load(models.find("chess-27k", "weak"), pretrained=False), 2).encode(asked)
    assert rows(data) == [row for one in asked for row in restated(head, words, one)]
    assert (data.types, data.pad_id) == (None, 0)
    if head == "lm_choice":
        assert data.candidates_NC is not None
        assert data.candidates_NC.tolist() == [[words[word] for word in one.candidates] for one in asked]


@pytest.mark.parametrize("make", [trunks.bert, trunks.gpt2, trunks.llama])
@pytest.mark.parametrize("blank", ["", " \n"])
def test_a_row_without_a_word_is_refused(make: trunks.Maker, blank: str) -> None:
    model, tokenizer = make()
    for row in ((blank,), (blank, blank)):
        with pytest.raises(
            ConfigError, match="every example must have at least one word, but one of the 2 token rows has none"
        ):
            Reader(tokenizer, model).read([("a",), row])


def test_a_row_of_characters_that_the_tokenizer_drops_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of the 1 token rows has none"):
        build("classification", *trunks.bert(), 2).encode([example("\u200b")])


def test_half_a_character_is_refused() -> None:
    with pytest.raises(ConfigError, match="every text must be valid Unicode"):
        build("classification", *trunks.bert(), 2).encode([example("a \ud83d")])


# --- cuts -------------------------------------------------------------------------------------------------------------


def by_hand(first: int, second: int, room: int) -> tuple[int, int]:
    """One token at a time from the end of the longer text; of two equal ones, from the second."""
    while first + second > room:
        first, second = (first - 1, second) if first > second else (first, second - 1)
    return first, second


@given(st.integers(0, 40), st.integers(0, 40), st.integers(2, 50))
def test_the_longer_text_is_cut_first(first: int, second: int, room: int) -> None:
    kept = [
        len(range(length)[part])
        for length, part in zip((first, second), truncate((first, second), room, keep_end=False), strict=True)
    ]
    assert tuple(kept) == by_hand(first, second, room)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 50))
def test_with_its_end_kept_a_row_is_cut_as_one_text(first: int, second: int, room: int) -> None:
    texts = [("first", n) for n in range(first)], [("second", n) for n in range(second)]
    kept = [text[part] for text, part in zip(texts, truncate((first, second), room, keep_end=True), strict=True)]
    assert kept[0] + kept[1] == (texts[0] + texts[1])[-room:]


@pytest.mark.parametrize("make", [trunks.bert, trunks.gpt2, trunks.llama])
@settings(max_examples=40)
@given(first=st.integers(1, 30), second=st.integers(1, 30), limit=st.integers(8, 40))
def test_no_row_is_longer_than_the_limit(make: trunks.Maker, first: int, second: int, limit: int) -> None:
    model, tokenizer = make()
    texts = (" ".join("a" * first), " ".join("b" * second))
    whole = rows(Reader(tokenizer, model).read([texts]))[0]
    reader = Reader(tokenizer, model, limit)
    beginning, end = (rows(reader.read([texts], keep_end=keep_end))[0] for keep_end in (False, True))
    assert len(beginning) == len(end) == min(limit, len(whole))
    opening, closing = list(reader.single.special_ids[0]), list(reader.single.special_ids[-1])
    for row in (beginning, end):
        assert row[: len(opening)] == opening and row[len(row) - len(closing) :] == closing
        assert sum(id_ in opening + closing for id_ in row) == sum(id_ in opening + closing for id_ in whole)
    a, b = (
        {*reader.continuation(letter), *reader._tokens([letter])[0], tokenizer.convert_tokens_to_ids(letter)} for letter in "ab"
    )
    assert a & set(beginning) and b & set(beginning)
    assert sum(id_ in b for id_ in end) >= min(second, limit - (reader.pair or reader.single).size() - 2)
    assert end[-1 - len(closing)] == whole[-1 - len(closing)]


def test_cuts_by_hand() -> None:
    """Bert, six tokens: three are special."""
    model, tokenizer = trunks.bert()
    texts = [("a b c d", "e f"), ("a", "b c d e"), ("a b c", "d e f")]
    reader = Reader(tokenizer, model, 6)
    assert rows(reader.read(texts)) == [[1, 4, 5, 2, 8, 2], [1, 4, 2, 5, 6, 2], [1, 4, 5, 2, 7, 2]]
    assert rows(reader.read(texts, keep_end=True)) == [[1, 7, 2, 8, 9, 2], [1, 2, 6, 7, 8, 2], [1, 2, 7, 8, 9, 2]]
    types = reader.read(texts, keep_end=True).types
    assert types is not None and types.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1]


def test_a_cut_text_still_ends_before_the_next_begins() -> None:
    """GPT-2, six tokens: "aaa", a newline and "bb"."""
    model, tokenizer = trunks.gpt2()
    assert rows(Reader(tokenizer, model, 6).read([("aaaaaa", "bb")])) == [[64, 64, 64, 198, 65, 65]]


@pytest.mark.parametrize("keep_end", [False, True])
def test_choose_and_compare_keep_the_end_and_classify_the_beginning(keep_end: bool) -> None:
    one = build("lm_choice" if keep_end else "classification", *trunks.gpt2(), 2, max_length=3)
    assert rows(one.encode([example("abcde", candidates=("a", "b") if keep_end else ())])) == [
        [66, 67, 68] if keep_end else [64, 65, 66]
    ]


def test_the_response_is_cut_only_when_it_alone_is_too_long() -> None:
    one = build("reward", *trunks.bert(), 2, max_length=7)
    found = rows(one.encode([example("a b c", candidates=("d e f", "d e f g h"))]))
    assert found == [[1, 6, 2, 7, 8, 9, 2], [1, 2, 8, 9, 10, 11, 2]]


def test_the_limit_is_that_of_tokenizer_and_model_whichever_is_less() -> None:
    model, tokenizer = trunks.gpt2(limit=20)
    assert tokenizer.model_max_length > 10**20 and Reader(tokenizer, model).limit == 20
    tokenizer.model_max_length = 9
    assert (Reader(tokenizer, model).limit, Reader(tokenizer, model, 7).limit) == (9, 7)
    model.config.n_positions, tokenizer.model_max_length = -1, 10**30
    assert (Reader(tokenizer, model).limit, Reader(tokenizer, model, 10**6).limit) == (None, 10**6)


def test_roberta_counts_its_positions_from_behind_the_padding() -> None:
    positions = {"vocab_size": 20, "max_position_embeddings": 14, "pad_token_id": 1, "type_vocab_size": 1}
    model, (_, tokenizer) = RobertaModel(RobertaConfig.from_dict({**trunks.SIZES, **positions})), trunks.bert()
    reader = Reader(tokenizer, model)
    assert (reader.limit, reader.typed) == (12, False)
    row = torch.full((1, 12), 5)
    model(row)
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, 13), 5))


@pytest.mark.parametrize("length", [4, 513])
def test_a_limit_that_cannot_be_is_one_sentence(length: int) -> None:
    with pytest.raises(ConfigError, match=rf"--max-length must be in \[5, 512\] for this model, got {length}"):
        build("classification", *trunks.bert(), 2, max_length=length)


# --- on disk ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An empty scratch directory, in which every row is kept; how often rows were tokenised."""
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path))
    monkeypatch.setattr(tokenization, "CACHE_MIN_CHARACTERS", 0)
    counted: list[int] = []
    read = Reader._read

    def count(self: Reader, *arguments: object) -> object:
        counted.append(1)
        return read(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Reader, "_read", count)
    return counted


TEXTS = [("a b", "c d"), ("e",)]


def same(one: Encoded, other: Encoded) -> bool:
    pairs = zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)
    return all(np.array_equal(a, b) and getattr(a, "dtype", None) == getattr(b, "dtype", None) for a, b in pairs)


def test_rows_are_tokenised_once_by_whoever_asks(made: list[int]) -> None:
    first, second = (Reader(*trunks.bert()[::-1]).read(TEXTS) for _ in range(2))
    assert same(first, second) and len(made) == 1
    assert first.flat.dtype == np.int64 and first.types is not None


def test_whatever_makes_the_rows_has_a_file_of_its_own(made: list[int]) -> None:
    model, tokenizer = trunks.bert()
    reader = Reader(tokenizer, model)
    short, other = Reader(tokenizer, model, 6), Reader(*trunks.llama()[::-1])
    reads: list[Callable[[], Encoded]] = [
        lambda: reader.read(TEXTS),
        lambda: reader.read(TEXTS, keep_end=True),
        lambda: reader.read(TEXTS, closed=False),
        lambda: reader.read(TEXTS[:1]),
        lambda: reader.read([("a b c d",), ("e",)]),
        lambda: short.read(TEXTS),
        lambda: other.read(TEXTS),
    ]
    for count, read in enumerate(reads, start=1):
        assert same(read(), read()) and len(made) == count


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "no digest"])
def test_a_damaged_file_is_made_again(damage: str, made: list[int]) -> None:
    reader = Reader(*trunks.bert()[::-1])
    expected = reader.read(TEXTS)
    (file,) = cache_path("tokens").iterdir()
    content = file.read_bytes()
    broken = {"flipped": content[:-1] + bytes([content[-1] ^ 1]), "cut": content[:-1], "empty": b"", "no digest": b"abc"}
    file.write_bytes(broken[damage])
    assert same(reader.read(TEXTS), expected) and len(made) == 2
    assert file.read_bytes() == content and len(list(cache_path("tokens").iterdir())) == 1


def test_what_nobody_has_used_for_a_month_goes(made: list[int]) -> None:
    reader = Reader(*trunks.bert()[::-1])
    for text in "ab":
        reader.read([(text,)])
    files = set(cache_path("tokens").iterdir())
    for file in files:
        os.utime(file, (time.time() - OLD - 60,) * 2)
    reader.read([("a",)])  # used again
    assert set(cache_path("tokens").iterdir()) == files
    reader.read([("c",)])
    assert len(files & set(cache_path("tokens").iterdir())) == 1 and len(made) == 3


def test_a_file_that_another_process_has_just_moved_is_passed_over(made: list[int]) -> None:
    cache_path("tokens").mkdir(parents=True)
    (cache_path("tokens") / "gone.partial").symlink_to("nowhere")
    assert same(*(Reader(*trunks.bert()[::-1]).read(TEXTS) for _ in range(2))) and len(made) == 1


def test_rows_are_read_where_nothing_can_be_written(made: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path / "file"))
    assert rows(Reader(*trunks.bert()[::-1]).read(TEXTS)) == [[1, 4, 5, 2, 6, 7, 2], [1, 8, 2]]


def test_few_rows_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path))
    Reader(*trunks.bert()[::-1]).read(TEXTS)
    assert not cache_path(arrays.FOLDER).exists()


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [trunks.bert, trunks.gpt2, trunks.llama])
def test_a_batch_holds_what_its_examples_hold_one_by_one(make: trunks.Maker) -> None:
    one: Head = build("reward", *make(), 2)
    data = one.encode([example("a b", candidates=("c", "d a b")), example("a", candidates=("b", "c d"))])
    together = data.batch(np.array([1, 0]))
    for place_, index in enumerate((1, 0)):
        alone = data.batch(np.array([index]))
        width = alone["input_ids"].shape[1]
        for name, tensor in alone.items():
            assert torch.equal(together[name][2 * place_ : 2 * place_ + 2, :width], tensor)
        assert not together["attention_mask"][2 * place_ : 2 * place_ + 2, width:].any()
