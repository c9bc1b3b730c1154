"""States of a model version."""

from enum import StrEnum


class ModelState(StrEnum):
    """At most one version is `current`."""

    CANDIDATE = "candidate"
    CURRENT = "current"
    RETIRED = "retired"
