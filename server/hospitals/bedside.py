"""What a hospital tells readers about itself: whom to phone, and its reference intervals of the blood count."""

from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from sqlmodel import Session

import server.audit.service as audit
from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.hospitals import repository
from server.models import Hospital
from shared.contracts.case import BloodCount, ClinicalContext, Sex
from shared.contracts.errors import ForbiddenError, NotFoundError

ADULT: Final = 18
Line = Annotated[str, StringConstraints(strip_whitespace=True, max_length=120, pattern=r"^[^\x00-\x1f\x7f]*$")]
Number = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, max_length=40, pattern=r"^(\+?[0-9][0-9 ()/.\-]{2,}( ?(ext|x)\.? ?[0-9]+)?)?$"
    ),
]


class Contact(BaseModel):
    """Whom a reader phones. Staff of the hospital, never a patient."""

    model_config = ConfigDict(frozen=True)

    name: Line = ""
    """A person or a desk."""
    phone: Number = ""
    hours: Line = ""
    """When, or whom to phone otherwise."""

    @property
    def empty(self) -> bool:
        """Whether nobody is named."""
        return not (self.name or self.phone or self.hours)


class Interval(BaseModel):
    """A reference interval, both ends inside it."""

    model_config = ConfigDict(frozen=True)

    low: Annotated[float, Field(ge=0, le=10_000)]
    high: Annotated[float, Field(ge=0, le=10_000)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError("The lower limit must be below the upper one.")
        return self


class Limits(BaseModel):
    """Reference intervals of adults; the defaults are usual ones that a laboratory director must confirm."""

    model_config = ConfigDict(frozen=True)

    wbc_10e9_l: Interval = Interval(low=4.0, high=10.0)
    hb_g_l_female: Interval = Interval(low=120, high=150)
    hb_g_l_male: Interval = Interval(low=130, high=170)
    plt_10e9_l: Interval = Interval(low=150, high=410)
    mcv_fl: Interval = Interval(low=83, high=101)


class Judged(BaseModel):
    """A value of the blood count beside the hospital's limits."""

    name: str
    value: float
    unit: str
    interval: Interval | None
    """None: no limit is known for this patient."""

    @property
    def by(self) -> float:
        """How far the value lies outside; negative: below, 0: inside, or not judged."""
        if self.interval is None:
            return 0.0
        return min(0.0, self.value - self.interval.low) + max(0.0, self.value - self.interval.high)


def contact_of(session: Session, hospital_id: str) -> Contact:
    """Return whom to phone at a hospital."""
    return Contact.model_validate(_hospital(session, hospital_id).contact)


def limits_of(session: Session, hospital_id: str) -> Limits:
    """Return a hospital's reference intervals, the defaults where it has none."""
    return Limits.model_validate(_hospital(session, hospital_id).blood_limits)


def own_limits(session: Session, hospital_id: str) -> frozenset[str]:
    """Return which intervals the hospital has set itself."""
    return frozenset(_hospital(session, hospital_id).blood_limits)


def set_contact(session: Session, principal: Principal, hospital_id: str, contact: Contact) -> None:
    """Keep whom to phone at a hospital.

    Raises:
        ForbiddenError: another hospital's staff, or a role that does not manage hospitals.
    """
    _allow(principal, hospital_id)
    _hospital(session, hospital_id).contact = contact.model_dump()
    _note(session, principal, hospital_id, "hospital.contact", {"named": not contact.empty})


def set_limits(session: Session, principal: Principal, hospital_id: str, own: dict[str, Interval]) -> None:
    """Keep a hospital's own reference intervals; what ``own`` does not name goes by the defaults again.

    Raises:
        ForbiddenError: see `set_contact`.
    """
    _allow(principal, hospital_id)
    plain = {name: interval.model_dump() for name, interval in own.items() if name in Limits.model_fields}
    _hospital(session, hospital_id).blood_limits = plain
    _note(session, principal, hospital_id, "hospital.blood_limits", {"own": plain})


def judge(context: ClinicalContext, limits: Limits) -> list[Judged]:
    """Return the values that the hospital sent, each with the interval that fits this patient.

    The intervals are an adult's; haemoglobin's goes by sex, and spans both where the sex is not told.
    """
    count: BloodCount = context.blood_count
    adult = _adult(context.age_band)
    rows = (
        ("WBC", count.wbc_10e9_l, "×10⁹/l", limits.wbc_10e9_l),
        ("Hb", count.hb_g_l, "g/l", _haemoglobin(context.sex, limits)),
        ("Plt", count.plt_10e9_l, "×10⁹/l", limits.plt_10e9_l),
        ("MCV", count.mcv_fl, "fl", limits.mcv_fl),
    )
    return [
        Judged(name=name, value=value, unit=unit, interval=interval if adult else None)
        for name, value, unit, interval in rows
        if value is not None
    ]


def _haemoglobin(sex: Sex, limits: Limits) -> Interval:
    female, male = limits.hb_g_l_female, limits.hb_g_l_male
    if sex is Sex.FEMALE:
        return female
    if sex is Sex.MALE:
        return male
    return Interval(low=min(female.low, male.low), high=max(female.high, male.high))


def _adult(age_band: str) -> bool:
    """Whether the whole band is of adults; where the age is not told the intervals are shown all the same."""
    youngest = age_band.partition("-")[0]
    return not youngest.isdigit() or int(youngest) >= ADULT


def _hospital(session: Session, hospital_id: str) -> Hospital:
    hospital = repository.hospital(session, hospital_id)
    if hospital is None:
        raise NotFoundError("There is no such hospital.")
    return hospital


def _allow(principal: Principal, hospital_id: str) -> None:
    own = principal.role is Role.HOSPITAL_IT and principal.hospital_id == hospital_id
    if not own and principal.role not in {Role.COORDINATOR, Role.ADMIN}:
        raise ForbiddenError("Only this hospital's staff or a coordinator may set what readers are told about it.")


def _note(session: Session, principal: Principal, hospital_id: str, action: str, data: dict[str, object]) -> None:
    audit.record(session, subject=f"hospital:{hospital_id}", actor=principal.actor, action=action, data=data)
