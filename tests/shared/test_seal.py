"""Answers bound to their request, their tensors and their node."""

import pytest

from shared.contracts.errors import SignatureInvalidError
from shared.contracts.training import ReplySeal
from shared.crypto.signing import SigningKey
from shared.seal import check_seal, request_digest, seal

KEY = SigningKey.generate()
REQUEST = request_digest('{"round": 1}', b"tensors")
SEAL = seal(KEY, REQUEST, "reply", b"update")


def test_seal_of_the_very_answer_holds() -> None:
    check_seal(SEAL, KEY.public, REQUEST, "reply", b"update")


@pytest.mark.parametrize(
    ("request_sha256", "reply", "tensors", "reason"),
    [
        (request_digest('{"round": 2}', b"tensors"), "reply", b"update", "another request"),
        (request_digest('{"round": 1}', b"tensorS"), "reply", b"update", "another request"),
        (REQUEST, "reply ", b"update", "answer was altered"),
        (REQUEST, "reply", b"updatE", "update was altered"),
        (REQUEST, "reply", b"", "update was altered"),
    ],
)
def test_seal_of_another_answer_does_not(request_sha256: str, reply: str, tensors: bytes, reason: str) -> None:
    with pytest.raises(SignatureInvalidError, match=reason):
        check_seal(SEAL, KEY.public, request_sha256, reply, tensors)


def test_digest_keeps_text_and_tensors_apart() -> None:
    assert request_digest("ab", b"c") != request_digest("a", b"bc")


@pytest.mark.parametrize("text", ["", "{}", "[" * 1000, "x" * 5000, SEAL.replace('"signature":"', '"signature":"A')])
def test_what_is_no_seal_is_refused(text: str) -> None:
    with pytest.raises(SignatureInvalidError):
        check_seal(text, KEY.public, REQUEST, "reply", b"update")


def test_seal_of_another_node_or_with_changed_digests_is_refused() -> None:
    with pytest.raises(SignatureInvalidError):
        check_seal(SEAL, SigningKey.generate().public, REQUEST, "reply", b"update")
    other = request_digest("other", b"")
    moved = ReplySeal.model_validate_json(SEAL).model_copy(update={"request_sha256": other}).model_dump_json()
    with pytest.raises(SignatureInvalidError, match="does not match"):
        check_seal(moved, KEY.public, other, "reply", b"update")
