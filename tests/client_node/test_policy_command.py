"""What the policy says in plain words, and every wrong line of a draft."""

import json
import sys
from pathlib import Path

import pytest

from client_node.cli import main
from client_node.home import NodeHome
from client_node.policy import default_text, write_default_policy
from client_node.policy_command import check_policy, show_policy
from client_node.policy_draft import check_draft
from shared.contracts.errors import ExitCode
from tests.client_node.training.site import make_home

DRAFT = """# a draft
[training]
enabled = "perhaps"
purposes = ["train", "sell"]
most_epoch = 3
hours = "noon"
days = []
gpu_share = 2.0

[[training.dataset]]
name = "pbc"
purposes = ["train"]

[[training.dataset]]
name = "pbc"
purposes = ["evaluate"]
colour = 1

[nonsense]
"""


def test_default_policy_is_sound_and_said_in_words(tmp_path: Path) -> None:
    policy, faults = check_draft(default_text("0123456789abcdef"))
    assert policy is not None
    assert faults == ()


def test_every_wrong_line_is_named() -> None:
    policy, faults = check_draft(DRAFT)
    assert policy is None
    assert [(fault.line, fault.setting) for fault in faults] == [
        (3, "training.enabled"),
        (4, "training.purposes"),
        (5, "training.most_epoch"),
        (6, "training.hours"),
        (7, "training.days"),
        (8, "training.gpu_share"),
        (17, "training.dataset.colour"),
        (19, "nonsense"),
    ]
    texts = [fault.text() for fault in faults]
    assert texts[1].startswith("line 4: training.purposes: Input should be 'train', 'evaluate' or 'census', not 'sell'")
    assert texts[2] == "line 5: training.most_epoch: there is no such setting"
    assert texts[3] == "line 6: training.hours: hours must read like \"20:00-06:00\", not 'noon'"


def test_data_set_named_twice_is_named_by_its_line() -> None:
    _, faults = check_draft(DRAFT.replace("colour = 1\n", "").replace("[nonsense]\n", ""))
    assert (10, "training.dataset", "more than one [[training.dataset]] is named pbc") in [
        (fault.line, fault.setting, fault.problem) for fault in faults
    ]


@pytest.mark.parametrize(("text", "line"), [("[training]\nhours = \n", 2), ("[training]\n\nx", 3), ("[training\n", 1)])
def test_what_is_not_toml_is_named_by_its_line(text: str, line: int) -> None:
    _, faults = check_draft(text)
    assert [(fault.line, fault.setting) for fault in faults] == [(line, "")]
    assert faults[0].problem.startswith("not TOML: ")


def test_show_says_what_each_data_set_of_the_catalogue_may_be_used_for(tmp_path: Path) -> None:
    rules = """[training]
days = ["sat", "sun"]
hours = "20:00-06:00"
gpu_share = 0.5
least_privacy = "dp-image"
[[training.dataset]]
name = "painted"
purposes = ["evaluate"]
[[training.dataset]]
name = "lost"
purposes = []
"""
    shown = show_policy(NodeHome(make_home(tmp_path / "h", train=1, val=0, test=0, policy=rules)))
    assert shown.sources == {"painted": ("evaluate",)}
    assert 'Data set "painted": figures over them may leave.' in shown.words
    text = shown.text()
    assert "between 20:00-06:00 local time on Saturday, Sunday" in text
    assert "computes 50% of the time" in text
    assert "noise that hides every single image: ε at most 8" in text
    assert shown.remarks == ('no data set here is called "lost"',)


def test_check_puts_nothing_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = NodeHome(tmp_path / "home")
    home.path.mkdir()
    write_default_policy(home, release_key="0123456789abcdef")
    before = home.policy_file.read_bytes()
    draft = tmp_path / "draft.toml"
    draft.write_text(DRAFT)
    monkeypatch.setattr(
        sys, "argv", ["hematovision-node", "policy", "check", str(draft), "--home", str(home.path), "--json"]
    )
    assert main() == ExitCode.CONFIG
    assert [fault["line"] for fault in json.loads(capsys.readouterr().out)["faults"]] == [3, 4, 5, 6, 7, 8, 17, 19]
    draft.write_text("[training]\nenabled = false\n")
    checked = check_policy(draft, home)
    assert checked.sound
    assert checked.words[0] == "This hospital takes no part in federated training: every request is refused."
    assert home.policy_file.read_bytes() == before


def test_absent_draft_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hematovision-node", "policy", "check", str(tmp_path / "none.toml")])
    assert main() == ExitCode.CONFIG
    assert "check the path" in capsys.readouterr().err
