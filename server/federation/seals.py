"""Whether an answer is what its node signed, to what it was asked: see `shared.seal`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from server.federation.fleet import Answer, Ask
from shared.contracts.errors import DataInvalidError, SignatureInvalidError
from shared.crypto.signing import VerifyKey
from shared.seal import check_seal, request_digest


@dataclass(frozen=True, slots=True)
class SealCheck:
    """Checks the answers to one ask; ``keys`` are the approved nodes' public signing keys by Flower id."""

    keys: Mapping[int, str]
    digest: str

    @classmethod
    def of(cls, keys: Mapping[int, str], ask: Ask) -> "SealCheck":
        """Return the check for the answers to ``ask``."""
        return cls(keys, request_digest(ask.text, ask.tensors))

    def __call__(self, answer: Answer) -> Answer:
        """Return the answer, with its fault where the seal does not hold; Flower's own errors pass."""
        if answer.problem is not None or answer.offline:
            return answer
        try:
            key = VerifyKey.from_base64(self.keys[answer.node_id])
            check_seal(answer.seal, key, self.digest, answer.reply, answer.tensors)
        except SignatureInvalidError as error:
            return replace(answer, fault=error.message)
        except (KeyError, DataInvalidError, UnicodeEncodeError):
            return replace(answer, fault="The node's signing key is not known here; enrol the node again.")
        return answer
