"""Signatures, their keys on disk and on the wire, and the fingerprint people compare."""

import base64

import pytest

from shared.contracts.errors import ConfigError, DataInvalidError, SignatureInvalidError
from shared.crypto.envelope import EnvelopePrivateKey
from shared.crypto.pki import DemoCA
from shared.crypto.signing import SigningKey, VerifyKey, fingerprint


def test_signature_survives_keys_written_and_read() -> None:
    key = SigningKey.from_pem(SigningKey.generate().to_pem())
    VerifyKey.from_base64(key.public.to_base64()).verify(b"smear", key.sign(b"smear"))


@pytest.mark.parametrize("signature", ["", "!!", "AAAA", base64.b64encode(bytes(64)).decode(), "é"])
def test_verify_refuses_what_is_no_signature(signature: str) -> None:
    with pytest.raises(SignatureInvalidError):
        SigningKey.generate().public.verify(b"smear", signature)


def test_verify_refuses_changed_content_and_another_key() -> None:
    key = SigningKey.generate()
    with pytest.raises(SignatureInvalidError):
        key.public.verify(b"smear2", key.sign(b"smear"))
    with pytest.raises(SignatureInvalidError):
        SigningKey.generate().public.verify(b"smear", key.sign(b"smear"))


def test_rfc8032_vector_1() -> None:
    raw = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    VerifyKey.from_base64(base64.b64encode(raw).decode()).verify(b"", base64.b64encode(signature).decode())


@pytest.mark.parametrize("text", ["", "AAAA", "not base64", "é"])
def test_public_key_refuses_other_text(text: str) -> None:
    with pytest.raises(DataInvalidError):
        VerifyKey.from_base64(text)


def test_private_key_refuses_other_files() -> None:
    for pem in (b"", b"hello", EnvelopePrivateKey.generate().to_pem()):
        with pytest.raises(ConfigError):
            SigningKey.from_pem(pem)


def test_private_key_refuses_a_key_of_another_kind(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("ca")
    DemoCA.create(folder)
    with pytest.raises(ConfigError, match="another kind"):
        SigningKey.from_pem((folder / "ca.key").read_bytes())


def test_key_id_and_openssh_form() -> None:
    key = SigningKey.generate()
    assert len(key.public.key_id) == 16
    assert key.public.to_openssh().startswith("ssh-ed25519 AAAA")
    assert key.public == VerifyKey.from_base64(key.public.to_base64())
    assert key.public.key_id in repr(key)


def test_fingerprint_is_eight_groups_and_depends_on_order() -> None:
    assert fingerprint("a", "b", "c") == fingerprint("a", "b", "c")
    assert fingerprint("a", "b") != fingerprint("b", "a")
    assert [len(group) for group in fingerprint("a").split("-")] == [4] * 8
