"""Only the right key, case, name and purpose opens what was sealed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.contracts.errors import ConfigError, DataInvalidError
from shared.crypto.envelope import CaseKey, EnvelopePrivateKey, EnvelopePublicKey
from shared.crypto.signing import SigningKey


@pytest.fixture(scope="module")
def key() -> EnvelopePrivateKey:
    return EnvelopePrivateKey.generate()


@settings(max_examples=25, deadline=None)
@given(plain=st.binary(max_size=5000), info=st.binary(max_size=64))
def test_seal_opens_with_keys_written_and_read(plain: bytes, info: bytes) -> None:
    key = EnvelopePrivateKey.generate()
    sealed = EnvelopePublicKey.from_base64(key.public.to_base64()).seal(plain, info)
    assert len(sealed) == len(plain) + 1136
    assert EnvelopePrivateKey.from_pem(key.to_pem()).open(sealed, info) == plain


def test_open_refuses_another_key_purpose_or_change(key: EnvelopePrivateKey) -> None:
    sealed = key.public.seal(b"report", b"to-a")
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for opener, content, info in (
        (EnvelopePrivateKey.generate(), sealed, b"to-a"),
        (key, sealed, b"to-b"),
        (key, changed, b"to-a"),
        (key, sealed[:100], b"to-a"),
        (key, b"", b"to-a"),
    ):
        with pytest.raises(DataInvalidError):
            opener.open(content, info)


@pytest.mark.parametrize("text", ["", "AAAA", "?", "A" * 44])
def test_public_key_refuses_other_text(text: str) -> None:
    with pytest.raises(DataInvalidError):
        EnvelopePublicKey.from_base64(text)


@pytest.mark.parametrize("pem", [b"", b"x", b"\xff\xfe\xff"])
def test_private_key_refuses_other_files(pem: bytes) -> None:
    for content in (pem, SigningKey.generate().to_pem()):
        with pytest.raises(ConfigError):
            EnvelopePrivateKey.from_pem(content)


def test_case_key_travels_sealed_and_decrypts(key: EnvelopePrivateKey) -> None:
    case_key = CaseKey.generate("HV-AAAAAAAA")
    cipher = case_key.encrypt("field-0.jpg", b"pixels")
    received = CaseKey.open(case_key.seal_to(key.public), key, "HV-AAAAAAAA")
    assert received.decrypt("field-0.jpg", cipher) == b"pixels"
    assert case_key.encrypt("field-0.jpg", b"pixels") != cipher


def test_case_key_refuses_another_case(key: EnvelopePrivateKey) -> None:
    sealed = CaseKey.generate("HV-AAAAAAAA").seal_to(key.public)
    with pytest.raises(DataInvalidError):
        CaseKey.open(sealed, key, "HV-BBBBBBBB")


def test_case_key_refuses_a_sealed_text_of_wrong_length(key: EnvelopePrivateKey) -> None:
    with pytest.raises(DataInvalidError):
        CaseKey.open(key.public.seal(b"short", b"hematovision/case-key/1\nHV-A"), key, "HV-A")


def test_blob_refuses_another_name_a_change_and_a_cut() -> None:
    case_key = CaseKey.generate("HV-AAAAAAAA")
    cipher = case_key.encrypt("field-0.jpg", b"pixels")
    for name, content in (
        ("field-1.jpg", cipher),
        ("field-0.jpg", cipher[:-1]),
        ("field-0.jpg", b""),
        ("field-0.jpg", bytes(len(cipher))),
    ):
        with pytest.raises(DataInvalidError):
            case_key.decrypt(name, content)


def test_private_halves_never_show_in_repr(key: EnvelopePrivateKey) -> None:
    assert repr(key) == "EnvelopePrivateKey(…)"
    assert repr(CaseKey.generate("HV-AAAAAAAA")) == "CaseKey(HV-AAAAAAAA)"
