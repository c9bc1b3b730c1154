"""What is asked travels in the form that nodes of an earlier version read, unless it asks for what they cannot do."""

import json

import pytest

from shared.contracts.ontology import CellClass
from shared.contracts.privacy import Privacy, PrivacyKind
from shared.contracts.training import EvaluateRequest, Recipe

RECIPE = Recipe(classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE))
KNOWN = {"kind", "run_key", "base_sha256", "recipe", "participants", "nonce"}


@pytest.mark.parametrize(
    ("privacy", "fields"),
    [(None, KNOWN), (Privacy(kind=PrivacyKind.DP_SGD, epsilon=8.0, delta=1e-5, clip=1.0), KNOWN | {"privacy"})],
)
def test_evaluation_names_its_privacy_only_where_it_promises_any(privacy: Privacy | None, fields: set[str]) -> None:
    request = EvaluateRequest(run_key="run", base_sha256="0" * 64, recipe=RECIPE, participants=2, privacy=privacy)
    text = request.model_dump_json(by_alias=True)
    assert set(json.loads(text)) == fields
    assert EvaluateRequest.model_validate_json(text) == request
