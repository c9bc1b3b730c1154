"""One hospital of the demonstration: its IT person at the command line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client_node.datasets.catalogue import Catalogue
from deploy.demo.commands import Command
from deploy.demo.partition import HospitalData, write_import_folder
from deploy.demo.smears import PseudoSmear, make_smears
from shared.contracts.analysis import AnalysisOutput, ImportOutput, Smear
from shared.contracts.training import TrainingManifest


@dataclass
class DemoHospital:
    """A hospital, its data and its node's home folder."""

    data: HospitalData
    home: Path
    command: Command
    smears: list[PseudoSmear] = field(default_factory=list)
    analysed: dict[str, Smear] = field(default_factory=dict)
    """Name of the smear's folder → what the node said."""

    @property
    def id(self) -> str:
        """The hospital's identifier."""
        return self.data.id

    def call(self, verb: str, *arguments: str) -> Any:  # Any: parsed JSON
        """Call ``hematovision-node`` on this home."""
        return self.command.json(verb, *arguments, "--home", str(self.home))

    def init(self, kit: Path) -> tuple[str, str]:
        """Join with a kit; return the node's id and the fingerprint it shows."""
        said = self.call("init", "--kit", str(kit))
        return said["node_id"], said["fingerprint"]

    def take_in(self, data: Path, work: Path) -> ImportOutput:
        """Import the hospital's labelled images and lay out its pseudo-smears."""
        folder = write_import_folder(self.data, data=data, out=work / self.id / "data")
        self.smears = make_smears(self.data, data=data, out=work / self.id / "smears")
        return ImportOutput.model_validate(self.call("import", str(folder), "--format", "csv"))

    def analyse(self, smear: PseudoSmear) -> Smear:
        """Analyse one smear and let it go out if a morphological rule flags it."""
        said = self.call("analyze", str(smear.folder), "--send", "--context", str(smear.context))
        (found,) = AnalysisOutput.model_validate({"smears": said["smears"]}).smears
        self.analysed[smear.folder.name] = found
        return found

    def train_cells(self) -> int:
        """Return how many labelled cells the catalogue trains on."""
        return sum(row.train for row in Catalogue(self.home).census().rows)

    def manifest(self, run_id: str, number: int) -> TrainingManifest:
        """Return what a round trained on; it stands on the node only."""
        path = self.manifest_path(run_id, number)
        return TrainingManifest.model_validate_json(path.read_bytes())

    def manifest_path(self, run_id: str, number: int) -> Path:
        """Return where a round's training manifest stands."""
        return self.home / "training" / "manifests" / f"{run_id}-r{number}.json"
