"""Classes taught by a few examples: used where they fit, refused where they cannot be told, taken back."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from client_node.analysis.model import load_model
from client_node.analysis.prototypes import LEAST, Lessons
from client_node.analysis.service import Analyser
from client_node.datasets.importers import import_source
from shared.contracts.errors import DataInvalidError, NotFoundError, UsageError
from shared.contracts.ontology import CellClass
from tests.client_node.analysis.factories import save
from tests.client_node.analysis.models import CLASSES, cell_image, install_model

N, BLAST = CellClass.NEUTROPHIL, CellClass.BLAST


def yellow(seed: int) -> NDArray[np.uint8]:
    """A cell of a colour that no class of the model has."""
    noise = np.random.default_rng(seed).normal(0, 6, (80, 80, 3))
    return np.clip(np.array([210.0, 210.0, 40.0]) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    install_model(home)
    for number in range(48):
        cls = CLASSES[number % len(CLASSES)]
        save(tmp_path / f"labelled/{cls.value}/{number}.png", cell_image(cls, number))
    import_source(home, tmp_path / "labelled")
    return home


def examples(folder: Path, count: int) -> list[Path]:
    return [save(folder / f"{number}.png", yellow(number)) for number in range(count)]


def test_a_taught_class_is_named_and_provisional(home: Path, tmp_path: Path) -> None:
    lessons, model = Lessons(home), load_model(home / "models/test-1")
    prototype, left_out = lessons.teach(BLAST, examples(tmp_path / "given", 6), model)
    assert left_out == []
    assert prototype.found == 1.0
    save(tmp_path / "smear/a.png", yellow(77))
    save(tmp_path / "smear/b.png", cell_image(N, 78))
    (smear,) = Analyser(home).analyze([tmp_path / "smear"]).smears
    taught, known = smear.cells
    assert (taught.cls, taught.provisional) == (BLAST, True)
    assert taught.prediction_set[0] is BLAST
    assert len(taught.prediction_set) > 1  # the model's own view stays beside it
    assert (known.cls, known.provisional) == (N, False)
    assert "blast.present" in [flag.id for flag in smear.flags]


def test_a_taught_class_can_be_taken_back_with_its_images(home: Path, tmp_path: Path) -> None:
    lessons, model = Lessons(home), load_model(home / "models/test-1")
    lessons.teach(BLAST, examples(tmp_path / "given", LEAST), model)
    assert lessons.classes().keys() == {BLAST}
    lessons.forget(BLAST)
    assert lessons.classes() == {}
    assert not [file for file in (home / "taught/images").rglob("*") if file.is_file()]
    assert lessons.on(model).taught is None
    with pytest.raises(NotFoundError):
        lessons.forget(BLAST)


def test_another_model_sees_the_kept_examples_anew(home: Path, tmp_path: Path) -> None:
    lessons = Lessons(home)
    lessons.teach(BLAST, examples(tmp_path / "given", LEAST), load_model(home / "models/test-1"))
    other = load_model(install_model(home, "test-2"))
    assert [one.cls for one in lessons.prototypes(other)] == [BLAST]
    assert lessons.on(other).taught is not None


def test_too_few_or_unreadable_examples_keep_nothing(home: Path, tmp_path: Path) -> None:
    given = examples(tmp_path / "given", LEAST - 1)
    broken = tmp_path / "given/broken.png"
    broken.write_text("no image")
    model = load_model(home / "models/test-1")
    with pytest.raises(DataInvalidError, match="at least 5"):
        Lessons(home).teach(BLAST, [*given, given[0], broken], model)
    assert Lessons(home).classes() == {}
    assert not [file for file in (home / "taught").rglob("*.png") if file.is_file()]


@pytest.mark.parametrize("labelled", [0, 12])
def test_a_site_with_hardly_any_labels_is_told_why_it_cannot_teach(tmp_path: Path, labelled: int) -> None:
    home = tmp_path / "bare"
    install_model(home)
    for number in range(labelled):
        cls = CLASSES[number % len(CLASSES)]
        save(tmp_path / f"few/{cls.value}/{number}.png", cell_image(cls, number))
    if labelled:
        import_source(home, tmp_path / "few")
    with pytest.raises(DataInvalidError, match=r"import at least 20 .*holds no single cell"):
        Lessons(home).teach(BLAST, examples(tmp_path / "given", 6), load_model(home / "models/test-1"))
    assert Lessons(home).classes() == {}


def test_a_class_that_the_model_knows_is_not_taught(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="by itself"):
        Lessons(home).teach(N, examples(tmp_path / "given", 6), load_model(home / "models/test-1"))


def test_examples_that_look_like_a_known_class_are_refused(home: Path, tmp_path: Path) -> None:
    same = [save(tmp_path / f"given/{number}.png", cell_image(N, 300 + number)) for number in range(6)]
    with pytest.raises(DataInvalidError, match="cannot tell"):
        Lessons(home).teach(BLAST, same, load_model(home / "models/test-1"))
    assert Lessons(home).classes() == {}
