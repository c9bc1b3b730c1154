"""What people type, before it is kept or looked for: PostgreSQL takes no NUL, and no page shows a control character."""


def typed(text: str, *, lines: bool = False) -> str:
    """Return text without what cannot be printed, and without space around it; ``lines``: line ends stay."""
    return "".join(sign for sign in text if sign.isprintable() or (lines and sign == "\n")).strip()
