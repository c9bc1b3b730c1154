"""The page of exit codes says what the catalogue says."""

from pathlib import Path

from shared.contracts.errors import ExitCode, HematovisionError

PAGE = Path(__file__).resolve().parents[1] / "docs" / "exit-codes.md"


def test_page_lists_every_code_once() -> None:
    cells = [line.split("|")[1:3] for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    assert [(int(number), name.strip(" `")) for number, name in cells] == [(int(c), c.name.lower()) for c in ExitCode]


def test_error_codes_are_unique() -> None:
    codes = [subclass.code for subclass in HematovisionError.__subclasses__()]
    assert len(codes) == len(set(codes))
