"""What a process of the centre works with; built by composition roots only."""

from dataclasses import dataclass, field

from server.db.session import Database
from server.mail.port import Mail, NoMail
from server.mail.smtp import open_mail
from server.settings import ServerSettings
from server.vault.file_vault import FileVault
from server.vault.port import Vault
from shared.storage import ObjectStore, S3Store


@dataclass(frozen=True, slots=True)
class Runtime:
    """Settings, database, object store, vault and mail of one process."""

    settings: ServerSettings
    database: Database
    store: ObjectStore
    vault: Vault
    mail: Mail = field(default_factory=NoMail)


def build_runtime(settings: ServerSettings) -> Runtime:
    """Open everything that ``settings`` name."""
    return Runtime(
        settings=settings,
        database=Database(settings.effective_database_url),
        store=open_store(settings),
        vault=FileVault(settings.keys),
        mail=open_mail(settings),
    )


def open_store(settings: ServerSettings) -> ObjectStore:
    """Return the object store; nothing is asked of it yet."""
    endpoint = settings.store_endpoint
    return S3Store(
        endpoint=endpoint.removeprefix("https://").removeprefix("http://") or "127.0.0.1:9000",
        access_key=settings.store_access_key,
        secret_key=settings.store_secret_key.get_secret_value(),
        bucket=settings.store_bucket,
        secure=endpoint.startswith("https://"),
        region=settings.store_region,
        ca_file=settings.store_ca_file,
    )
