"""A federation of the bench on painted cells of two laboratories."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_node.training.sources import MapSource
from server.federation.strategies.port import Sent
from server.federation.strategies.tensors import wire_tensors
from server.federation.strategies.updates import verify
from tests.bench.federation import arms as arms_module
from tests.bench.federation import play as play_module
from tests.bench.federation.arm import STRENGTH, Arm, Attack, Sites
from tests.bench.federation.arms import Played, played
from tests.bench.federation.codecs import Codec, Sender
from tests.bench.federation.kept import Kept, kept_in
from tests.bench.federation.play import _attacked, _Hospital, holdings, play
from tests.bench.model.bench import Bench
from tests.bench.model.steps import Steps
from tests.client_node.datasets.factories import COLUMNS
from tests.client_node.training.site import CLASSES, painted

SMALL: tuple[tuple[str, float | int | str], ...] = (
    ("input_size", 32), ("frozen_stages", 6), ("local_epochs", 1), ("views", 1), ("batch_size", 8),
)  # fmt: skip
COUNTS = {"train": 12, "val": 4, "test": 6}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    data = tmp_path_factory.mktemp("painted")
    random = np.random.default_rng(0)
    with (data / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for source in ("pbc", "bccd"):
            for split, count in COUNTS.items():
                for cls in CLASSES:
                    for number in range(count):
                        name = f"{source}-{split}-{cls}-{number}"
                        (data / f"{name}.png").write_bytes(painted(cls, random))
                        row: dict[str, Any] = {"path": f"{name}.png", "kind": "cell", "class": cls, "source": source}
                        writer.writerow({**row, "group": name, "split": split})
    return Bench(data, data / "work", quick=True, steps=Steps())


def test_laboratories_learn_together_and_adapters_are_judged(bench: Bench) -> None:
    run = Played(play(bench, Arm(Sites(labs=("pbc", "bccd")), (1, 2), SMALL, adapted=True)))
    assert [look["round"] for look in run.result["looks"]] == [1, 2]
    truth, said = run.pair("bccd")
    assert len(truth) == len(said) == 3 * COUNTS["test"]
    assert run.f1("pbc") > 0.5  # three classes that colour and size tell apart
    assert len(run.own("pbc")[0]) == len(truth)
    assert all(400_000 < run.traffic[way] < 1_000_000 for way in ("down", "up"))  # packed: as fp16 over two million


def test_a_run_that_was_cut_off_goes_on_behind_its_last_round(bench: Bench, tmp_path: Path) -> None:
    arm = Arm(Sites(labs=("pbc", "bccd")), (1, 2, 3), SMALL, codec=Codec.PACKED_FEEDBACK, attack=Attack.RANDOM)
    whole, part = play(bench, arm), tmp_path / "arm.part"
    with pytest.MonkeyPatch.context() as patch:
        rounds = iter((play_module._round,) * 2)
        patch.setattr(play_module, "_round", lambda *given: next(rounds)(*given))
        with pytest.raises(StopIteration):
            play(bench, arm, part)
    assert part.exists()
    with pytest.MonkeyPatch.context() as patch:
        rounds = iter((play_module._round,))
        patch.setattr(play_module, "_round", lambda *given: next(rounds)(*given))
        assert play(bench, arm, part)["looks"] == whole["looks"]
        assert play(bench, arm, part)["looks"] == whole["looks"]  # nothing is played again until it is written down


def test_what_cannot_be_read_is_played_from_the_start(tmp_path: Path) -> None:
    part = tmp_path / "arm.part"
    assert kept_in(part) is None
    Kept({"a": np.ones(3, np.float32)}, number=2).save(part)
    assert (kept_in(part) or Kept({})).number == 2
    part.write_bytes(part.read_bytes()[:40])
    assert kept_in(part) is None


def test_a_kept_arm_is_not_played_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(arms_module.JOBS_VARIABLE, "1")
    arm = Arm(Sites(count=2, alpha=0.5), (1,), SMALL)
    first = played(bench, [arm])[0]
    assert not [*(bench.work / "arms").glob("*.part")]
    monkeypatch.setattr(arms_module, "_pool", None)
    assert played(bench, [arm])[0] == first


def test_cells_are_held_once_and_the_dishonest_are_left_out(bench: Bench) -> None:
    parts = holdings(bench, Sites(count=3, alpha=0.5, seed=1))
    assert sum(len(part) for part in parts) == 3 * COUNTS["train"]
    assert holdings(bench, Sites(count=3, alpha=0.5, seed=1, honest=2)) == parts[:2]
    folds = [holdings(bench, Sites(labs=("bccd",), fold=fold))[0] for fold in range(5)]
    everything = [cell.hash for part in folds for cell in part]
    assert {everything.count(name) for name in everything} == {3}  # of five folds each cell trains in three


def test_a_bad_hospital_sends_what_passes_for_an_update_and_is_none() -> None:
    received = {"head.weight": np.zeros((4, 50), np.float32)}
    trained = {"head.weight": np.full((4, 50), 0.01, np.float32)}
    sent = Sent.of(1, wire_tensors(received), received)
    steps = {}
    for attack in Attack:
        bad = _Hospital("bad", MapSource(np.zeros((0, 1, 1, 1, 1), np.float16)), np.zeros(0, np.int64),
                        Sender(Codec.FP16), attack)  # fmt: skip
        body = bad.sender.send(_attacked(bad, trained, sent), sent)
        steps[attack] = verify("bad", body, sent, examples=1).tensors["head.weight"]
    honest = float(np.linalg.norm(trained["head.weight"]))
    for step in steps.values():
        assert np.linalg.norm(step.astype(np.float32)) == pytest.approx(STRENGTH * honest, rel=0.01)
    assert steps[Attack.FLIPPED] == pytest.approx(-STRENGTH * 0.01, rel=0.01)
    assert abs(float(steps[Attack.RANDOM].astype(np.float32).mean())) < STRENGTH * 0.01 / 3
