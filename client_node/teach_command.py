"""The work of `teach`: classes added by examples, listed and taken back."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from client_node.analysis.model import current_model_dir, load_model
from client_node.analysis.prototypes import Lessons
from client_node.explain_command import named_class
from client_node.home import NodeHome
from shared.contracts.ontology import CellClass
from shared.progress import progress


class TaughtClass(BaseModel):
    """A class that the site has taught, as the model in use sees it."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    cls: CellClass = Field(alias="class")
    examples: int
    found: float
    """Share of the examples recognised with each left out in turn."""
    strangers: float
    """Share of the site's labelled cells of other classes that would be called so."""
    problem: str | None
    """Why it is not used with this model."""


class TeachOutput(BaseModel):
    """The JSON of `teach`."""

    model_config = ConfigDict(frozen=True)

    model_version: str | None
    classes: tuple[TaughtClass, ...]
    left_out: tuple[str, ...] = ()
    """Images that could not be used, and why."""

    def text(self) -> str:
        """Return what a person reads."""
        lines = [
            f"{one.cls.value}: {one.examples} examples, {one.found:.0%} of them recognised when left out, "
            f"{one.strangers:.1%} of other labelled cells; {one.problem or 'provisional'}"
            for one in self.classes
        ]
        lines += [f"  left out {line}" for line in self.left_out]
        return "\n".join(lines) or "Nothing is taught here."


def teach_class(home: NodeHome, name: str, images: list[Path]) -> TeachOutput:
    """Teach a class; see `prototypes.Lessons.teach` for the errors."""
    cls, lessons = named_class(name), Lessons(home.path)
    model = load_model(current_model_dir(home.path))
    with progress("Comparing") as reporter:
        _, left_out = lessons.teach(cls, images, model, progress=reporter)
    return list_classes(home).model_copy(update={"left_out": tuple(left_out)})


def forget_class(home: NodeHome, name: str) -> TeachOutput:
    """Take a class back."""
    Lessons(home.path).forget(named_class(name))
    return list_classes(home)


def list_classes(home: NodeHome) -> TeachOutput:
    """Return what was taught, as the model in use sees it."""
    lessons = Lessons(home.path)
    known = lessons.classes()
    if not known:
        return TeachOutput(model_version=None, classes=())
    model = load_model(current_model_dir(home.path))
    with progress("Comparing") as reporter:
        prototypes = {one.cls: one for one in lessons.prototypes(model, progress=reporter)}
    return TeachOutput(
        model_version=model.card.version,
        classes=tuple(
            TaughtClass(
                cls=cls, examples=len(examples.images), found=prototypes[cls].found,
                strangers=prototypes[cls].strangers, problem=prototypes[cls].problem,
            )
            for cls, examples in known.items()
        ),
    )  # fmt: skip
