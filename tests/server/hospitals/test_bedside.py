"""Whom to phone at a hospital, and its reference intervals."""

import pytest
from pydantic import ValidationError
from sqlmodel import select

from server.hospitals import bedside
from server.hospitals.bedside import Contact, Interval, Limits
from server.models import AuditEntry
from shared.contracts.case import BloodCount, ClinicalContext, Sex
from shared.contracts.errors import ForbiddenError, NotFoundError
from tests.server.conftest import Ward

DESK = Contact(name="Haematology desk", phone="+41 44 555 01 02", hours="7 to 19 h")


def _patient(*, sex: Sex = Sex.FEMALE, age_band: str = "60-69", **values: float) -> ClinicalContext:
    count = BloodCount.model_validate(values)
    return ClinicalContext(patient_pseudonym="ab" * 16, sex=sex, age_band=age_band, blood_count=count)


def test_contact_is_set_by_its_own_staff_or_a_coordinator_and_audited(ward: Ward) -> None:
    database = ward.centre.runtime.database
    with database.session() as session:
        assert bedside.contact_of(session, "a").empty
        bedside.set_contact(session, ward.it, "a", DESK)
    with database.session() as session:
        assert bedside.contact_of(session, "a") == DESK
        assert bedside.contact_of(session, "b").empty
        bedside.set_contact(session, ward.coordinator, "a", Contact())
    with database.session() as session:
        assert bedside.contact_of(session, "a").empty
        told = [entry.data for entry in session.exec(select(AuditEntry)) if entry.action == "hospital.contact"]
    assert told == [{"named": True}, {"named": False}]


def test_contact_of_another_hospital_cannot_be_set(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        for somebody in (ward.other_it, ward.reader):
            with pytest.raises(ForbiddenError):
                bedside.set_contact(session, somebody, "a", DESK)
            with pytest.raises(ForbiddenError):
                bedside.set_limits(session, somebody, "a", {})
        with pytest.raises(NotFoundError):
            bedside.contact_of(session, "nowhere")


@pytest.mark.parametrize("phone", ["call me", "12", "+41 44\n555", "x" * 41])
def test_contact_needs_a_number_that_can_be_dialled(phone: str) -> None:
    with pytest.raises(ValidationError):
        Contact(phone=phone)


def test_limits_are_the_hospitals_own_where_it_has_some(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        bedside.set_limits(session, ward.it, "a", {"mcv_fl": Interval(low=80, high=98)})
    with ward.centre.runtime.database.session() as session:
        limits = bedside.limits_of(session, "a")
        assert bedside.own_limits(session, "a") == {"mcv_fl"}
    assert limits == Limits(mcv_fl=Interval(low=80, high=98))
    with pytest.raises(ValidationError):
        Interval(low=5, high=5)


def test_value_is_judged_by_how_far_it_is_out() -> None:
    context = _patient(wbc_10e9_l=21.4, hb_g_l=88, plt_10e9_l=150, mcv_fl=101)
    judged = {one.name: round(one.by, 1) for one in bedside.judge(context, Limits())}
    assert judged == {"WBC": 11.4, "Hb": -32.0, "Plt": 0.0, "MCV": 0.0}


@pytest.mark.parametrize(("sex", "by"), [(Sex.FEMALE, 0.0), (Sex.MALE, -5.0), (Sex.UNKNOWN, 0.0)])
def test_haemoglobin_goes_by_sex(sex: Sex, by: float) -> None:
    (judged,) = bedside.judge(_patient(sex=sex, hb_g_l=125), Limits())
    assert judged.by == by


def test_children_are_not_judged_by_the_intervals_of_adults() -> None:
    (judged,) = bedside.judge(_patient(age_band="10-19", hb_g_l=88), Limits())
    assert (judged.interval, judged.by) == (None, 0.0)
    (judged,) = bedside.judge(_patient(age_band="unknown", hb_g_l=88), Limits())
    assert judged.by == -32
