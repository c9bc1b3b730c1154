"""The work of `explain` and `references`: a cell of an analysed smear, why it is called so, and what it is like."""

import io
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from client_node.analysis.explain import Explanation, explain, picture
from client_node.analysis.kept import kept_cell
from client_node.analysis.method import Method
from client_node.analysis.model import current_model_dir, load_model
from client_node.analysis.references import Reference, index_of
from client_node.analysis.store import Pixels
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.images import write_atomic
from client_node.home import NodeHome
from shared.contracts.errors import ConfigError, UsageError
from shared.contracts.ontology import CellClass, parse_class
from shared.progress import progress
from shared.space import space_guard
from shared.vision.images import load_image


class ReferencesOutput(BaseModel):
    """The JSON of `references`."""

    model_config = ConfigDict(frozen=True)

    smear_id: str
    cell_id: str
    model_version: str
    references: tuple[Reference, ...]

    def text(self) -> str:
        """Return what a person reads."""
        lines = [f"{self.smear_id} {self.cell_id}, by the model {self.model_version}:"]
        for one in self.references:
            how = "signed" if one.signed else "labelled"
            lines.append(f"  {one.distance:.3f}  {one.cls.value} ({how})  {one.path}")
        return "\n".join(lines)


class ExplainOutput(BaseModel):
    """The JSON of `explain`: the explanation, and the references where they were asked for."""

    model_config = ConfigDict(frozen=True)

    explanation: Explanation
    references: tuple[Reference, ...] | None

    def document(self) -> dict[str, Any]:  # Any: JSON
        """Return the explanation, and ``references`` beside it."""
        document = self.explanation.model_dump(mode="json", by_alias=True)
        if self.references is not None:
            document["references"] = [one.model_dump(mode="json", by_alias=True) for one in self.references]
        return document

    def text(self) -> str:
        """Return what a person reads."""
        found = self.explanation
        lines = [f"{found.cls.value}, probability {found.probability:.2f} (the model says {found.predicted.value})"]
        if found.model_version != found.analysed_with:
            lines.append(f"  by {found.model_version}: {found.analysed_with}, which analysed it, is not here any more")
        if not found.evidence:
            lines.append("  nothing in the cell speaks for it more than for the other classes")
        if found.in_nucleus is not None:
            lines.append(
                f"  {found.in_nucleus:.0%} of the heat on the nucleus, which is {found.nucleus:.0%} of the crop"
            )
        lines += [f"  like {one.cls.value} at {one.distance:.3f}: {one.path}" for one in self.references or ()]
        if found.path is not None:
            lines.append(f"  {found.path}")
        return "\n".join(lines)


def explain_cell(
    home: NodeHome, smear_id: str, cell_id: str, *, cls: str | None, out: Path | None, method: Method, count: int,
    signed: bool = False,
) -> ExplainOutput:  # fmt: skip
    """Explain a kept cell and write the picture to ``out``; ``count`` references go below it (0: none).

    With ``signed`` only cells with a signed label are references.
    """
    wanted = None if cls is None else named_class(cls)
    overlay = explain(home.path, smear_id, cell_id, cls=wanted, method=method)
    found = references_of(home, smear_id, cell_id, count=count, signed=signed) if count else None
    explanation = overlay.explanation
    if out is not None:
        strip = _strip(home, found.references) if found else []
        buffer = io.BytesIO()
        picture(overlay, strip).save(buffer, "PNG")
        try:
            with space_guard(out.parent):
                write_atomic(out, buffer.getvalue())
        except OSError as error:
            raise ConfigError("The picture cannot be written: name another file with --out.") from error
        explanation = explanation.model_copy(update={"path": str(out)})
    return ExplainOutput(explanation=explanation, references=found.references if found else None)


def references_of(home: NodeHome, smear_id: str, cell_id: str, *, count: int, signed: bool = False) -> ReferencesOutput:
    """Return the site's labelled cells that look most like a kept one to the model in use.

    With ``signed`` only those whose label came home with a signed report; see `references.Index.nearest`.
    """
    kept = kept_cell(home.path, smear_id, cell_id)
    model = load_model(current_model_dir(home.path))
    with progress("Reading the catalogue") as reporter:
        index = index_of(home.path, model, progress=reporter)
    (outputs,) = model.outputs([kept.crop(model)])
    (found,) = index.nearest(outputs.features, count, without=kept.hashes, signed=signed)
    return ReferencesOutput(smear_id=smear_id, cell_id=cell_id, model_version=model.card.version, references=found)


def _strip(home: NodeHome, references: tuple[Reference, ...]) -> list[tuple[Pixels, str]]:
    model = load_model(current_model_dir(home.path))
    boxes = {cell.hash: cell.box for cell in Catalogue(home.path).cells()}
    return [
        (model.cut(load_image(Path(one.path)), boxes.get(one.hash)), f"{one.cls.info.mark} {one.distance:.2f}")
        for one in references
    ]


def named_class(name: str) -> CellClass:
    """Return the class of the ontology that a person named; raises `UsageError` if there is none."""
    cls = parse_class(name)
    if cls is None:
        raise UsageError(f"There is no class {name}: use one of {', '.join(one.value for one in CellClass)}.")
    return cls
