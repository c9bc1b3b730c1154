"""A text that one person writes in two places at once: the later save must not wipe what the other kept."""

from collections.abc import Sequence
from typing import Final

from shared.contracts.errors import ConflictError
from shared.text import typed

MOST_BASES: Final = 16


def require_base(kept: str | None, text: str, over: Sequence[str] | None) -> None:
    """Refuse a text that was written over another one than is kept.

    Args:
        kept: the draft as it stands.
        text: the draft that is to be kept in its place.
        over: every text that it may have been written over, an earlier save whose answer was lost among them; None: it
            may replace any.

    Raises:
        ConflictError: something else is kept; nothing was changed.
    """
    known = {text, *(typed(one, lines=True) for one in over or ())}
    if over is not None and (kept or "") not in known:
        raise ConflictError(
            "you have gone on with this text at another computer. Load the page again to see that one; this one stays"
            " in this browser and is offered there."
        )
