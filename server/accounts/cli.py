"""``hematovision-server user``: accounts at the command line."""

import getpass
import sys
from typing import Annotated

import typer

from server.accounts import passwords, service
from server.accounts.roles import Role
from server.commands import COMMAND_LINE, HomeOption, JsonOption, emit, open_runtime
from shared.contracts.errors import UsageError

app = typer.Typer(help="People who sign in at the portal.")


@app.command()
def add(
    username: Annotated[str, typer.Argument(metavar="USERNAME")],
    role: Annotated[Role, typer.Option("--role")],
    name: Annotated[str, typer.Option("--name", help="As it stands on reports.")],
    hospital: Annotated[str | None, typer.Option("--hospital", help="For the role hospital_it.")] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from a pipe.")] = False,
    generate: Annotated[bool, typer.Option("--generate", help="Make a password and print it once.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a person."""
    password = _password(from_stdin=password_stdin, generate=generate)
    with open_runtime(home) as runtime, runtime.database.session() as session:
        user = service.create_user(
            session,
            actor=COMMAND_LINE,
            username=username,
            display_name=name,
            role=role,
            password=password,
            hospital_id=hospital,
        )
    shown = {"password": password} if generate else {}
    text = f"Added {user.username} ({user.role.label})." + (f"\nPassword: {password}" if generate else "")
    emit(user.model_dump(mode="json") | shown, as_json=as_json, text=text)


@app.command("list")
def list_users(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the accounts."""
    with open_runtime(home) as runtime, runtime.database.session(read_only=True) as session:
        users = service.list_users(session, COMMAND_LINE)
    lines = [
        f"{user.username}  {user.role.label}  {user.display_name}{'' if user.active else '  (shut)'}" for user in users
    ]
    emit({"users": users}, as_json=as_json, text="\n".join(lines) or "There is no account yet.")


def _password(*, from_stdin: bool, generate: bool) -> str:
    if from_stdin and generate:
        raise UsageError("Give either --password-stdin or --generate, not both.")
    if generate:
        return passwords.generate()
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise UsageError("Give --password-stdin or --generate.")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise UsageError("The two passwords differ; try again.")
    return password
