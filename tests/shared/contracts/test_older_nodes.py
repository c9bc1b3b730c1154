"""What travels has the form that software of an earlier version reads, unless it says what that does not know."""

import json

import pytest
from pydantic import ValidationError

from shared.contracts.analysis import Smear
from shared.contracts.ontology import CellClass
from shared.contracts.privacy import Privacy, PrivacyKind
from shared.contracts.training import EvaluateRequest, Masking, Recipe, TensorForm, TrainRequest
from tests.factories import make_smear

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


@pytest.mark.parametrize("form", list(TensorForm))
def test_round_names_its_tensors_form_only_where_it_is_not_fp16(form: TensorForm) -> None:
    request = TrainRequest(
        run_key="run", round=1, rounds=2, base_sha256="0" * 64, recipe=RECIPE, participants=2, form=form
    )
    text = request.model_dump_json(by_alias=True)
    told = {"form"} if form is TensorForm.PACKED else set()
    assert set(json.loads(text)) == KNOWN | {"round", "rounds", "privacy"} | told
    assert TrainRequest.model_validate_json(text) == request


def test_masked_round_travels_as_fp16_only() -> None:
    with pytest.raises(ValidationError, match="form of its own"):
        TrainRequest(
            run_key="run", round=1, rounds=2, base_sha256="0" * 64, recipe=RECIPE, participants=2,
            form=TensorForm.PACKED, masking=Masking(exchange="0" * 32, shares=()),
        )  # fmt: skip


def test_smear_names_limits_only_where_there_are_any() -> None:
    older = make_smear()
    text = older.model_dump_json(by_alias=True)
    assert "limits" not in json.loads(text)
    assert Smear.model_validate_json(text) == older
    newer = older.model_copy(update={"limits": {CellClass.LYMPHOCYTE: (15.0, 45.0)}})
    text = newer.model_dump_json(by_alias=True)
    assert json.loads(text)["limits"] == {"lymphocyte": [15.0, 45.0]}
    assert Smear.model_validate_json(text) == newer
