"""What stands at the head of a case: the blood count against the hospital's limits, earlier cases, whom to phone."""

from dataclasses import dataclass
from typing import Final

from sqlmodel import Session

from portal.words import joined
from server.accounts.schemas import Principal
from server.cases.schemas import CaseView
from server.hospitals import bedside
from server.hospitals.bedside import Contact, Judged
from server.reports import service as reports
from server.reports.schemas import ReportView

EARLIER_SHOWN: Final = 8


@dataclass(frozen=True)
class Value:
    """A value of the blood count as it is shown."""

    name: str
    value: str
    unit: str
    arrow: str
    """↑ or ↓ where it is out, else empty."""
    by: str
    """How far it is out, in its unit."""
    limits: str
    """``120–150``; empty where none fits the patient."""

    @property
    def words(self) -> str:
        """All of it, for whoever hears or hovers."""
        text = f"{self.name} {self.value} {self.unit}"
        if self.arrow:
            text += f", {self.by} {'above' if self.arrow == '↑' else 'below'} {self.limits}"
        elif self.limits:
            text += f", within {self.limits}"
        return text


@dataclass(frozen=True)
class Head:
    """The head of a case."""

    blood: list[Value]
    contact: Contact
    earlier: list[tuple[str, ReportView | None]]
    """Case id and its newest signed report, newest case first."""
    more_earlier: int
    untrained: str
    """``blasts and plasma cells``; empty: the model is trained for all that a reader may expect."""


def head_of(session: Session, who: Principal, case: CaseView) -> Head:
    """Return what stands at the head of a case."""
    shown = case.earlier_cases[:EARLIER_SHOWN]
    signed = reports.latest_of(session, who, shown)
    limits = bedside.limits_of(session, case.hospital_id)
    return Head(
        blood=[_value(one) for one in bedside.judge(case.context, limits)],
        contact=bedside.contact_of(session, case.hospital_id),
        earlier=[(case_id, signed.get(case_id)) for case_id in shown],
        more_earlier=len(case.earlier_cases) - len(shown),
        untrained=joined(f"{cls.info.name}s" for cls in case.untrained_classes),
    )


def _value(judged: Judged) -> Value:
    interval = judged.interval
    return Value(
        name=judged.name,
        value=f"{judged.value:g}",
        unit=judged.unit,
        arrow="↑" if judged.by > 0 else "↓" if judged.by < 0 else "",
        by=f"{abs(judged.by):.3g}" if judged.by else "",
        limits=f"{interval.low:g}–{interval.high:g}" if interval else "",
    )
