"""Rules measured on labelled smears, with figures worked out by hand."""

import json
from pathlib import Path

import pytest

from client_node.analysis.rule_check import RuleCheck, check_rules
from client_node.analysis.rules import load_rules
from client_node.rules_command import check_text, lines, show_text
from shared.contracts.errors import ConfigError, NoLabelsError
from shared.contracts.ontology import CellClass
from tests.client_node.analysis.factories import save
from tests.client_node.analysis.models import cell_image, install_model
from tests.client_node.datasets.factories import put_labels

N, IG = CellClass.NEUTROPHIL, CellClass.IMMATURE_GRANULOCYTE
RULE = "immature.granulocytes"


def smear(folder: Path, immature: int, *, seen: int | None = None, stated: list[str] | None = None) -> None:
    """A gallery of twenty cells, so many of them immature, of which the model sees so many as such."""
    rows: list[dict[str, object]] = []
    for number in range(20):
        looks = IG if number < (immature if seen is None else seen) else N
        save(folder / f"{number:02d}.png", cell_image(looks, number))
        rows.append({"path": f"{number:02d}.png", "class": (IG if number < immature else N).value})
    put_labels(folder, rows)
    if stated is not None:
        (folder / "smear.json").write_text(json.dumps({"flags": stated}))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two smears that should be flagged, of which the model misses one; two that should not, one of which it flags."""
    smear(tmp_path / "data/a", 4)
    smear(tmp_path / "data/b", 4, seen=0)
    smear(tmp_path / "data/c", 0)
    smear(tmp_path / "data/d", 0, seen=4)
    install_model(tmp_path / "home")
    return tmp_path / "data"


def figures(output: RuleCheck, rule: str = RULE) -> tuple[object, ...]:
    (found,) = [one for one in output.rules if one.id == rule]
    parts = (found.fired, found.sensitivity, found.false_negative, found.specificity)
    return tuple(None if part is None else (part.count, part.total) for part in parts)


def test_sensitivity_misses_specificity_and_review_rate(data: Path, tmp_path: Path) -> None:
    output = check_rules(tmp_path / "home", data)
    assert output.smears == 4
    assert figures(output) == ((2, 4), (1, 2), (1, 2), (1, 2))
    assert output.missed is not None
    assert (output.missed.count, output.missed.total) == (1, 2)
    text = check_text(output)
    assert f"More than 5 % missed: {RULE}" in text
    assert "Fewer than 20 smears tell about" in text
    assert not (tmp_path / "home/smears").exists()


def test_a_changed_limit_changes_the_review_rate(data: Path, tmp_path: Path) -> None:
    (tmp_path / "home/rules.toml").write_text(f'[rules."{RULE}"]\nlimit = 50.0\n')
    assert figures(check_rules(tmp_path / "home", data)) == ((0, 4), None, None, (4, 4))


def test_rules_about_quality_are_judged_only_where_a_smear_says_so(tmp_path: Path) -> None:
    install_model(tmp_path / "home")
    smear(tmp_path / "data/a", 0)
    smear(tmp_path / "data/b", 0, stated=["too_few_cells"])
    output = check_rules(tmp_path / "home", tmp_path / "data")
    assert figures(output, "too_few_cells") == ((2, 2), (1, 1), (0, 1), None)
    told = figures(output, "out_of_distribution")
    assert told[1:3] == (None, None)
    assert told[3] is not None


def test_smears_without_labels_say_what_to_do(tmp_path: Path) -> None:
    install_model(tmp_path / "home")
    save(tmp_path / "data/a/0.png", cell_image(N))
    with pytest.raises(NoLabelsError, match=r"labels\.csv"):
        check_rules(tmp_path / "home", tmp_path / "data")


def test_show_says_every_rule_and_what_the_site_changed(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text('[rules."eosinophilia"]\nlimit = 9.0\n[rules."basophilia"]\nenabled = false\n')
    output = lines(load_rules(tmp_path), load_rules())
    assert [rule.id for rule in output.rules if rule.changed] == ["eosinophilia", "basophilia"]
    text = show_text(output)
    assert "eosinophil over 9 %" in text
    assert "[off] [changed here]" in text


def test_a_wrong_site_file_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text('[rules."eosinophilia"]\nlimit = "lots"\n')
    with pytest.raises(ConfigError, match="eosinophilia"):
        load_rules(tmp_path)
