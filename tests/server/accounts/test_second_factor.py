"""Tests of the second factor: codes, recovery codes, and the two steps of signing in."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyotp
import pytest
import time_machine
from sqlalchemy import text
from sqlmodel import Session

from server.accounts import second_factor, service, sign_in, throttle
from server.accounts.roles import Role
from server.accounts.schemas import COMMAND_LINE, Principal
from server.accounts.service import PasswordRefusedError, SignInRefusedError
from server.accounts.sign_in import Client, Next, StepOverError
from server.audit import service as audit
from server.models import User
from server.runtime import Runtime
from server.settings import ServerSettings
from shared.contracts.errors import ConfigError, ConflictError, UsageError
from tests.server.centres import PASSWORD, add_user

NOON = datetime(2026, 11, 26, 12, 0, 10, tzinfo=UTC)
HERE = Client("203.0.113.7", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
STEP = timedelta(seconds=second_factor.STEP_SECONDS)


@pytest.fixture
def ada(runtime: Runtime) -> Principal:
    """A reader, signed in by password alone."""
    with runtime.database.session() as session:
        return service.open_session(session, add_user(session, "ada"))[1]


def phone(session: Session, runtime: Runtime, who: Principal) -> pyotp.TOTP:
    """Set the second factor up at the time it is; return the app."""
    second_factor.begin(session, runtime, who, PASSWORD)
    app = pyotp.TOTP(second_factor.own_waiting(session, runtime, who).secret.replace(" ", ""))
    second_factor.confirm_own(session, runtime, who, app.at(_now()))
    return app


def _now() -> datetime:
    return datetime.now(UTC)


def _take(session: Session, runtime: Runtime, who: Principal, code: str) -> bool:
    try:
        second_factor.take(session, runtime, session.get_one(User, who.user_id), code)
    except SignInRefusedError:
        return False
    return True


@pytest.mark.parametrize(("steps", "taken"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_code_of_a_clock_one_step_off_is_taken(runtime: Runtime, ada: Principal, steps: int, taken: bool) -> None:
    with runtime.database.session() as session:
        with time_machine.travel(NOON - 10 * STEP, tick=False):
            app = phone(session, runtime, ada)
        with time_machine.travel(NOON, tick=False):
            assert _take(session, runtime, ada, app.at(NOON + steps * STEP)) is taken


def test_code_is_taken_once_and_no_earlier_one_after_it(runtime: Runtime, ada: Principal) -> None:
    with runtime.database.session() as session:
        with time_machine.travel(NOON, tick=False):
            app = phone(session, runtime, ada)
            assert not _take(session, runtime, ada, app.at(NOON)), "the code that set it up is used"
            assert _take(session, runtime, ada, app.at(NOON + STEP))
            assert not _take(session, runtime, ada, app.at(NOON + STEP))
            assert not _take(session, runtime, ada, app.at(NOON))
        with time_machine.travel(NOON + 2 * STEP, tick=False):
            spaced = app.at(NOON + 2 * STEP)
            assert _take(session, runtime, ada, f" {spaced[:3]} {spaced[3:]} ")


@pytest.mark.parametrize("code", ["", "12345", "1234567", "abcdef", "١٢٣٤٥٦"])
def test_what_is_no_code_is_refused_and_counted(runtime: Runtime, ada: Principal, code: str) -> None:
    with runtime.database.session() as session:
        phone(session, runtime, ada)
        assert not _take(session, runtime, ada, code)
        assert session.get_one(User, ada.user_id).failed_logins == 1


def test_secret_is_sealed_in_the_database_and_bound_to_its_account(runtime: Runtime, ada: Principal) -> None:
    with runtime.database.session() as session:
        app = phone(session, runtime, ada)
        kept = str(session.connection().execute(text("SELECT * FROM user_account")).all())
        assert app.secret not in kept
        sealed = session.get_one(User, ada.user_id).totp_sealed or ""
        other = session.get_one(User, add_user(session, "bea"))
        other.totp_sealed = sealed
        with pytest.raises(Exception, match="cannot be opened"):
            second_factor.take(session, runtime, other, app.now())


def test_recovery_codes_are_good_once_each_and_kept_as_hashes(runtime: Runtime, ada: Principal) -> None:
    with runtime.database.session() as session:
        phone(session, runtime, ada)
        codes = second_factor.renew_codes(session, ada, PASSWORD)
        assert len(set(codes)) == second_factor.RECOVERY_CODES
        kept = str(session.connection().execute(text("SELECT * FROM recovery_code")).all())
        assert not any(code.replace("-", "") in kept for code in codes)
        assert _take(session, runtime, ada, codes[0].upper().replace("-", " "))
        assert not _take(session, runtime, ada, codes[0])
        assert second_factor.view(session, runtime, ada).codes_left == 9
        fresh = second_factor.renew_codes(session, ada, PASSWORD)
        assert not _take(session, runtime, ada, codes[1])
        assert _take(session, runtime, ada, fresh[1])
        actions = [entry.action for entry in audit.search(session, COMMAND_LINE, f"user:{ada.user_id}")]
        assert actions.count("account.recovery_code_used") == 2


def test_another_device_replaces_the_first_only_when_its_code_came(runtime: Runtime, ada: Principal) -> None:
    with runtime.database.session() as session:
        with time_machine.travel(NOON, tick=False):
            old = phone(session, runtime, ada)
            second_factor.begin(session, runtime, ada, PASSWORD)
        with time_machine.travel(NOON + STEP, tick=False):
            assert _take(session, runtime, ada, old.at(NOON + STEP))
        with time_machine.travel(NOON + 2 * STEP, tick=False):
            with pytest.raises(UsageError, match="not the code"):
                second_factor.confirm_own(session, runtime, ada, old.at(NOON + 2 * STEP))
            new = pyotp.TOTP(second_factor.own_waiting(session, runtime, ada).secret.replace(" ", ""))
            second_factor.confirm_own(session, runtime, ada, new.at(NOON + 2 * STEP))
        with time_machine.travel(NOON + 4 * STEP, tick=False):
            assert not _take(session, runtime, ada, old.at(NOON + 4 * STEP))
            assert _take(session, runtime, ada, new.at(NOON + 4 * STEP))


def test_everything_about_it_asks_for_the_password(runtime: Runtime, ada: Principal) -> None:
    acts: tuple[Callable[[Session], object], ...] = (
        lambda session: second_factor.begin(session, runtime, ada, "wrong password"),
        lambda session: second_factor.renew_codes(session, ada, "wrong password"),
        lambda session: second_factor.turn_off(session, runtime, ada, "wrong password"),
    )
    for number, act in enumerate(acts, start=1):
        with pytest.raises(PasswordRefusedError, match="The password is wrong"), runtime.database.session() as session:
            act(session)
        with runtime.database.session() as session:
            assert session.get_one(User, ada.user_id).failed_logins == number


def test_who_must_have_it_cannot_turn_it_off(runtime: Runtime, ada: Principal) -> None:
    free = replace(runtime, settings=runtime.settings.model_copy(update={"second_factor": "nobody"}))
    with runtime.database.session() as session:
        phone(session, runtime, ada)
        with pytest.raises(ConflictError, match="set up another device"):
            second_factor.turn_off(session, runtime, ada, PASSWORD)
        second_factor.turn_off(session, free, ada, PASSWORD)
        assert second_factor.view(session, free, ada).model_dump() == {
            "on": False, "since": None, "required": False, "codes_left": 0,
        }  # fmt: skip


def test_reset_ends_the_sessions_and_lets_the_person_set_up_anew(runtime: Runtime, ada: Principal) -> None:
    with runtime.database.session() as session:
        phone(session, runtime, ada)
        token, _ = service.open_session(session, ada.user_id)
        second_factor.reset(session, COMMAND_LINE, ada.user_id)
        assert service.principal_for(session, token) is None
        assert sign_in.begin(session, runtime, "ada", PASSWORD, HERE).next is Next.SET_UP


@pytest.mark.parametrize(
    ("setting", "demo", "roles"),
    [
        ("default", False, set(Role) - {Role.HOSPITAL_IT}),
        ("default", True, set()),
        ("nobody", False, set()),
        ("everybody", True, set(Role)),
        ("admin, auditor", False, {Role.ADMIN, Role.AUDITOR}),
    ],
)
def test_setting_names_the_roles(tmp_path: Path, setting: str, demo: bool, roles: set[Role]) -> None:
    assert ServerSettings.load(home=tmp_path, second_factor=setting, demo=demo).second_factor_roles == roles


def test_setting_with_an_unknown_role_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SECOND_FACTOR: give nobody"):
        ServerSettings.load(home=tmp_path, second_factor="admin,surgeon")


def test_required_role_sets_it_up_while_signing_in_and_is_asked_from_then_on(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        add_user(session, "ada")
        with time_machine.travel(NOON, tick=False):
            begun = sign_in.begin(session, runtime, "ada", PASSWORD, HERE)
            assert (begun.next, service.principal_for(session, begun.token)) == (Next.SET_UP, None)
            app = pyotp.TOTP(sign_in.enrolment(session, runtime, begun.token).secret.replace(" ", ""))
            done = sign_in.finish(session, runtime, begun.token, app.at(NOON), HERE)
        assert len(done.codes) == second_factor.RECOVERY_CODES
        with time_machine.travel(NOON + STEP, tick=False):
            again = sign_in.begin(session, runtime, "ada", PASSWORD, HERE)
            assert again.next is Next.CODE
            signed_in = sign_in.finish(session, runtime, again.token, app.at(NOON + STEP), HERE)
            found = service.principal_for(session, signed_in.token)
        assert found is not None
        assert (found.username, signed_in.codes) == ("ada", [])


def test_step_is_over_when_used_superseded_or_too_old(runtime: Runtime, ada: Principal) -> None:
    with runtime.database.session() as session:
        with time_machine.travel(NOON, tick=False):
            app = phone(session, runtime, ada)
            first = sign_in.begin(session, runtime, "ada", PASSWORD, HERE).token
            second = sign_in.begin(session, runtime, "ada", PASSWORD, HERE).token
            with pytest.raises(StepOverError):
                sign_in.step(session, first)
            sign_in.finish(session, runtime, second, app.at(NOON + STEP), HERE)
            with pytest.raises(StepOverError):
                sign_in.finish(session, runtime, second, app.at(NOON + STEP), HERE)
            late = sign_in.begin(session, runtime, "ada", PASSWORD, HERE).token
        with time_machine.travel(NOON + sign_in.STEP_LIFE, tick=False), pytest.raises(StepOverError):
            sign_in.step(session, late)


def test_right_passwords_do_not_forgive_wrong_codes(runtime: Runtime, ada: Principal) -> None:
    """Whoever knows the password must not get five guesses at the code again and again."""
    with runtime.database.session() as session:
        phone(session, runtime, ada)
    for _ in range(service.FAILURES_BEFORE_LOCK):
        with runtime.database.session() as session:
            begun = sign_in.begin(session, runtime, "ada", PASSWORD, HERE)
        with pytest.raises(SignInRefusedError, match="code is wrong"), runtime.database.session() as session:
            sign_in.finish(session, runtime, begun.token, "000000", HERE)
    with pytest.raises(SignInRefusedError, match="wait"), runtime.database.session() as session:
        sign_in.begin(session, runtime, "ada", PASSWORD, HERE)


def test_one_code_opens_one_session_of_two_that_come_at_once(runtime: Runtime, ada: Principal) -> None:
    with runtime.database.session() as session, time_machine.travel(NOON, tick=False):
        app = phone(session, runtime, ada)
    with time_machine.travel(NOON + STEP, tick=False):
        with runtime.database.session() as session:
            step = sign_in.begin(session, runtime, "ada", PASSWORD, HERE).token
        with runtime.database.session() as session:
            sign_in.finish(session, runtime, step, app.at(NOON + STEP), HERE)
        with runtime.database.session() as session:
            step = sign_in.begin(session, runtime, "ada", PASSWORD, HERE).token
        with pytest.raises(SignInRefusedError), runtime.database.session() as session:
            sign_in.finish(session, runtime, step, app.at(NOON + STEP), HERE)


def test_address_with_too_many_failures_is_not_listened_to(runtime: Runtime) -> None:
    free = replace(runtime, settings=runtime.settings.model_copy(update={"second_factor": "nobody"}))
    with runtime.database.session() as session:
        add_user(session, "ada")
    with time_machine.travel(NOON, tick=False):
        for number in range(throttle.MOST_FAILURES):
            with pytest.raises(SignInRefusedError), runtime.database.session() as session:
                sign_in.begin(session, free, f"guess-{number}", "wrong password", HERE)
        with (
            pytest.raises(throttle.TooManyAttemptsError, match="Wait 15 minutes"),
            runtime.database.session() as session,
        ):
            sign_in.begin(session, free, "ada", PASSWORD, HERE)
        with runtime.database.session() as session:
            assert sign_in.begin(session, free, "ada", PASSWORD, Client("203.0.113.8")).next is Next.NOTHING
            (entry,) = audit.search(session, COMMAND_LINE, "address:203.0.113.7")
            assert (entry.action, entry.data["failures"]) == ("account.address_held", throttle.MOST_FAILURES)
    with time_machine.travel(NOON + throttle.WINDOW, tick=False), runtime.database.session() as session:
        assert sign_in.begin(session, free, "ada", PASSWORD, HERE).next is Next.NOTHING


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("testclient", "testclient"),
        ("", "unknown"),
    ],
)
def test_addresses_are_counted_by_customer(address: str, place: str) -> None:
    assert throttle.place_of(address) == place
