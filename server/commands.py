"""What the commands of the centre share: the folder, the runtime, who acts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from server.accounts.schemas import COMMAND_LINE
from server.runtime import Runtime, build_runtime
from server.settings import HOME_VARIABLE, load_settings
from shared.cli import JsonOption, emit

__all__ = ["COMMAND_LINE", "HomeOption", "JsonOption", "emit", "open_runtime"]

HomeOption = Annotated[
    Path | None, typer.Option("--home", help=f"The server's folder (else {HOME_VARIABLE}).", show_default=False)
]


@contextmanager
def open_runtime(home: Path | None) -> Iterator[Runtime]:
    """Yield the runtime of the centre at ``home``, or of the one that the environment names."""
    settings = load_settings(home)
    os.environ[HOME_VARIABLE] = str(settings.home)  # for what this command starts
    runtime = build_runtime(settings)
    try:
        yield runtime
    finally:
        runtime.database.dispose()
