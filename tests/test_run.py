"""The test runner hides no skip and returns the worst of its stages."""

from pathlib import Path

import pytest

from tests.conftest import LONGEST
from tests.run import NO_TESTS, ROOT, STAGES, environment, skipped, worst


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0], 0),
        ([0, NO_TESTS], 0),
        ([1, 0], 1),
        ([NO_TESTS, 0], 0),
        ([NO_TESTS, NO_TESTS], NO_TESTS),
        ([0, -9], 137),
    ],
)
def test_worst_code(codes: list[int], expected: int) -> None:
    assert worst(codes) == expected


def test_skips_are_read_from_a_report(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    cases = (
        "<testcase classname='tests.a' name='test_x'><skipped type='pytest.skip' message='no GPU'/></testcase>"
        "<testcase classname='tests.b' name='test_y'><skipped type='pytest.xfail' message='slow'/></testcase>"
        "<testcase classname='tests.c' name='test_z'/>"
    )
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    assert skipped(report) == {"no GPU": ["tests.a::test_x"], "expected to fail: slow": ["tests.b::test_y"]}
    assert skipped(tmp_path / "absent.xml") == {}


def test_environment_puts_this_tree_first_and_leaves_nothing_elsewhere(tmp_path: Path) -> None:
    env = environment(tmp_path)
    assert env["TMPDIR"] == str(tmp_path)
    assert env["PYTHONPATH"].split(":")[0] == str(Path(__file__).parents[1])
    assert env["OMP_NUM_THREADS"] == "1"


def test_each_test_is_in_one_stage() -> None:
    fast, slow = (stage.options[stage.options.index("-m") + 1] for stage in STAGES)
    assert fast == f"not ({slow})"


def test_files_that_come_first_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / name).is_file()] == []
