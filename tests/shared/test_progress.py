"""Progress is a bar on a terminal and a few lines elsewhere."""

import io

import pytest

from shared.progress import progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with progress("Importing", 3, stream=stream) as report:
        for _ in range(3):
            report.advance()
    assert report.done == 3
    assert stream.getvalue().startswith("Importing: done after ")
    assert stream.getvalue().count("\n") == 1


def test_a_line_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("shared.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    with progress("Importing", stream=stream) as report:
        for done in range(1, 26):
            now[0] += 1
            report(done, 25)
        report.describe("Sorting")
    assert stream.getvalue().splitlines() == [
        "Importing: 10 of 25",
        "Importing: 20 of 25",
        "Sorting: done after 25.0 s",
    ]


@pytest.mark.parametrize(("seconds", "said"), [(2.0, ""), (12.0, "Importing: stopped after 12.0 s\n")])
def test_long_work_that_is_stopped_says_so(monkeypatch: pytest.MonkeyPatch, seconds: float, said: str) -> None:
    now = [0.0]
    monkeypatch.setattr("shared.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()

    def interrupted() -> None:
        with progress("Importing", 3, stream=stream):
            now[0] = seconds
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stream.getvalue() == said


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with progress("Importing", stream=stream) as report:
        report(2, 4)
    assert "Importing" in stream.getvalue()
    assert "2/4" in stream.getvalue()


def test_nothing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Importing", 1) as report:
        report.advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Importing: done" in captured.err
