"""The bits of HL7 v2 text that both sides write."""

from typing import Final

SEGMENT_END: Final = "\r"
_ESCAPES: Final = {
    "\\": "\\E\\",
    "|": "\\F\\",
    "^": "\\S\\",
    "&": "\\T\\",
    "~": "\\R\\",
    "\r\n": "\\.br\\",
    "\n": "\\.br\\",
    "\r": "\\.br\\",
}


def escape(text: str) -> str:
    """Return ``text`` as the content of a field: delimiters escaped, line ends as ``\\.br\\``."""
    escaped = text.replace("\\", "\\E\\")
    for letter, written in _ESCAPES.items():
        if letter != "\\":
            escaped = escaped.replace(letter, written)
    return escaped
