"""What every process's settings share: prefixed environment, and no default secret outside the demo."""

from pathlib import Path
from typing import Any, Final, Self

from pydantic import SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.contracts.errors import ConfigError

DEFAULT_SECRET: Final = "changethis"  # noqa: S105 - the one value that is refused
_SHORTEST: Final = 16


class Settings(BaseSettings):
    """Base of a process's settings class; give it ``model_config = SettingsConfigDict(env_prefix="HV_…_")``.

    A field of type `SecretStr` may have the default `DEFAULT_SECRET` so that a demo needs no setting; outside the demo
    such a value, and any secret shorter than 16 characters, is refused at start-up. An empty secret means "not set".
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    demo: bool = False

    @model_validator(mode="after")
    def _refuse_weak_secrets(self) -> Self:
        if self.demo:
            return self
        for field in type(self).model_fields:
            value = getattr(self, field)
            if not isinstance(value, SecretStr) or not value.get_secret_value():
                continue
            if DEFAULT_SECRET in value.get_secret_value() or len(value.get_secret_value()) < _SHORTEST:
                raise ValueError(
                    f"{self.variable(field)} is a default or too short: set a random secret of 16 or more characters"
                )
        return self

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable that sets ``field``."""
        return f"{cls.model_config.get('env_prefix', '')}{field}".upper()

    @classmethod
    def load(cls, *, env_file: Path | None = None, **given: Any) -> Self:  # each field has a type of its own
        """Read the settings: ``given``, then the environment, then ``env_file``.

        Raises:
            ConfigError: one is missing or wrong; the message names the variables and never repeats a value.
        """
        try:
            return cls(_env_file=env_file, **given)
        except ValidationError as error:
            problems = []
            for problem in error.errors(include_input=False, include_url=False, include_context=False):
                where = cls.variable(str(problem["loc"][0])) if problem["loc"] else ""
                what = problem["msg"].removeprefix("Value error, ")
                problems.append(f"{where}: {what}" if where else what)
            raise ConfigError("The settings are not usable: " + "; ".join(problems) + ".") from None
