"""What every command-line program of the product shares: exit codes, one clear line for an error, JSON on demand."""

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Annotated, Any, Final

import click
import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console

from shared.contracts.errors import ExitCode, HematovisionError, NoSpaceError
from shared.space import is_disk_full

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
"""Every command takes it; `emit` obeys it."""

_JSON_FLAG: Final = "--json"
_NO_SPACE: Final = (
    "No space is left on the disk: free some, then run the command again. What was complete before is kept."
)


def run(app: typer.Typer) -> int:
    """Run ``app`` on ``sys.argv`` and return the exit status; nothing escapes as a traceback.

    A business error becomes its code from the catalogue and one line on standard error; with ``--json`` also
    ``{"error": {"code", "message"}}`` on standard output. Wrong use is 2, a full disk 12, an interrupt 130, and
    whatever was not foreseen 1, with the path of a file that holds the details.
    """
    try:
        status = app(standalone_mode=False)
    except HematovisionError as error:
        return fail(error.code, error.message, error.exit_code)
    except click.exceptions.Exit as left:
        return left.exit_code
    except (click.Abort, KeyboardInterrupt):
        return fail("interrupted", "Interrupted.", ExitCode.INTERRUPTED)
    except click.ClickException as wrong:
        where = f" See: {wrong.ctx.command_path} --help" if isinstance(wrong, click.UsageError) and wrong.ctx else ""
        return fail("usage", f"{wrong.format_message()}{where}", ExitCode.USAGE)
    except BrokenPipeError:
        # Whoever read our output has had enough; Python must not complain about it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except Exception as error:  # noqa: BLE001 - the last resort: a person gets a line, the details go to a file
        if is_disk_full(error):
            return fail(NoSpaceError.code, _NO_SPACE, ExitCode.NO_SPACE)
        return fail("error", _unexpected(error), ExitCode.FAILED)
    if status == ExitCode.INTERRUPTED:  # typer turns an interrupt into this status by itself
        return fail("interrupted", "Interrupted.", ExitCode.INTERRUPTED)
    return status if isinstance(status, int) else ExitCode.OK


def fail(code: str, message: str, exit_code: int) -> int:
    """Say that a command failed, in the form the caller asked for; return ``exit_code``."""
    if _JSON_FLAG in sys.argv:
        sys.stdout.write(json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False) + "\n")
    line = " ".join(message.split())
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"error: {line}", style="red", markup=False)
    return exit_code


def emit(result: BaseModel | dict[str, Any] | list[Any], *, as_json: bool, text: str = "") -> None:
    """Print a command's result: the JSON document, or ``text`` for a person."""
    if not as_json:
        Console(soft_wrap=True, highlight=False).print(text, markup=False)
        return
    sys.stdout.write(json.dumps(_plain(result), ensure_ascii=False, indent=2) + "\n")


def _plain(result: Any) -> Any:  # Any: JSON in, JSON out
    if isinstance(result, BaseModel):
        return result.model_dump(mode="json", by_alias=True)
    if isinstance(result, dict):
        return {key: _plain(value) for key, value in result.items()}
    return [_plain(item) for item in result] if isinstance(result, list | tuple) else result


def _unexpected(error: Exception) -> str:
    log = _write_log(error)
    details = f" Details: {log}." if log else ""
    if isinstance(error, ValidationError):
        return f"A file or answer does not have the expected form ({error.title}).{details}"
    return f"Something unexpected went wrong ({type(error).__name__}).{details} Please report it."


def _write_log(error: Exception) -> Path | None:
    try:
        descriptor, name = tempfile.mkstemp(prefix="hematovision-error-", suffix=".log")
        with os.fdopen(descriptor, "w") as log:
            log.write("".join(traceback.format_exception(error)))
    except OSError:
        return None
    return Path(name)
