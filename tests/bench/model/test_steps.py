"""Pieces on disk: what is made again, what is not, and whose seconds are whose."""

import json
import time
from pathlib import Path

import pytest

from tests.bench.model.steps import Piece, Steps, stored


class Work:
    """Counts how often it is done."""

    def __init__(self, result: object = "done", seconds: float = 0.0) -> None:
        self.times = 0
        self._result = result
        self._seconds = seconds

    def __call__(self) -> object:
        self.times += 1
        time.sleep(self._seconds)
        return self._result


def test_a_piece_is_taken_while_its_facts_agree(tmp_path: Path) -> None:
    work, file = Work({"rows": [1.5]}), tmp_path / "a" / "piece.json"
    first = Steps().run(file, {"recipe": 1}, work)
    assert Steps().run(file, {"recipe": 1}, work) == first
    assert (work.times, first.result) == (1, {"rows": [1.5]})
    Steps().run(file, {"recipe": 2}, work)
    Steps().run(file, {"recipe": 2}, work, again=True)
    assert work.times == 3
    assert stored(file, {"recipe": 1}) is None


def test_what_was_cut_off_in_writing_is_made_again(tmp_path: Path) -> None:
    file = tmp_path / "piece.json"
    Steps().run(file, 1, Work())
    file.write_text(file.read_text()[:-20])
    assert stored(file, 1) is None
    file.write_text(json.dumps(["no piece"]))
    assert stored(file, 1) is None


def test_a_failed_piece_leaves_nothing_and_the_next_one_counts_its_own_seconds(tmp_path: Path) -> None:
    steps = Steps()

    def fails() -> object:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        steps.run(tmp_path / "one.json", 1, fails)
    assert list(tmp_path.iterdir()) == []
    assert steps.run(tmp_path / "two.json", 1, Work()).within == {}


def test_an_inner_piece_keeps_its_seconds_to_itself(tmp_path: Path) -> None:
    model, section = tmp_path / "model.json", tmp_path / "section.json"

    def measured(steps: Steps) -> Piece:
        def work() -> object:
            steps.run(model, "m", Work(seconds=0.2))
            time.sleep(0.05)
            return "rows"

        return steps.run(section, "s", work)

    piece = measured(Steps())
    assert 0.05 <= piece.seconds < 0.2
    assert piece.within[str(model)] >= 0.2
    section.unlink()
    again = measured(Steps())  # the model is there: its seconds are known, and not counted in the section's
    assert again.within == piece.within
    assert again.seconds < 0.2
