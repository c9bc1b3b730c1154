"""The folder of an evaluation: complete, self-contained, never half there, never over something else."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from client_node.analysis.evaluation import judge_csv
from client_node.analysis.evaluation.folder import write_folder
from client_node.cli import main
from shared.contracts.errors import ExitCode, UsageError
from shared.contracts.ontology import CellClass
from tests.client_node.analysis.factories import save
from tests.client_node.analysis.models import cell_image, make_model
from tests.client_node.datasets.factories import put_labels

N, L, E = CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.EOSINOPHIL


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        if named.get("id"):
            self.ids.append(str(named["id"]))
        self.links += [str(named[name]) for name in ("src", "href") if named.get(name)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows: list[dict[str, object]] = []
    for number, (label, looks) in enumerate([(N, N), (N, N), (L, N), (E, E), (E, E)]):
        save(tmp_path / f"data/{number}.png", cell_image(looks, number))
        rows.append({"path": f"{number}.png", "kind": "cell", "class": label.value})
    rows.append({"path": "<b>.png", "kind": "cell", "class": "neutrophil"})
    put_labels(tmp_path / "data", rows)
    make_model(tmp_path / "model")
    return tmp_path / "data"


def written(data: Path, out: Path) -> None:
    write_folder(judge_csv(None, data, data / "labels.csv", model_dir=data.parent / "model"), out)


def test_folder_holds_tables_charts_and_a_page_of_its_own(data: Path, tmp_path: Path) -> None:
    written(data, tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "confusion.svg", "index.html", "predictions.csv", "reliability.svg", "results.json", "risk-coverage.svg",
        "table.csv",
    ]  # fmt: skip
    page = (tmp_path / "out/index.html").read_text()
    reader = _Reader()
    reader.feed(page)
    assert len(reader.ids) == len(set(reader.ids))
    assert "script" not in reader.tags
    assert reader.links
    assert all(link.startswith("data:image/jpeg;base64,") for link in reader.links)  # nothing from elsewhere
    assert "&lt;b&gt;.png" in page
    assert "80.0 % (28.4–99.5)" in page


def test_table_has_exact_intervals(data: Path, tmp_path: Path) -> None:
    written(data, tmp_path / "out")
    with (tmp_path / "out/table.csv").open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    neutrophil = rows["neutrophil"]
    assert (neutrophil["precision"], neutrophil["precision low"], neutrophil["precision high"]) == (
        "0.667", "0.094", "0.992",
    )  # fmt: skip
    assert (neutrophil["recall"], neutrophil["cells"]) == ("1.000", "2")
    assert (rows["lymphocyte"]["precision"], rows["lymphocyte"]["recall"]) == ("", "0.000")


def test_an_earlier_evaluation_is_replaced_and_nothing_else_is(data: Path, tmp_path: Path) -> None:
    written(data, tmp_path / "out")
    (tmp_path / "out/old.txt").write_text("of the first")
    written(data, tmp_path / "out")
    assert not (tmp_path / "out/old.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.doc").write_text("years of work")
    with pytest.raises(UsageError, match="another folder"):
        written(data, tmp_path / "mine")
    assert (tmp_path / "mine/thesis.doc").read_text() == "years of work"
    assert not [path for path in tmp_path.iterdir() if re.match(r"\.(out|mine)-", path.name)]


def test_command_writes_the_folder_and_says_where_to_look(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["evaluate", "--data", str(data), "--labels", str(data / "labels.csv")]
    arguments += ["--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["hematovision-node", *arguments, "--json"])
    assert main() == ExitCode.OK
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((tmp_path / "out/results.json").read_text())
    (tmp_path / "note").write_text("a file")
    monkeypatch.setattr("sys.argv", ["hematovision-node", *arguments[:-1], str(tmp_path / "note")])
    assert main() == ExitCode.USAGE
