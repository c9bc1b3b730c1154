"""What the commands of a node share; import-light."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from client_node.home import HOME_VARIABLE, NodeHome
from shared.contracts.errors import ServiceUnavailableError

HomeOption = Annotated[Path, typer.Option("--home", envvar=HOME_VARIABLE, help="The node's home folder.")]


def initialised(home: Path) -> None:
    """Return if ``home`` is a node's.

    Raises:
        ConfigError: `init` was not run there, or its record is damaged.
    """
    NodeHome(home).config()


def reload(home: Path) -> None:
    """Have the analyser, if it runs, load what is current now."""
    from client_node import ipc

    with suppress(ServiceUnavailableError):  # not running: it loads the current model when it starts
        ipc.call(ipc.socket_path(home, "analyser"), {"op": "reload"}, timeout=180.0)
