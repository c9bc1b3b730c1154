"""Settings come from the environment, and a default secret never leaves the demo."""

from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from shared.contracts.errors import ConfigError
from shared.settings import DEFAULT_SECRET, Settings

GOOD = "a-long-random-secret-value"


class Example(Settings):
    """Settings of an imaginary process."""

    model_config = SettingsConfigDict(env_prefix="HV_EXAMPLE_")

    port: int = 1
    session_secret: SecretStr = SecretStr(DEFAULT_SECRET)
    optional_secret: SecretStr = SecretStr("")


def test_environment_over_file_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "env"
    file.write_text(f"HV_EXAMPLE_PORT=2\nHV_EXAMPLE_SESSION_SECRET={GOOD}\nOTHER=1\n")
    assert Example.load(env_file=file).port == 2
    monkeypatch.setenv("HV_EXAMPLE_PORT", "3")
    assert Example.load(env_file=file).port == 3
    assert Example.load(env_file=file, port=4).port == 4


@pytest.mark.parametrize("secret", [DEFAULT_SECRET, "5h0rt", f"{DEFAULT_SECRET}{DEFAULT_SECRET}"])
def test_weak_secret_refused_outside_the_demo(secret: str) -> None:
    with pytest.raises(ConfigError, match="HV_EXAMPLE_SESSION_SECRET") as caught:
        Example.load(session_secret=SecretStr(secret))
    assert secret not in caught.value.message
    assert Example.load(demo=True, session_secret=SecretStr(secret)).demo


def test_wrong_value_is_named_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HV_EXAMPLE_PORT", "not-a-port-value")
    with pytest.raises(ConfigError, match="HV_EXAMPLE_PORT") as caught:
        Example.load(session_secret=SecretStr(GOOD))
    assert "not-a-port-value" not in caught.value.message


def test_secrets_do_not_show() -> None:
    assert GOOD not in repr(Example.load(session_secret=SecretStr(GOOD)))
