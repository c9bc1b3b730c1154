"""``hematovision-server user``: accounts at the command line."""

import getpass
import sys
from typing import Annotated

import typer

from server.accounts import invitations, passwords, people, second_factor, service
from server.accounts.roles import Role
from server.commands import COMMAND_LINE, HomeOption, JsonOption, emit, open_runtime
from server.settings import ENV_PREFIX
from shared.contracts.errors import NotFoundError, UsageError

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


@app.command()
def invite(
    role: Annotated[Role, typer.Option("--role")],
    name: Annotated[str, typer.Option("--name", help="As it stands on reports.")],
    hospital: Annotated[str | None, typer.Option("--hospital", help="For the role hospital_it.")] = None,
    mail: Annotated[str | None, typer.Option("--mail", help="Mail address of the person.")] = None,
    portal: Annotated[str, typer.Option("--portal", help="https://host of the portal, else the setting.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a link, good once and for seven days, by which a person makes their own account."""
    with open_runtime(home) as runtime:
        base = (portal or runtime.settings.portal_url).rstrip("/")
        if not base:
            raise UsageError(f"Say where people reach the portal: --portal https://host, or {ENV_PREFIX}PORTAL_URL.")
        with runtime.database.session() as session:
            token, invited = invitations.invite(
                session, actor=COMMAND_LINE, display_name=name, role=role, hospital_id=hospital, email=mail
            )
    link = f"{base}{invitations.PATH}{token}"
    text = (
        f"{link}\nGood once, until {invited.expires_at:%Y-%m-%d %H:%M} UTC. Hand it over safely; it is told this once."
    )
    emit(invited.model_dump(mode="json") | {"link": link}, as_json=as_json, text=text)


@app.command("reset-second-factor")
def reset_second_factor(
    username: Annotated[str, typer.Argument(metavar="USERNAME")], home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Let somebody who lost phone and recovery codes set up a new second factor; their sessions end."""
    with open_runtime(home) as runtime, runtime.database.session() as session:
        found = {user.username: user for user in people.list_users(session, COMMAND_LINE)}.get(username)
        if found is None:
            raise NotFoundError(f"There is no account {username}; see `user list`.")
        second_factor.reset(session, COMMAND_LINE, found.id)
    emit({"username": username}, as_json=as_json, text=f"{username} sets up a new second factor at the next sign-in.")


@app.command("list")
def list_users(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the accounts."""
    with open_runtime(home) as runtime, runtime.database.session(read_only=True) as session:
        users = people.list_users(session, COMMAND_LINE)
    lines = [
        f"{user.username}  {user.role.label}  {user.display_name}"
        f"{'  second factor' if user.second_factor else ''}{'' if user.active else '  (shut)'}"
        for user in users
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
