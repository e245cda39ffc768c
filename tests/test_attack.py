"""A small part of the attack (tests/attack.py): nothing is lost, nothing is doubled."""

from __future__ import annotations

import pytest

from tests.attack import FAULTS, attack


@pytest.mark.slow
def test_a_small_attack_loses_and_doubles_nothing() -> None:
    counts = attack(40, seed=1)
    assert counts.keys() == FAULTS.keys()
    assert all(count.tried > 0 and count.survived == count.tried for count in counts.values()), counts
