"""A person's own views of the worklist: filters and order under a name, one of which may open by itself."""

from typing import Final

from sqlmodel import Session

from server.accounts.schemas import Principal
from server.cases import worklist_repository as rows
from server.cases.access import scope_of
from server.cases.schemas import SavedViewView, WorklistFilter
from server.models import SavedView
from shared.contracts.errors import ConflictError, NotFoundError, UsageError
from shared.text import typed

MOST: Final = 20
LONGEST_NAME: Final = 40


def views_of(session: Session, principal: Principal) -> list[SavedViewView]:
    """Return a person's views in the order in which they were saved."""
    return [_view(row) for row in rows.saved_views(session, principal.user_id)]


def save(
    session: Session, principal: Principal, *, name: str, wanted: WorklistFilter, default: bool = False
) -> SavedViewView:
    """Keep a new view.

    Raises:
        UsageError: no name, or one too long. ConflictError: the name is taken, or there are too many views.
    """
    scope_of(principal)
    existing = rows.saved_views(session, principal.user_id)
    if len(existing) >= MOST:
        raise ConflictError(f"You have {MOST} views; delete one first.")
    row = SavedView(owner_id=principal.user_id, name=_free(name, existing), wanted=wanted.model_dump(mode="json"))
    rows.keep_view(session, row)
    if default:
        _make_default([*existing, row], row)
    return _view(row)


def update(
    session: Session,
    principal: Principal,
    view_id: str,
    *,
    name: str | None = None,
    wanted: WorklistFilter | None = None,
    default: bool | None = None,
) -> SavedViewView:
    """Change what is given of one of one's own views.

    Raises:
        NotFoundError: there is no such view of this person. ConflictError, UsageError: see `save`.
    """
    existing = rows.saved_views(session, principal.user_id)
    row = _own(existing, view_id)
    if name is not None:
        row.name = _free(name, [other for other in existing if other is not row])
    if wanted is not None:
        row.wanted = wanted.model_dump(mode="json")
    if default:
        _make_default(existing, row)
    elif default is False:
        row.is_default = False
    return _view(row)


def delete(session: Session, principal: Principal, view_id: str) -> None:
    """Forget one of one's own views."""
    rows.drop_view(session, _own(rows.saved_views(session, principal.user_id), view_id))


def _own(existing: list[SavedView], view_id: str) -> SavedView:
    row = next((row for row in existing if row.id == view_id), None)
    if row is None:
        raise NotFoundError("There is no such view (any more). Go back to the worklist.")
    return row


def _free(name: str, others: list[SavedView]) -> str:
    name = typed(" ".join(name.split()))
    if not 0 < len(name) <= LONGEST_NAME:
        raise UsageError(f"Give the view a name of 1 to {LONGEST_NAME} letters.")
    if any(other.name.casefold() == name.casefold() for other in others):
        raise ConflictError(f"You have a view called {name}; choose another name, or update that one.")
    return name


def _make_default(rows_of: list[SavedView], chosen: SavedView) -> None:
    for row in rows_of:
        row.is_default = row is chosen


def _view(row: SavedView) -> SavedViewView:
    return SavedViewView(
        id=row.id, name=row.name, wanted=WorklistFilter.model_validate(row.wanted), is_default=row.is_default
    )
