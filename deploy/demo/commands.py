"""Calling our own commands the way a person would, and reading their JSON."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.contracts.errors import HematovisionError, error_from_code


@dataclass(frozen=True)
class Command:
    """One of our command-line programs with the environment it runs in."""

    module: str
    env: Mapping[str, str]

    def argv(self, *arguments: str) -> list[str]:
        """Return the argument list that starts this program."""
        return [sys.executable, "-m", self.module, *arguments]

    def json(self, *arguments: str, stdin: str | None = None, timeout: float = 600) -> Any:  # Any: parsed JSON
        """Run with ``--json`` and return what it printed; raise its own error where it failed."""
        done = subprocess.run(
            self.argv(*arguments, "--json"),
            env=dict(self.env),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise _error(done.stdout, done.stderr, arguments)
        return json.loads(done.stdout)


def _error(stdout: str, stderr: str, arguments: Sequence[str]) -> HematovisionError:
    for text in (stdout, stderr):
        try:
            said = json.loads(text)["error"]
            return error_from_code(said["code"], f"{' '.join(arguments[:2])}: {said['message']}")
        except (ValueError, KeyError, TypeError):
            continue
    last = (stderr.strip() or stdout.strip() or "no output").splitlines()[-1]
    return HematovisionError(f"{' '.join(arguments[:2])}: {last}")
