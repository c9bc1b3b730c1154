"""Making a centre's folder: keys, certificates, settings, database, bucket. Nothing is ever overwritten."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from server.db import migrate
from server.runtime import open_store
from server.settings import ENV_FILE, ENV_PREFIX, ServerSettings
from server.vault.file_vault import FileVault
from shared.addresses import is_loopback
from shared.contracts.errors import ConfigError, ConflictError
from shared.crypto.pki import DemoCA, write_private
from shared.storage import S3Store, self_test


class InitOutput(BaseModel):
    """The JSON of ``init``."""

    home: Path
    server_id: str
    public_url: str
    database_revision: str
    ca: Path
    certificate: Path
    settings: Path


def initialise(settings: ServerSettings) -> InitOutput:
    """Make the folder ``settings.home``.

    Raises:
        ConflictError: it is a centre's folder already.
        ConfigError: an option does not make sense.
        ServiceUnavailableError: the named store or database does not answer.
    """
    home = settings.home
    if (home / ENV_FILE).exists() or settings.keys.exists():
        raise ConflictError(f"{home} is a server folder already; nothing is overwritten. Choose another folder.")
    host = _public_host(settings)
    _prepare_store(settings)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)
    vault = FileVault.create(settings.keys)
    authority = DemoCA.create(settings.keys / "ca")
    hosts = dict.fromkeys([host, "localhost", "127.0.0.1", *_host_of(settings.superlink)])
    certificate = authority.issue_server("Hematovision centre", list(hosts), settings.keys / "tls")
    revision = migrate.upgrade(settings.effective_database_url)
    # Last: with it the folder counts as made.
    write_private(home / ENV_FILE, env_file(settings).encode())
    return InitOutput(
        home=home,
        server_id=vault.server_id,
        public_url=settings.public_url,
        database_revision=revision,
        ca=authority.cert_path,
        certificate=certificate.cert,
        settings=home / ENV_FILE,
    )


def env_file(settings: ServerSettings) -> str:
    """Return ``server.env``: what differs from the defaults, quoted for dotenv and systemd alike."""
    lines = ["# Settings of this centre; see the documentation of hematovision-server. Keep it secret (mode 0600)."]
    for name, field in type(settings).model_fields.items():
        value: Any = getattr(settings, name)  # Any: a setting of any type
        if name == "home" or value == field.default:
            continue
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        escaped = text.replace("\\", "\\\\").replace("'", "\\'")
        lines.append(f"{ENV_PREFIX}{name.upper()}='{escaped}'")
    return "\n".join(lines) + "\n"


def _prepare_store(settings: ServerSettings) -> None:
    if not settings.store_endpoint:
        return
    store = open_store(settings)
    if isinstance(store, S3Store):
        store.ensure_bucket()
    self_test(store)


def _public_host(settings: ServerSettings) -> str:
    parts = urlsplit(settings.public_url)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise ConfigError("Give --public-url as https://host:port, the way hospitals reach the node API.")
    if parts.scheme == "http" and not (settings.demo and is_loopback(parts.hostname)):
        raise ConfigError("Hospitals reach the node API over https:// only; give --public-url https://host:port.")
    return parts.hostname


def _host_of(address: str) -> list[str]:
    host = address.rpartition(":")[0].strip("[]")
    return [host] if host else []
