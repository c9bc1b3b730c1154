"""Cases that are read blind, second opinions, and weeks of figures, for pictures and tests of their pages."""

import io
import random
from datetime import timedelta

import numpy as np
from PIL import Image

from client_node.analysis.explain import SIDE
from client_node.analysis.explain import drawn as overlay
from server.cases import service as cases
from server.insights import measures
from server.models import Case, CaseMeasure
from server.models.base import utc_now
from server.reviews import opinions, second_opinions
from shared.contracts.case import OVERLAY_PREFIX, CaseState, Priority
from shared.contracts.ontology import CellClass
from tests.portal.drawn import DrawnSmear, send_case
from tests.portal.factories import SITES, Network

WEEKS = 11
STAINS = {"a": "May-Grünwald-Giemsa", "b": "Wright", "c": "May-Grünwald-Giemsa"}
PAIRS = (
    ("neutrophil", "neutrophil", 112), ("neutrophil", "immature_granulocyte", 3), ("lymphocyte", "lymphocyte", 46),
    ("lymphocyte", "variant_lymphocyte", 2), ("monocyte", "monocyte", 15), ("monocyte", "lymphocyte", 1),
    ("eosinophil", "eosinophil", 7), ("basophil", "basophil", 1), ("immature_granulocyte", "immature_granulocyte", 4),
    ("immature_granulocyte", "monocyte", 1), ("immature_granulocyte", "blast", 1),
)  # fmt: skip


def with_overlays(drawn: DrawnSmear) -> DrawnSmear:
    """Return a smear whose doubtful cells bring what the model saw in them, as a node sends it."""
    images = dict(drawn.images)
    for cell in drawn.smear.cells:
        if cell.doubtful:
            with Image.open(io.BytesIO(images[f"cell-{cell.id}.png"])) as opened:
                crop = np.asarray(opened.convert("RGB").resize((SIDE, SIDE)))
            rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
            heat = np.exp(-((rows + 0.08) ** 2 + (columns - 0.05) ** 2) / 0.02).astype(np.float32)
            out = io.BytesIO()
            Image.fromarray(overlay(crop, heat)).save(out, "PNG")
            images[f"{OVERLAY_PREFIX}{cell.id}.png"] = out.getvalue()
    return DrawnSmear(drawn.smear, images)


def blind_case(network: Network, drawn: DrawnSmear, *, minutes_ago: int = 9) -> str:
    """Send a case that is to be read without the AI first."""
    case_id = send_case(network, "b", drawn, priority=Priority.URGENT, minutes_ago=minutes_ago)
    with network.centre.runtime.database.session() as session:
        session.get_one(Case, case_id).blind_drawn = True
    return case_id


def begun_blind(network: Network, case_id: str, *, cells: int = 9) -> None:
    """Have the reader claim a case and classify some cells without the AI."""
    reader, chance = network.people["reader"], random.Random(5)
    names = (CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.NEUTROPHIL, CellClass.MONOCYTE)
    with network.centre.runtime.database.session() as session:
        cases.claim(session, reader, case_id)
        shown = cases.case_view(session, reader, case_id).cells[:cells]
        for cell in shown:
            opinions.classify(
                session, reader, case_id, cell_ids=[cell.cell_id], label=chance.choice(names),
                idempotency_key=f"begun-{cell.cell_id}",
            )  # fmt: skip


def asked_case(network: Network, drawn: DrawnSmear, *, given: bool, of: str | None = "second") -> str:
    """Send a case on which the reader asks for a second opinion, given or not."""
    case_id = send_case(network, "a", drawn, priority=Priority.URGENT, minutes_ago=16)
    reader, second = network.people["reader"], network.people["second"]
    with network.centre.runtime.database.session() as session:
        cases.claim(session, reader, case_id)
        asked = second_opinions.ask(
            session, reader, case_id, of=network.people[of].user_id if of else None,
            question="Are the large cells in field 2 blasts?", hides_ai=False,
        )  # fmt: skip
        if given:
            view = cases.case_view(session, second, case_id)
            doubtful = [cell.cell_id for cell in view.cells if cell.doubtful]
            moved = [*doubtful[:4], view.cells[-1].cell_id]
            for number, cell_id in enumerate(moved):
                label = (CellClass.IMMATURE_GRANULOCYTE, CellClass.MONOCYTE, CellClass.BLAST)[number % 3]
                opinions.classify(
                    session, second, case_id, cell_ids=[cell_id], label=label, idempotency_key=f"{asked}-{number}"
                )
            text = "Left shift with a few immature granulocytes. I would call one cell a blast; the rest is reactive."
            opinions.save(session, second, case_id, text=text, estimate={})
    return case_id


def weeks_of_figures(network: Network, template: str) -> None:
    """Have eleven weeks of signed cases behind the network; their figures, and cases of no cells to hang them on."""
    chance = random.Random(11)
    people = [network.people["reader"].user_id, network.people["second"].user_id]
    now = utc_now()
    with network.centre.runtime.database.session() as session:
        first = session.get_one(Case, template).model_dump()
        for number in range(WEEKS * 12):
            at = now - timedelta(days=7 * WEEKS * (1 - number / (WEEKS * 12)), hours=1)
            hospital = "abc"[number % 3]
            drift = 0.9 if hospital == "b" else 0.0
            scale = chance.uniform(0.6, 1.4)
            table = {
                f"{ai}|{final}": round(count * scale * (1 + drift * number / 60) ** (ai != final) + chance.random())
                for ai, final, count in PAIRS
            }
            cells = sum(table.values())
            renamed = sum(count for key, count in table.items() if len(set(key.split(measures.SEPARATOR))) == 2)
            blind, pace = number % 9 == 4, chance.uniform(0.7, 1.5)
            case = Case.model_validate({**first, "id": f"HV-{number:08d}", "hospital_id": hospital, "received_at": at})
            case.state, case.claimed_by, case.signed_at = CaseState.CLOSED, None, at + timedelta(hours=1)
            session.add(case)
            session.flush()
            session.add(
                CaseMeasure(
                    case_id=case.id, hospital_id=hospital, stain=STAINS[hospital], received_at=at, cells=cells,
                    ood_cells=round(cells * (0.015 + 0.06 * drift * number / 132 + chance.random() * 0.01)),
                    set_sizes=round(cells * (1.08 + 0.2 * drift * number / 132 + chance.random() * 0.04)),
                    signed_at=case.signed_at, reader_id=people[number % 5 == 3], corrected=renamed,
                    added=number % 4 == 0, pairs=table, blind=blind,
                    seconds=cells * 0.62 * pace, keys=round(30 * pace) + renamed, clicks=round(14 * pace),
                    blind_seconds=cells * 0.9 * pace if blind else 0, blind_keys=cells // 2 if blind else 0,
                    blind_labelled=cells // 2 if blind else 0,
                    blind_final={"neutrophil|neutrophil": 52, "lymphocyte|lymphocyte": 21, "monocyte|lymphocyte": 3,
                                 "neutrophil|immature_granulocyte": 4, "monocyte|monocyte": 8} if blind else {},
                    blind_ai={"neutrophil|neutrophil": 52, "lymphocyte|lymphocyte": 19, "lymphocyte|monocyte": 5,
                              "immature_granulocyte|neutrophil": 6, "monocyte|monocyte": 6} if blind else {},
                )
            )  # fmt: skip


def named(network: Network) -> list[str]:
    """Return the hospitals' names, as the pages show them."""
    return [SITES[hospital] for hospital in sorted(network.nodes)]
