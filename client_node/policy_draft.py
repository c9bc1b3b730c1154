"""Checks a policy before it is put in place: every wrong line, by its number."""

import re
import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from client_node.policy import Policy
from shared.contracts.errors import ConfigError

_MAX_BYTES: Final = 256 * 1024
_HEADER: Final = re.compile(r"^\s*(\[\[?)\s*([A-Za-z0-9_.\-\" ]+?)\s*\]\]?\s*(#.*)?$")
_KEY: Final = re.compile(r"^\s*([A-Za-z0-9_.\-\"]+)\s*=")
_LINE: Final = re.compile(r"\(at line (\d+), column \d+\)|\(at end of document\)")
Place = tuple[str | int, ...]


class Fault(BaseModel):
    """Something wrong in a draft."""

    model_config = ConfigDict(frozen=True)

    line: int
    setting: str
    """Dotted; empty where the file is not TOML at all."""
    problem: str

    def text(self) -> str:
        """Return it as one line."""
        return f"line {self.line}: " + (f"{self.setting}: " if self.setting else "") + self.problem


def read_draft(file: Path) -> str:
    """Return a draft's text.

    Raises:
        ConfigError: there is none, or it is no short text.
    """
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{file.name} is too large to be a policy.")
        return file.read_text()
    except FileNotFoundError:
        raise ConfigError(f"There is no file {file}: check the path.") from None
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{file.name} cannot be read as text: check its permissions.") from None


def check_draft(text: str) -> tuple[Policy | None, tuple[Fault, ...]]:
    """Return the policy that ``text`` says, or every fault in it, ordered by line."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return None, (_not_toml(text, str(error)),)
    try:
        return Policy.model_validate(values), ()
    except ValidationError as error:
        places = _places(text)
        faults = {_fault(places, fault["loc"], fault) for fault in error.errors(include_url=False)}
        return None, tuple(sorted(faults, key=lambda fault: (fault.line, fault.setting, fault.problem)))


def _not_toml(text: str, message: str) -> Fault:
    found = _LINE.search(message)
    line = int(found[1]) if found and found[1] else text.count("\n") + 1
    return Fault(line=line, setting="", problem=f"not TOML: {_LINE.sub('', message).strip()}")


def _fault(places: dict[Place, int], place: Place, fault: Any) -> Fault:  # Any: pydantic's own dictionary
    known = next((place[:length] for length in range(len(place), 0, -1) if place[:length] in places), ())
    setting = ".".join(
        str(part) for part in place if isinstance(part, str) and not part.startswith(("constrained-", "literal["))
    )
    return Fault(line=places.get(known, 1), setting=setting, problem=_problem(fault))


def _problem(fault: Any) -> str:  # Any: pydantic's own dictionary
    if fault["type"] == "extra_forbidden":
        return "there is no such setting"
    message = str(fault["msg"]).removeprefix("Value error, ")
    given = fault["input"]
    return f"{message}, not {given!r}" if isinstance(given, str | int | float) and len(str(given)) < 60 else message


def _places(text: str) -> dict[Place, int]:
    """Return where each table and key of a TOML text stands: its path (with positions in arrays of tables) → line."""
    places: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    at: Place = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            at = _path(header[2])
            if header[1] == "[[":
                counts[at] = counts.get(at, -1) + 1
                places.setdefault(at, number)
                at = (*at, counts[at])
            places.setdefault(at, number)
        elif key := _KEY.match(line):
            path: Place = at
            for part in _path(key[1]):
                path = (*path, part)
                places.setdefault(path, number)
    return places


def _path(dotted: str) -> Place:
    return tuple(part.strip().strip('"') for part in dotted.split("."))
