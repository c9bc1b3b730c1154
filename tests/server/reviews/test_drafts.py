"""A draft replaces only what it was written over."""

import pytest

from server.reviews.drafts import require_base
from shared.contracts.errors import ConflictError


@pytest.mark.parametrize(
    ("kept", "text", "over"),
    [
        (None, "One.", [""]),
        ("", "One.", ["", "One."]),
        ("One.", "Two.", ["One."]),
        ("Two.", "Three.", ["One.", "Two."]),  # the answer to the second was lost
        ("Two.", "Two.", ["One."]),  # arrived already
        ("One.\nTwo.", "Three.", ["One.\r\nTwo. "]),
        ("Anything.", "One.", None),
    ],
)
def test_draft_replaces_what_it_was_written_over(kept: str | None, text: str, over: list[str] | None) -> None:
    require_base(kept, text, over)


@pytest.mark.parametrize(("kept", "over"), [("Two.", ["One."]), ("Two.", [""]), ("Two.", []), (None, ["One."])])
def test_draft_is_refused_over_anything_else(kept: str | None, over: list[str]) -> None:
    with pytest.raises(ConflictError, match="at another computer"):
        require_base(kept, "Three.", over)
