"""What every table shares."""

import uuid
from datetime import UTC, datetime


def new_id() -> str:
    """Return a random identifier (32 hex letters)."""
    return uuid.uuid4().hex


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)
