"""What every section of the bench stands on: the cells, the models by name, and hospitals that use them."""

from dataclasses import dataclass
from pathlib import Path

from client_node.datasets.labelled import LabelledCell
from tests.bench.model import site
from tests.bench.model.folder import TOLD
from tests.bench.model.stages import Stage, catalogue, cells_of, data_facts, stage_facts, stages
from tests.bench.model.steps import Json, Steps
from tests.bench.model.train import model_of


@dataclass(frozen=True, slots=True)
class Bench:
    """A run of the bench; models are trained when they are first asked for."""

    data: Path
    work: Path
    quick: bool
    steps: Steps

    @property
    def home(self) -> Path:
        """Where the real smears are imported to."""
        return catalogue(self.steps, self.work, self.data)

    def cells(self, source: str, *splits: str) -> list[LabelledCell]:
        """Return a source's labelled cells of some splits."""
        return [cell for split in splits for cell in cells_of(self.home, split, source)]

    def stage(self, name: str) -> Stage:
        """Return a model's stage."""
        return stages(quick=self.quick)[name]

    def model(self, name: str) -> Path:
        """Return the folder of a stage's model, trained now if it is not there."""
        return model_of(self.steps, self.work, self.home, self.data, self.stage(name))

    def at(self, name: str, *sources: str) -> Path:
        """Return the folder of a stage's model at a hospital with the cells of ``sources``, calibrated there."""
        return site.fitted(self.steps, self.home, self.model(name), sources, self.facts(name))

    def facts(self, *names: str) -> Json:
        """Return what the models, and the cells if there is none, depend on."""
        return [stage_facts(self.stage(name), self.data) | {"told": TOLD} for name in names] or data_facts(self.data)
