"""All SQL about model versions."""

from collections.abc import Collection, Sequence

from sqlalchemy import func
from sqlmodel import Session, col, select

from server.models.hospitals import Node
from server.models.registry import ModelSite, ModelVersion, NodeModel
from server.registry.states import ModelState


def add(session: Session, row: ModelVersion | ModelSite | NodeModel) -> None:
    """Insert a row."""
    session.add(row)
    session.flush()


def get(session: Session, version: str) -> ModelVersion | None:
    """Return a version."""
    return session.get(ModelVersion, version)


def newest(session: Session) -> Sequence[ModelVersion]:
    """Return the newest versions first."""
    return session.exec(select(ModelVersion).order_by(col(ModelVersion.created_at).desc())).all()


def current(session: Session, *, lock: bool = False) -> ModelVersion | None:
    """Return the version in use; with ``lock`` guarded against another promotion where the database can."""
    query = select(ModelVersion).where(ModelVersion.state == ModelState.CURRENT)
    return session.exec(query.with_for_update() if lock else query).first()


def promoted_before(session: Session, version: ModelVersion) -> ModelVersion | None:
    """Return the newest version that is older than ``version`` and was in use once."""
    return session.exec(
        select(ModelVersion)
        .where(
            ModelVersion.state == ModelState.RETIRED,
            col(ModelVersion.promoted_at).is_not(None),
            col(ModelVersion.created_at) < version.created_at,
        )
        .order_by(col(ModelVersion.created_at).desc())
    ).first()


def sites(session: Session, versions: Collection[str]) -> dict[str, list[ModelSite]]:
    """Return, per version, its line of the cross-site matrix, hospital by hospital."""
    found: dict[str, list[ModelSite]] = {version: [] for version in versions}
    query = select(ModelSite).where(col(ModelSite.version).in_(versions)).order_by(col(ModelSite.hospital_id))
    for row in session.exec(query):
        found[row.version].append(row)
    return found


def last_decisions(session: Session) -> dict[str, NodeModel]:
    """Return, per node, what it last did with a model."""
    newest = select(func.max(NodeModel.id)).group_by(col(NodeModel.node_id))
    rows = session.exec(select(NodeModel).where(col(NodeModel.id).in_(newest))).all()
    return {row.node_id: row for row in rows}


def decisions(session: Session, versions: Collection[str]) -> dict[str, list[tuple[NodeModel, str]]]:
    """Return, per version, what nodes did with it, newest first, each with its hospital."""
    found: dict[str, list[tuple[NodeModel, str]]] = {version: [] for version in versions}
    query = (
        select(NodeModel, Node.hospital_id)
        .join(Node, col(Node.id) == col(NodeModel.node_id))
        .where(col(NodeModel.version).in_(versions))
        .order_by(col(NodeModel.id).desc())
    )
    for row, hospital_id in session.exec(query):
        found[row.version].append((row, hospital_id))
    return found
