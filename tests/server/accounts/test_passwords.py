"""Passwords are hashed at their full cost; the factories of the tests hash theirs at the least one."""

from pwdlib.hashers.argon2 import Argon2Hasher

from server.accounts import passwords
from tests.factories import PASSWORD, _quick_hash


def test_a_password_is_hashed_by_argon2id_at_its_full_cost() -> None:
    made = passwords.hash_password(PASSWORD)
    assert made.startswith("$argon2id$v=19$m=47104,t=1,p=1$")
    assert passwords.matches(PASSWORD, made)
    assert not passwords.matches(PASSWORD + "x", made)
    assert passwords.hash_password(PASSWORD) != made


def test_a_hash_of_the_earlier_cost_still_matches_and_is_made_anew() -> None:
    earlier = Argon2Hasher(time_cost=3, memory_cost=65536, parallelism=4).hash(PASSWORD)
    assert passwords.matches(PASSWORD, earlier)
    made = passwords.renewed(PASSWORD, earlier)
    assert made is not None
    assert made.startswith("$argon2id$v=19$m=47104,t=1,p=1$")
    assert passwords.matches(PASSWORD, made)
    assert passwords.renewed(PASSWORD, made) is None


def test_nobodys_password_matches_nothing() -> None:
    assert not passwords.matches(PASSWORD, None)


def test_the_quick_hash_of_the_tests_is_one_of_the_same_kind() -> None:
    assert _quick_hash().startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert passwords.matches(PASSWORD, _quick_hash())
    assert not passwords.matches(PASSWORD + "x", _quick_hash())
