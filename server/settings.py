"""Settings of every process of the centre: environment over ``S/server.env`` over defaults."""

import os
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from server.accounts.roles import Role
from shared.addresses import is_loopback
from shared.contracts.errors import ConfigError
from shared.contracts.findings import Term
from shared.settings import Settings

ENV_PREFIX = "HEMATOVISION_SERVER_"
HOME_VARIABLE = f"{ENV_PREFIX}HOME"
ENV_FILE = "server.env"
DEFAULT_BLIND_SHARE: Final = 0.1
_SECOND_FACTOR_WORDS = frozenset({"default", "nobody", "everybody"})


class ServerSettings(Settings):
    """What the centre's processes are told. ``home`` (S) holds keys, certificates and the embedded database."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="ignore", frozen=True)

    home: Path
    database_url: SecretStr = SecretStr("")
    """Empty: SQLite at ``S/hematovision.sqlite``."""
    broker_url: SecretStr = SecretStr("")
    """``redis://:password@host:port/0`` of the Valkey broker."""
    store_endpoint: str = ""
    """``host:port`` or ``http(s)://host:port`` of the S3 store."""
    store_access_key: str = ""
    store_secret_key: SecretStr = SecretStr("")
    store_bucket: str = "hematovision"
    store_region: str = "us-east-1"
    store_ca_file: Path | None = None
    public_url: str = "https://localhost:8443"
    """Base address of the node API, as kits carry it."""
    superlink: str = ""
    """host:port of the SuperLink's fleet API, told to approved nodes."""
    superlink_control: str = ""
    """host:port of its control API: loopback only."""
    synthetic: bool = False
    """The data are synthetic: every page and report says so."""
    second_factor: str = "default"
    """Who must sign in with a code beside the password: ``nobody``, ``everybody``, or roles with commas between them
    (``hematologist,admin``). ``default``: everybody who works at the centre, and nobody in the demonstration."""
    graded_few: str = "schistocytes"
    """Red-cell terms for which readers grade 1, "few", with commas between them; the others go from 0 to 2 and 3."""
    platelet_factor: float = Field(default=15.0, gt=0, le=100)
    """10⁹/l for each platelet in an oil-immersion field, where a reader counts them; measure your own microscopes'."""
    portal_url: str = ""
    """Base address of the portal as people reach it, for links in invitations."""
    blind_share: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """Share of cases that are read without the AI first. Unset: a tenth, and none in the demonstration."""
    smtp_host: str = ""
    """The mail server that letters go through; empty: the centre sends none."""
    smtp_port: int = 0
    """0: the usual one of `smtp_security` (587, 465, 25)."""
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    """``none`` on this machine only."""
    smtp_username: str = ""
    smtp_password: SecretStr = SecretStr("")
    smtp_from: str = ""
    """The address that letters come from, ``hematovision@centre.example``."""
    smtp_ca_file: Path | None = None
    """Whom to trust beside the system's authorities."""
    smtp_timeout: float = 20.0
    """Seconds."""
    worker_concurrency: int = 4
    log_json: bool = False
    """One JSON object a line, for a log collector."""
    log_level: str = "INFO"

    @field_validator("superlink_control")
    @classmethod
    def _on_loopback(cls, value: str) -> str:
        """Whoever reaches the Control API runs code on nodes: it has no authentication, so it stays on this machine."""
        if value and not is_loopback(value.rpartition(":")[0].strip("[]")):
            raise ValueError("the Control API must be on loopback, e.g. 127.0.0.1:9093")
        return value

    @field_validator("second_factor")
    @classmethod
    def _known_roles(cls, value: str) -> str:
        words = [word.strip() for word in value.split(",")]
        if value not in _SECOND_FACTOR_WORDS and not set(words) <= {role.value for role in Role}:
            roles = ", ".join(role.value for role in Role)
            raise ValueError(f"give nobody, everybody, default, or some of: {roles}")
        return ",".join(words)

    @field_validator("graded_few")
    @classmethod
    def _known_terms(cls, value: str) -> str:
        words = [word.strip() for word in value.split(",") if word.strip()]
        if not set(words) <= {term.value for term in Term}:
            raise ValueError(f"give some of: {', '.join(Term)}")
        return ",".join(words)

    @property
    def terms_graded_few(self) -> frozenset[Term]:
        """The terms that may have grade 1."""
        return frozenset(Term(word) for word in self.graded_few.split(",") if word)

    @model_validator(mode="after")
    def _usable_mail(self) -> Self:
        """Refuse at start-up what would lose letters, or send a password in the clear."""
        if not self.smtp_host:
            return self
        name = self.variable
        if "@" not in self.smtp_from or any(sign.isspace() for sign in self.smtp_from):
            raise ValueError(f"{name('smtp_from')} must be the address that letters come from")
        if not self.portal_url.startswith(("https://", "http://")):
            raise ValueError(f"{name('portal_url')} must be set with {name('smtp_host')}: letters link to the portal")
        if bool(self.smtp_username) != bool(self.smtp_password.get_secret_value()):
            raise ValueError(f"give both {name('smtp_username')} and {name('smtp_password')}, or neither")
        if self.smtp_security == "none" and not is_loopback(self.smtp_host):
            raise ValueError(f"{name('smtp_security')}=none is for a mail server on this machine; use starttls or tls")
        if self.smtp_ca_file is not None and not self.smtp_ca_file.is_file():
            raise ValueError(f"{name('smtp_ca_file')} names no file")
        return self

    @property
    def second_factor_roles(self) -> frozenset[Role]:
        """The roles that must sign in with a second factor."""
        if self.second_factor == "default":
            return frozenset() if self.demo else frozenset(Role) - {Role.HOSPITAL_IT}
        named = {"nobody": frozenset[Role](), "everybody": frozenset(Role)}
        found = named.get(self.second_factor)
        return frozenset(Role(word) for word in self.second_factor.split(",")) if found is None else found

    @property
    def effective_blind_share(self) -> float:
        """The share of cases that are read without the AI first."""
        if self.blind_share is None:
            return 0.0 if self.demo else DEFAULT_BLIND_SHARE
        return self.blind_share

    @property
    def effective_database_url(self) -> str:
        """The database, the embedded one unless another is set."""
        return self.database_url.get_secret_value() or f"sqlite:///{self.home / 'hematovision.sqlite'}"

    @property
    def keys(self) -> Path:
        """Where the private keys lie."""
        return self.home / "keys"


def load_settings(home: Path | None = None) -> ServerSettings:
    """Read the settings of the centre whose folder is ``home`` (else ``HEMATOVISION_SERVER_HOME``).

    Raises:
        ConfigError: no folder is named, or it was never initialised.
    """
    named = home or (Path(os.environ[HOME_VARIABLE]) if os.environ.get(HOME_VARIABLE) else None)
    if named is None:
        raise ConfigError(f"Name the server's folder: give --home, or set {HOME_VARIABLE}.")
    folder = named.expanduser().resolve()
    if not (folder / ENV_FILE).is_file():
        raise ConfigError(f"{named} is no server folder; make one with `hematovision-server init --home {named}`.")
    return ServerSettings.load(env_file=folder / ENV_FILE, home=folder)


def get_settings() -> ServerSettings:
    """Return the settings of the folder that the environment names."""
    return load_settings()
