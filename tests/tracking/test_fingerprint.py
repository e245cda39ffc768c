"""Each part of a fingerprint counts, and nothing else does."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest

from w2s_mlflow.records import canonical_json
from w2s_mlflow.tracking import fingerprint
from w2s_mlflow.tracking.fingerprint import FingerprintParts

PARTS = FingerprintParts(
    stage="student",
    version=1,
    options={"epochs": 2, "loss_options": {"alpha": 0.5}},
    data="d",
    inputs={"weak": "w", "other": "o"},
    libraries={"torch": "2.13", "transformers": "5.23"},
    source={"training.loop": "t", "modeling.heads": "h"},
    weights="r",
)
OTHER: dict[str, Any] = {
    "stage": "ceiling",
    "version": 2,
    "options": {"epochs": 2, "loss_options": {"alpha": 0.75}},
    "data": "e",
    "inputs": {"weak": "o", "other": "w"},
    "libraries": {"torch": "2.14", "transformers": "5.23"},
    "source": {"training.loop": "t", "modeling.heads": "i"},
    "weights": "",
}


def test_other_holds_every_part() -> None:
    assert set(OTHER) == {field.name for field in dataclasses.fields(FingerprintParts)}


@pytest.mark.parametrize("part", OTHER)
def test_each_part_changes_the_digest(part: str) -> None:
    assert dataclasses.replace(PARTS, **{part: OTHER[part]}).digest() != PARTS.digest()


def test_digests_of_single_changes_differ_from_each_other() -> None:
    digests = {dataclasses.replace(PARTS, **{part: value}).digest() for part, value in OTHER.items()}
    assert len(digests) == len(OTHER)


def test_order_of_keys_does_not_matter() -> None:
    turned: dict[str, Any] = {
        name: dict(reversed(list(value.items()))) for name, value in vars(PARTS).items() if isinstance(value, dict)
    }
    other = dataclasses.replace(PARTS, **turned)
    assert [list(value) for value in turned.values()] != [list(getattr(PARTS, name)) for name in turned]
    assert other.digest() == PARTS.digest()


def test_a_digest_is_32_hexadecimal_digits_and_the_same_in_every_process() -> None:
    assert len(PARTS.digest()) == 32 and set(PARTS.digest()) <= set("0123456789abcdef")
    text = '{"data":"d","inputs":{},"libraries":{},"options":{"a":1},"source":[],"stage":"s","version":1,"weights":""}'
    assert FingerprintParts("s", 1, {"a": 1}, "d", {}, {}, {}).digest() == hashlib.sha256(text.encode()).hexdigest()[:32]


def test_where_source_stands_does_not_matter() -> None:
    assert dataclasses.replace(PARTS, source={"training.loop": "t", "modeling.heads": "h"}).digest() == PARTS.digest()
    assert (
        dataclasses.replace(PARTS, source={"training.loop": "t", "modeling.heads": "h", "more": "h"}).digest() != PARTS.digest()
    )


def test_parts_are_plain_enough_to_be_kept_as_json() -> None:
    assert '"weights":"r"' in canonical_json(dataclasses.asdict(PARTS))


def test_parts_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PARTS.stage = "other"  # type: ignore[misc]


def test_a_result_may_name_more_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.13.1+cpu", "transformers": "5.23.0", "peft": "0.21.2.dev0"}
    monkeypatch.setattr(fingerprint, "version", versions.__getitem__)
    assert fingerprint.libraries("peft") == {"torch": "2.13", "transformers": "5.23", "peft": "0.21"}


def test_libraries_are_named_by_major_and_minor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "version", {"torch": "2.13.1+cpu", "transformers": "5.23.0"}.__getitem__)
    assert fingerprint.libraries() == {"torch": "2.13", "transformers": "5.23"}
