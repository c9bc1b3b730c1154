"""Which labels no completed run has learnt from yet: a schedule waits for enough of them."""

from typing import Self

from pydantic import BaseModel
from sqlmodel import Session

from server.federation import repository
from server.federation.planning import asks
from server.federation.schemas import RunPlan
from shared.contracts.training import Census


class Labels(BaseModel):
    """A hospital's labelled cells by where their labels come from, as its census last said."""

    reports: int = 0
    """That came home with signed reports."""
    imported: int | None = 0
    """All others; None: of a run from before they were counted."""

    @classmethod
    def of(cls, census: Census) -> Self:
        """Return those of a census."""
        cells = sum(row.train + row.val + row.test for row in census.rows)
        return cls(reports=census.feedback, imported=max(0, cells - census.feedback))

    def beyond(self, before: Self) -> int:
        """Return how many of them are new; fewer than ``before`` make up for none of the other kind.

        A report that corrects an imported cell's label is one new label and one imported cell less.
        """
        imported = 0 if self.imported is None or before.imported is None else self.imported - before.imported
        return max(0, self.reports - before.reports) + max(0, imported)


def counted(session: Session) -> dict[str, Labels]:
    """Return each hospital's labels, as far as its policy lets them be counted."""
    return {
        record.hospital_id: Labels.of(Census.model_validate(record.census)) for record in repository.censuses(session)
    }


def learnt_from(session: Session, plan: RunPlan) -> dict[str, Labels]:
    """Return, per hospital, which labels count as learnt from once a run of this plan has come to a model.

    Of a hospital that is not asked they are those of the last such run: a schedule is to count the newer ones still.
    """
    now = counted(session)
    if plan.sites is None:
        return now
    return {**_learnt(session), **{hospital: labels for hospital, labels in now.items() if asks(plan, hospital)}}


def fresh(session: Session, plan: RunPlan | None = None) -> int:
    """Return how many labels have come since the last completed run that asked their hospital.

    Before the first such run all are new. With a plan only those of the hospitals that it asks count: it learns from no
    others.
    """
    before, none = _learnt(session), Labels()
    now = {hospital: labels for hospital, labels in counted(session).items() if asks(plan, hospital)}
    return sum(labels.beyond(before.get(hospital, none)) for hospital, labels in now.items())


def _learnt(session: Session) -> dict[str, Labels]:
    last = repository.last_completed(session)
    if last is None:
        return {}
    imported = last.imported or {}
    return {
        hospital: Labels(reports=int(reports), imported=imported.get(hospital))
        for hospital, reports in last.feedback.items()
    }
