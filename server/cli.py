"""``hematovision-server``: the centre's administration at the command line."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from pydantic import SecretStr

from server.accounts import cli as accounts
from server.audit import service as audit
from server.commands import HomeOption, JsonOption, emit, open_runtime
from server.db import migrate as migrations
from server.hospitals import cli as hospitals
from server.settings import ENV_PREFIX, HOME_VARIABLE, ServerSettings, load_settings
from server.setup import initialise
from shared.cli import run
from shared.contracts.errors import ConfigError, ExitCode
from shared.logging import configure_logging
from shared.processes import require_port

app = typer.Typer(
    name="hematovision-server",
    help="The centre of the Hematovision network.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
audit_app = typer.Typer(help="The tamper-evident audit.")
app.add_typer(accounts.app, name="user")
app.add_typer(hospitals.app, name="hospital")
app.add_typer(audit_app, name="audit")
for _name, _module in (("federate", "server.federation.cli"), ("model", "server.registry.cli")):
    if importlib.util.find_spec(_module):
        app.add_typer(importlib.import_module(_module).app, name=_name)


@app.command()
def init(
    home: Annotated[Path, typer.Option("--home", help="The folder to make.", envvar=HOME_VARIABLE)],
    public_url: Annotated[
        str, typer.Option("--public-url", help="https://host:port of the node API.")
    ] = "https://localhost:8443",
    # Both may hold a password, and arguments show in the list of processes: the environment does as well.
    database_url: Annotated[
        str, typer.Option("--database-url", envvar=f"{ENV_PREFIX}DATABASE_URL", help="Else SQLite inside the folder.")
    ] = "",
    broker_url: Annotated[
        str, typer.Option("--broker-url", envvar=f"{ENV_PREFIX}BROKER_URL", help="redis://:password@host:port/0")
    ] = "",
    store_endpoint: Annotated[str, typer.Option("--store-endpoint", help="http(s)://host:port of the S3 store.")] = "",
    store_access_key: Annotated[str, typer.Option("--store-access-key")] = "",
    store_secret_key_stdin: Annotated[
        bool, typer.Option("--store-secret-key-stdin", help="Read the store's secret key from a pipe.")
    ] = False,
    store_bucket: Annotated[str, typer.Option("--store-bucket")] = "hematovision",
    store_ca_file: Annotated[Path | None, typer.Option("--store-ca-file", help="CA of the store.")] = None,
    superlink: Annotated[str, typer.Option("--superlink", help="host:port that nodes are told.")] = "",
    superlink_control: Annotated[str, typer.Option("--superlink-control", help="host:port on loopback.")] = "",
    demo: Annotated[bool, typer.Option("--demo", help="A demonstration on one machine.")] = False,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="The data are synthetic; say so everywhere.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a centre: keys, a certificate authority, settings, the database. Overwrites nothing."""
    settings = ServerSettings.load(
        home=home.expanduser().resolve(),
        public_url=public_url.rstrip("/"),
        database_url=SecretStr(database_url),
        broker_url=SecretStr(broker_url),
        store_endpoint=store_endpoint,
        store_access_key=store_access_key,
        store_secret_key=SecretStr(sys.stdin.readline().rstrip("\r\n") if store_secret_key_stdin else ""),
        store_bucket=store_bucket,
        store_ca_file=store_ca_file,
        superlink=superlink,
        superlink_control=superlink_control,
        demo=demo,
        synthetic=synthetic,
    )
    output = initialise(settings)
    emit(output, as_json=as_json, text=f"Made the centre {output.server_id} in {output.home}.")


@app.command()
def migrate(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Bring the database to the schema that this software needs."""
    revision = migrations.upgrade(load_settings(home).effective_database_url)
    emit({"revision": revision}, as_json=as_json, text=f"The database is at revision {revision}.")


@app.command()
def serve(
    host: Annotated[str, typer.Option("--host")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8443,
    home: HomeOption = None,
) -> None:
    """Serve the node API over TLS, in a process of its own."""
    settings = load_settings(home)
    certificate, key = settings.keys / "tls" / "server.crt", settings.keys / "tls" / "server.key"
    if not (certificate.is_file() and key.is_file()):
        raise ConfigError(
            f"The server certificate is missing: put server.crt and server.key into {certificate.parent}."
        )
    require_port(port, host)
    os.environ[HOME_VARIABLE] = str(settings.home)
    configure_logging("node-api", json=settings.log_json, level=settings.log_level)
    uvicorn.run(
        "server.app:create_node_api",
        factory=True,
        host=host,
        port=port,
        ssl_certfile=str(certificate),
        ssl_keyfile=str(key),
        access_log=False,
        server_header=False,
        log_config=None,
    )


@audit_app.command()
def verify(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Check every hash chain and every signed checkpoint; exit 60 if one is broken."""
    with open_runtime(home) as runtime, runtime.database.session(read_only=True) as session:
        found = audit.verify(session, runtime.vault)
    counts = f"{found.entries} entries of {found.subjects} subjects, {found.checkpoints} checkpoints"
    text = f"The audit is whole: {counts}." if found.ok else "\n".join([f"BROKEN: {counts}.", *found.problems])
    emit(found, as_json=as_json, text=text)
    if not found.ok:
        raise typer.Exit(ExitCode.AUDIT_BROKEN)


def main() -> None:
    """Entry point."""
    configure_logging("hematovision-server", level="WARNING")
    sys.exit(run(app))


if __name__ == "__main__":
    main()
