"""How a node starts its SuperNode."""

from pathlib import Path

import pytest

from client_node.supernode import restart_delay, supernode_command, trusted_entities
from shared.contracts.errors import ConfigError
from shared.crypto.signing import SigningKey

RELEASE = SigningKey.generate().public


def _home(tmp_path: Path) -> Path:
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in ("flower", "ca.crt"):
        (keys / name).touch()
    (keys / "trusted.yaml").write_text(trusted_entities(RELEASE.to_openssh()))
    (tmp_path / "policy.toml").write_text(f'[models]\ntrusted_release_key = "{RELEASE.key_id}"\n')
    return tmp_path


def test_command_names_the_nodes_own_keys_and_home(tmp_path: Path) -> None:
    home = _home(tmp_path)
    command = supernode_command(home, superlink="centre:9092", hospital_id="north", port=20123)
    assert command.argv[command.argv.index("--trusted-entities") + 1] == str(home / "keys" / "trusted.yaml")
    assert command.argv[command.argv.index("--node-config") + 1] == f'hospital-id="north" home="{home.resolve()}"'
    assert "--insecure" not in command.argv
    assert command.env["FLWR_TELEMETRY_ENABLED"] == "0"
    assert Path(command.env["FLWR_HOME"]).is_relative_to(home)


def test_missing_key_is_named(tmp_path: Path) -> None:
    home = _home(tmp_path)
    (home / "keys" / "trusted.yaml").unlink()
    with pytest.raises(ConfigError, match=r"trusted\.yaml"):
        supernode_command(home, superlink="centre:9092", hospital_id="north", port=20123)


def test_apps_are_trusted_by_the_key_alone_that_the_policy_names(tmp_path: Path) -> None:
    home = _home(tmp_path)
    trusted, other = home / "keys" / "trusted.yaml", SigningKey.generate().public.to_openssh()
    for text in (
        trusted_entities(other),
        trusted.read_text() + f"fpk_other: '{other}'\n",
        "fpk_release: 'ssh-ed25519 nonsense'\n",
        "",
    ):
        trusted.write_text(text)
        with pytest.raises(ConfigError, match=r"keys/trusted\.yaml"):
            supernode_command(home, superlink="centre:9092", hospital_id="north", port=20123)


def test_trusted_entities_hold_one_ed25519_key() -> None:
    line = SigningKey.generate().public.to_openssh()
    assert trusted_entities(line) == f"fpk_release: '{line}'\n"
    for bad in ("ssh-rsa AAAA", f"{line}'\nother: 'x", ""):
        with pytest.raises(ConfigError):
            trusted_entities(bad)


def test_restarts_come_back_soon_and_for_ever() -> None:
    assert [restart_delay(failures) for failures in (0, 1, 2, 3, 1000)] == [2, 4, 8, 15, 15]
