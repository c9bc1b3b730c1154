"""Tests of what every command shares: nothing escapes as a traceback."""

import errno
import json
import tempfile
from pathlib import Path

import pytest
import typer

from shared.cli import emit, run
from shared.contracts.errors import ExitCode, KitUsedError


def app_raising(error: BaseException) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def command(as_json: bool = typer.Option(False, "--json")) -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (KitUsedError("This kit has been used."), ExitCode.KIT_USED, "kit_used"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device"), ExitCode.NO_SPACE, "no_space"),
        (ValueError("inner detail"), ExitCode.FAILED, "error"),
    ],
)
def test_run_maps_an_error(
    error: BaseException,
    status: int,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["program", "--json"])
    assert run(app_raising(error)) == status
    said = capsys.readouterr()
    assert json.loads(said.out)["error"]["code"] == code
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err
    assert "inner detail" not in said.err


def test_unexpected_error_leaves_its_details_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["program"])
    run(app_raising(ValueError("inner detail")))
    (log,) = tmp_path.glob("hematovision-error-*.log")
    assert "inner detail" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert str(log) in capsys.readouterr().err.replace("\n", "")


def test_exit_passes_its_status_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["program"])
    assert run(app_raising(typer.Exit(ExitCode.AUDIT_BROKEN))) == ExitCode.AUDIT_BROKEN


def test_emit_prints_json_or_text(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"n": [1, {"name": "Jürgen"}]}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"n": [1, {"name": "Jürgen"}]}
    emit({}, as_json=False, text="one [line]")
    assert capsys.readouterr().out == "one [line]\n"
