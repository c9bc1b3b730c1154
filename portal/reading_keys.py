"""The reading room's keys: one table, from which the page's key map is drawn and its script takes what a key does."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Key:
    """One action of the reading room."""

    does: str
    """Name of the action in ``static/js/reading/main.js``."""
    words: str
    shown: tuple[str, ...]
    """The caps on the key map."""
    keys: tuple[str, ...]
    """As the script spells them: ``shift+`` and ``ctrl+`` before a key's name, letters small."""


GROUPS: Final[tuple[tuple[str, tuple[Key, ...]], ...]] = (
    (
        "Move",
        (
            Key("next", "Next, previous cell", ("j", "k"), ("j", "ArrowRight")),
            Key("previous", "", (), ("k", "ArrowLeft")),
            Key("rowDown", "Next, previous row", ("↓", "↑"), ("ArrowDown",)),
            Key("rowUp", "", (), ("ArrowUp",)),
            Key("nextDoubtful", "Next, previous doubtful cell", (".", ","), (".",)),
            Key("previousDoubtful", "", (), (",",)),
            Key("nextGroup", "Next class that was not on screen", ("space",), ("Space",)),
            Key("previousGroup", "Previous class", ("shift", "space"), ("shift+Space",)),
            Key("nextFlag", "Evidence of the next flag", ("l",), ("l",)),
        ),
    ),
    (
        "Choose",
        (
            Key("extendNext", "More cells", ("shift", "j"), ("shift+j", "shift+ArrowRight")),
            Key("extendPrevious", "", (), ("shift+k", "shift+ArrowLeft")),
            Key("focusNext", "Next, previous cell, the choice stays", ("ctrl", "j", "k"), ("ctrl+j",)),
            Key("focusPrevious", "", (), ("ctrl+k",)),
            Key("choose", "Choose the cell too, or leave it out", ("ctrl", "space"), ("ctrl+Space",)),
            Key("doubtfulHere", "All doubtful of this class", ("d",), ("d",)),
            Key("doubtfulAll", "All doubtful", ("shift", "d"), ("shift+d",)),
            Key("wholeGroup", "The whole group", ("e",), ("e",)),
            Key("onlyThis", "Only this cell", ("esc",), ("Escape",)),
        ),
    ),
    (
        "Set",
        (
            Key("class", "The class", ("1", "…", "9"), tuple("123456789")),
            Key("other", "Another class", ("0",), ("0",)),
            Key("artefact", "Artefact", ("x",), ("x",)),
            Key("accept", "Accept as named", ("a",), ("a",)),
            Key("undo", "Take the last change back", ("u",), ("u", "ctrl+z")),
            Key("redo", "Make it again", ("r",), ("r", "ctrl+y", "ctrl+shift+z")),
            Key("menu", "All that can be done with the cell", ("w",), ("w",)),
        ),
    ),
    (
        "Mark in the field",
        (
            Key("mark", "A missed cell: arrows move, shift arrows size", ("n",), ("n",)),
            Key("split", "Split in two: arrows move the cut", ("t",), ("t",)),
            Key("merge", "Merge the chosen into one", ("m",), ("m",)),
        ),
    ),
    (
        "Field",
        (
            Key("nextField", "Next, previous field", ("]", "["), ("]", "PageDown")),
            Key("previousField", "", (), ("[", "PageUp")),
            Key("zoomIn", "Closer, farther", ("+", "−"), ("+", "=", "shift++", "shift+=")),
            Key("zoomOut", "", (), ("-",)),
            Key("fit", "Whole field", ("f",), ("f",)),
            Key("panLeft", "Move the field", ("ctrl", "arrows"), ("ctrl+ArrowLeft",)),
            Key("panRight", "", (), ("ctrl+ArrowRight",)),
            Key("panUp", "", (), ("ctrl+ArrowUp",)),
            Key("panDown", "", (), ("ctrl+ArrowDown",)),
            Key("boxes", "Show or hide boxes", ("b",), ("b",)),
        ),
    ),
    (
        "Light",
        (
            Key("brighter", "Brighter, darker", ("i", "shift i"), ("i",)),
            Key("darker", "", (), ("shift+i",)),
            Key("moreContrast", "More, less contrast", ("o", "shift o"), ("o",)),
            Key("lessContrast", "", (), ("shift+o",)),
            Key("plain", "As scanned", ("p",), ("p",)),
            Key("largerTiles", "Larger, smaller cells", ("z", "shift z"), ("z",)),
            Key("smallerTiles", "", (), ("shift+z",)),
        ),
    ),
    (
        "Case",
        (
            Key("facts", "The case: question, blood count, earlier cases, whom to phone", ("q",), ("q",)),
            Key("findings", "Red cells, white cells, platelets, malaria", ("s",), ("s",)),
            Key("compare", "Side by side, earlier and reference cells", ("v",), ("v",)),
            Key("overlay", "What the model saw in the cell", ("y",), ("y",)),
            Key("history", "Who changed the cell, when, from what", ("h",), ("h",)),
            Key("more", "Count 100 more", ("shift", "m"), ("shift+m",)),
            Key("consult", "Questions to colleagues", ("shift", "c"), ("shift+c",)),
            Key("claim", "Claim", ("c",), ("c",)),
            Key("release", "Give back", ("shift", "q"), ("shift+q",)),
            Key("sign", "Sign", ("ctrl", "enter"), ("ctrl+Enter",)),
            Key("glass", "Not gradable: send glass", ("shift", "g"), ("shift+g",)),
        ),
    ),
)


def actions() -> dict[str, str]:
    """Return key → action, for the page's script."""
    return {key: entry.does for _, entries in GROUPS for entry in entries for key in entry.keys}
