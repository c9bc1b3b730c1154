"""The node's own signing key. Import-light: the relay, a process for every message, uses it too."""

from client_node.home import NodeHome
from shared.contracts.errors import ConfigError
from shared.crypto.signing import SigningKey


def read_signing_key(home: NodeHome) -> SigningKey:
    """Return the node's signing key, or raise `ConfigError`."""
    try:
        return SigningKey.from_pem(home.signing_key.read_bytes())
    except OSError:
        raise ConfigError("keys/signing.pem cannot be read: restore it, or enrol this node again.") from None
