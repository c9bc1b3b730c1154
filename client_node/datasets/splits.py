"""Which cells train, validate and test: by group, never by row, so that near duplicates stay together."""

import hashlib
from enum import StrEnum
from typing import Final


class Split(StrEnum):
    """The use of a labelled cell."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


_VAL_PERCENT: Final = 10
_TEST_PERCENT: Final = 20


def split_of_group(group: str) -> Split:
    """Return the split of ``group``: 70 % train, 10 % val, 20 % test, the same on every machine and run."""
    bucket = int.from_bytes(hashlib.sha256(group.encode()).digest()[:4], "big") % 100
    if bucket < _TEST_PERCENT:
        return Split.TEST
    if bucket < _TEST_PERCENT + _VAL_PERCENT:
        return Split.VAL
    return Split.TRAIN


def split_for(group: str, given: str | None) -> Split:
    """Return the split that a label file gives, or the one of the group where it gives none.

    Raises:
        ValueError: ``given`` names no split.
    """
    if given is None or not given.strip():
        return split_of_group(group)
    name = given.strip().lower()
    return Split({"valid": "val", "validation": "val", "training": "train", "testing": "test"}.get(name, name))
