"""Builds, signs and publishes the Flower app, so that nodes which trust the release key accept it and no other.

A SuperNode started with ``--trusted-entities`` runs an app only if the SuperLink hands out, beside the bundle, a
signature by one of its trusted keys. Flower's own publishing goes through its cloud hub; we put the signed bundle into
the SuperLink's state ourselves. These are internal interfaces of the pinned version, covered by a test on real servers.
"""

import base64
import hashlib
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from flwr.cli.build import build_fab_from_files
from flwr.common.constant import NOOP_FLWR_AID
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign
from flwr.superlink.federation import NoOpFederationManager

from shared.contracts.errors import ConfigError

RELEASE_KEY_ID = "fpk_release"
"""Under this name nodes hold the release key in ``keys/trusted.yaml``."""
Sign = Callable[[bytes], bytes]
"""Signs a message with the release key (Ed25519): raw signature bytes."""


@dataclass(frozen=True, slots=True)
class App:
    """A published app: how to start it."""

    app_id: str
    fab_hash: str


def build_app(manifest: Path) -> tuple[str, bytes]:
    """Return the app's id and its bundle, built from its manifest alone; the same manifest gives the same bytes."""
    if not manifest.is_file():
        raise ConfigError(f"The manifest of the Flower app is missing at {manifest}; install the release again.")
    content = manifest.read_bytes()
    config = tomllib.loads(content.decode())
    app_id = f"@{config['tool']['flwr']['app']['publisher']}/{config['project']['name']}"
    fab, _ = build_fab_from_files({"pyproject.toml": content})
    return app_id, fab


def verifications(fab: bytes, sign: Sign, *, signed_at: datetime) -> dict[str, str]:
    """Return what travels beside the bundle: the release key's signature over its hash and the time."""
    timestamp = int(signed_at.timestamp())
    signature = sign(create_message_to_sign(hashlib.sha256(fab).digest(), timestamp))
    encoded = base64.urlsafe_b64encode(signature).decode()
    return {
        "valid_license": "Valid",
        RELEASE_KEY_ID: json.dumps({"signed_at": timestamp, "signature": encoded}),
    }


def publish_app(database: str, manifest: Path, sign: Sign, *, signed_at: datetime) -> App:
    """Put the signed app into the SuperLink's state (``database``: its ``--database`` file); safe to repeat."""
    app_id, fab = build_app(manifest)
    bundle = Fab(hashlib.sha256(fab).hexdigest(), fab, verifications(fab, sign, signed_at=signed_at))
    factory = LinkStateFactory(database, NoOpFederationManager(), ObjectStoreFactory(database))
    fab_hash = factory.state().store_app(
        fab=bundle,
        federation_id=NOOP_FEDERATION_ID,
        app_id=app_id,
        app_type=TaskType.SERVER_APP,
        added_by=NOOP_FLWR_AID,
    )
    return App(app_id, fab_hash)
