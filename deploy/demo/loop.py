"""The loop: learn together, read a flagged smear remotely, bring its report and the corrected label home.

Each stage is one function over `Stage`, goes through the interfaces that people use, and raises where it did not work.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import Origin
from client_node.datasets.splits import Split
from deploy.demo.hospital import DemoHospital
from deploy.demo.people import CASE_ID, Person
from deploy.demo.platform import Platform
from deploy.demo.result import (
    CaseCounts,
    FederationResult,
    FeedbackResult,
    FlagCheck,
    ModelResult,
    ReportResult,
    RoundResult,
    SiteResult,
)  # fmt: skip
from deploy.demo.truth import check_flags
from deploy.demo.waiting import wait_for
from server.federation.recipe import SMALL
from shared.contracts.errors import HematovisionError, RunFailedError
from shared.contracts.ontology import CellClass, rolled_up

_REPORT_MINUTES = 3


@dataclass
class Correction:
    """The class that the reader changed."""

    case_id: str
    cell_id: str
    label: CellClass


@dataclass
class Loop:
    """One pass; what a stage finds out the later ones use."""

    platform: Platform
    hospitals: list[DemoHospital]
    seconds: dict[str, float] = field(default_factory=dict)
    cases: list[str] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show and time one stage."""
        self.platform.say(name)
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)

    def federate(self, coordinator: Person, *, rounds: int) -> FederationResult:
        """Launch a run from the rounds page; every round must be on the page before the next one starts."""
        census = coordinator.page("/rounds")
        absent = [h.data.name for h in self.hospitals if h.data.name not in census]
        if absent:
            raise RunFailedError(f"The census before launch does not show {', '.join(absent)}.")
        view = self.run(coordinator, rounds=rounds)
        version = view["model_version"]
        model = coordinator.json(f"/models/{version}.json")
        return FederationResult(
            run_id=view["id"],
            status=view["state"],
            rounds=[RoundResult.model_validate(line) for line in view["round_views"]],
            per_site={site: SiteResult.model_validate(figures) for site, figures in view["per_site"].items()},
            model=ModelResult(version=version, sha256=model["sha256"], signature=model["signature"]),
        )

    def run(self, coordinator: Person, *, rounds: int) -> dict[str, Any]:
        """Launch a run and return its view once it is over."""
        small = {name: str(value) for name, value in SMALL.items()}  # to be over in minutes on two cores
        answer = coordinator.submit("/rounds", rounds=str(rounds), min_sites=str(len(self.hospitals)), **small)
        run_id = answer.url.path.rstrip("/").rsplit("/", 1)[-1]
        seen: dict[int, float] = {}

        def look() -> dict[str, Any] | None:
            view: dict[str, Any] = coordinator.json(f"/rounds/{run_id}.json")
            for line in view["round_views"]:
                if line["ended_at"] and line["round"] not in seen:
                    seen[line["round"]] = time.time()
                    sites = f"{line['replied']} of {line['sampled']} hospitals"
                    self.platform.say(f"round {line['round']} of {rounds}: {sites}, {line['seconds']:.0f} s")
            return view if view["state"] in {"completed", "failed", "stopped"} else None

        view = wait_for(look, what="The federated run", timeout=1800, every=0.3, alive=self.platform.check)
        if view["state"] != "completed":
            raise RunFailedError(f"The run ended as {view['state']}: {view['problem'] or 'see its log book'}")
        self.check_live(view, seen)
        return view

    def check_live(self, view: dict[str, Any], seen: dict[int, float]) -> None:
        """Fail unless each round was seen on the page before the next one started."""
        for line in view["round_views"][1:]:
            started = datetime.fromisoformat(line["started_at"]).timestamp()
            if seen[line["round"] - 1] > started:
                raise RunFailedError(f"Round {line['round']} had started before its predecessor was on the page.")

    def promote(self, coordinator: Person, version: str) -> None:
        """Promote the candidate on its page and wait until every node has verified, tried and installed it."""
        coordinator.submit(f"/models/{version}/promote")

        def installed() -> bool:
            nodes = coordinator.json(f"/models/{version}.json")["nodes"]
            done = {node["hospital_id"]: node for node in nodes}
            held = [f"{n['hospital_name']}: {n['reason']}" for n in nodes if n["decision"] != "installed"]
            if held:
                raise HematovisionError(f"A hospital did not install the model: {'; '.join(held)}")
            return len(done) == len(self.hospitals)

        wait_for(installed, what="The installation at every hospital", timeout=180, alive=self.platform.check)

    def analyse(self) -> list[FlagCheck]:
        """Analyse every pseudo-smear at its hospital, two hospitals at a time; check the flags against the truth."""

        def at(hospital: DemoHospital) -> list[FlagCheck]:
            checks = []
            for smear in hospital.smears:
                found = hospital.analyse(smear)
                checks += check_flags(found, name=smear.folder.name, truth=smear.truth)
            return checks

        with ThreadPoolExecutor(max_workers=2) as pool:
            checks = [check for found in pool.map(at, self.hospitals) for check in found]
        if not any(check.supported for check in checks):
            raise HematovisionError("No smear was flagged by a morphological rule that the truth supports.")
        return checks

    def flagged(self) -> int:
        """How many smears a morphological rule flagged."""
        return sum(
            any(flag.kind == "morphology" for flag in smear.flags)
            for hospital in self.hospitals
            for smear in hospital.analysed.values()
        )

    def exchange(self, reader: Person) -> None:
        """Wait until every flagged smear stands in the worklist as a case."""
        expected = self.flagged()

        def look() -> list[str] | None:
            found = sorted(set(CASE_ID.findall(reader.page("/worklist"))))
            return found if len(found) >= expected else None

        self.cases = wait_for(look, what="The arrival of every case", timeout=120, alive=self.platform.check)

    def read(self, reader: Person) -> None:
        """Claim every case, look at gallery and fields, change one class in each, accept the rest, and sign."""
        for case_id in self.cases:
            reader.submit(f"/cases/{case_id}/claim")
            reader.page(f"/cases/{case_id}")
            case = reader.json(f"/cases/{case_id}.json")
            for blob in [cell["blob"] for cell in case["cells"][:8]] + [one["blob"] for one in case["fields"][:2]]:
                if not reader.bytes(f"/cases/{case_id}/blobs/{blob}"):
                    raise HematovisionError(f"{case_id}: an image of the case came back empty.")
            cell = next(c for c in case["cells"] if CellClass(c["current_class"]).info.counts)
            label = self._second_thought(cell)
            reader.reclassify(case_id, cell_id=cell["cell_id"], label=label.value)
            self.corrections.append(Correction(case_id, cell["cell_id"], label))
            reader.look_through(case_id)
            reader.sign(case_id, impression="Read for the demonstration; one class changed by the reader.")

    @staticmethod
    def _second_thought(cell: dict[str, Any]) -> CellClass:
        """The next class of the prediction set, or else a plain neighbour."""
        now = CellClass(cell["current_class"])
        others = [CellClass(c) for c in cell["prediction_set"] if CellClass(c) is not now]
        fallback = CellClass.MONOCYTE if rolled_up(now) is CellClass.LYMPHOCYTE else CellClass.LYMPHOCYTE
        return others[0] if others else fallback

    def come_home(self, reader: Person) -> tuple[CaseCounts, ReportResult]:
        """Wait until every report is rendered, fetched, identified and acknowledged, and its case closed."""

        def closed() -> list[dict[str, Any]] | None:
            reports: list[dict[str, Any]] = reader.json("/reports.json")
            done = [r for r in reports if r["acknowledged_at"] and r["case_id"] in self.cases]
            return done if len(done) == len(self.cases) else None

        reports = wait_for(
            closed, what="The return of every report", timeout=60 * _REPORT_MINUTES, alive=self.platform.check
        )
        counts = CaseCounts(
            analysed=sum(len(hospital.analysed) for hospital in self.hospitals),
            flagged=self.flagged(),
            uploaded=sum(h.call("ledger")["totals"]["cases"] for h in self.hospitals),
            received=len(self.cases),
            signed=len(reports),
            delivered=sum(bool(r["delivered_at"]) for r in reports),
            acknowledged=sum(bool(r["acknowledged_at"]) for r in reports),
            feedback_labels=sum(r["labels_joined"] or 0 for r in reports),
        )
        first = next(r for r in reports if r["case_id"] == self.corrections[0].case_id)
        return counts, self._hospital_copy(first)

    def _hospital_copy(self, report: dict[str, Any]) -> ReportResult:
        hospital = next(h for h in self.hospitals if h.id == report["hospital_id"])
        folder = hospital.home / "reports" / f"{report['id']}-v{report['version']}" / "hospital"
        (pdf,) = sorted(folder.glob("*.pdf"))
        return ReportResult(path=str(pdf), pages=report["pages"], sha256=sha256(pdf.read_bytes()).hexdigest())

    def learn_from_feedback(self, coordinator: Person) -> FeedbackResult:
        """Run one more round and find the corrected cell in that round's training manifest at its hospital."""
        hospital, cell_hash, label = self._feedback_cell()
        view = self.run(coordinator, rounds=1)
        manifest = hospital.manifest(view["id"], 1)
        if cell_hash not in manifest.cells:
            raise HematovisionError("The corrected cell is not in the next round's training manifest.")
        return FeedbackResult(
            hospital=hospital.id,
            cell_hash=cell_hash,
            label=label,
            run_id=view["id"],
            manifest=str(hospital.manifest_path(view["id"], 1)),
        )

    def _feedback_cell(self) -> tuple[DemoHospital, str, CellClass]:
        wanted = {correction.label for correction in self.corrections}
        for hospital in self.hospitals:
            for cell in Catalogue(hospital.home).cells(split=Split.TRAIN):
                if cell.origin is Origin.FEEDBACK and cell.cls in wanted:
                    return hospital, cell.hash, cell.cls
        raise HematovisionError("No corrected label came back into any catalogue.")


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
