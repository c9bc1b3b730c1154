"""Questions and answers as a page sees them."""

from datetime import datetime

from pydantic import BaseModel, Field

from server.models.consult import MessageKind


class About(BaseModel):
    """What a question is on: a cell, a region of a field, or (neither) the whole case."""

    cell_id: str | None = None
    field: int | None = None
    box: tuple[int, int, int, int] | None = None
    """Pixels of the field: left, top, right, bottom."""


class Asked(BaseModel):
    """A question or an answer on its way in."""

    text: str = Field(min_length=1, max_length=4000)
    people: list[str] = Field(default=[], max_length=20)
    """Ids of those who are asked or mentioned."""
    key: str
    """The same key twice is one message."""


class MessageView(BaseModel):
    """A contribution."""

    id: str
    author: str
    author_id: str
    at: datetime
    kind: MessageKind
    text: str


class ThreadView(BaseModel):
    """A question with what followed."""

    id: str
    about: About
    number: int | None
    """Of the cell, as people call it."""
    resolved: bool
    resolved_by: str | None
    unread: bool
    """Somebody else has written since this person last looked."""
    people: list[str]
    """Names of who takes part."""
    messages: list[MessageView]
