"""All SQL about runs."""

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session, col, select

from server.federation.states import RunState, SiteState
from server.models.federation import CensusRecord, DryRun, RoundRecord, Run, RunEvent, RunSchedule, SiteRound
from server.models.hospitals import Node
from shared.contracts.enrolment import EnrolmentState, NodeMode


def add(session: Session, row: Run | RoundRecord | SiteRound | RunEvent | DryRun | RunSchedule) -> None:
    """Insert a row."""
    session.add(row)
    session.flush()


def get(session: Session, run_id: str) -> Run | None:
    """Return a run by its key."""
    return session.get(Run, run_id)


def newest(session: Session, limit: int) -> Sequence[Run]:
    """Return the newest runs first."""
    return session.exec(select(Run).order_by(col(Run.created_at).desc()).limit(limit)).all()


def active(session: Session) -> Sequence[Run]:
    """Return runs in which something happens or will by itself."""
    states = [state for state in RunState if state.active]
    return session.exec(select(Run).where(col(Run.state).in_(states)).order_by(col(Run.created_at))).all()


def rounds(session: Session, run_id: str) -> Sequence[RoundRecord]:
    """Return a run's rounds in order."""
    return session.exec(select(RoundRecord).where(RoundRecord.run_id == run_id).order_by(col(RoundRecord.round))).all()


def rounds_done(session: Session, run_ids: Sequence[str]) -> dict[str, tuple[int, float | None]]:
    """Return, per run, how many rounds have left a model and the accuracy of the last of them."""
    rows = session.exec(
        select(RoundRecord)
        .where(col(RoundRecord.run_id).in_(run_ids), col(RoundRecord.whole))
        .order_by(col(RoundRecord.round))
    ).all()
    done: dict[str, tuple[int, float | None]] = {}
    for row in rows:
        done[row.run_id] = (done.get(row.run_id, (0, None))[0] + 1, row.accuracy)
    return done


def get_round(session: Session, run_id: str, number: int) -> RoundRecord | None:
    """Return one round of a run."""
    return session.get(RoundRecord, (run_id, number))


def site_rounds(session: Session, run_id: str) -> Sequence[SiteRound]:
    """Return every hospital's part in every round of a run."""
    return session.exec(
        select(SiteRound).where(SiteRound.run_id == run_id).order_by(col(SiteRound.round), col(SiteRound.hospital_id))
    ).all()


def get_site_round(session: Session, run_id: str, number: int, hospital_id: str) -> SiteRound | None:
    """Return one hospital's part in a round."""
    return session.get(SiteRound, (run_id, number, hospital_id))


def examples(session: Session, run_id: str) -> dict[str, int]:
    """Return, per hospital, how many training cells its last reply used."""
    return {row.hospital_id: row.examples for row in site_rounds(session, run_id) if row.examples is not None}


def events(session: Session, run_id: str, after_id: int, limit: int) -> Sequence[RunEvent]:
    """Return the log book after a line."""
    return session.exec(
        select(RunEvent)
        .where(RunEvent.run_id == run_id, col(RunEvent.id) > after_id)
        .order_by(col(RunEvent.id))
        .limit(limit)
    ).all()


def past_site_rounds(session: Session, limit: int) -> Sequence[tuple[SiteRound, RoundRecord, Run]]:
    """Return what hospitals did in the newest rounds that ended, newest first."""
    statement = (
        select(SiteRound, RoundRecord, Run)
        .join(RoundRecord, (col(RoundRecord.run_id) == SiteRound.run_id) & (col(RoundRecord.round) == SiteRound.round))
        .join(Run, col(Run.id) == SiteRound.run_id)
        .where(SiteRound.state == SiteState.REPLIED, col(RoundRecord.ended_at).is_not(None))
        .order_by(col(RoundRecord.started_at).desc())
        .limit(limit)
    )
    return session.exec(statement).all()


def last_completed(session: Session) -> Run | None:
    """Return the newest run that came to a model."""
    return session.exec(
        select(Run).where(Run.state == RunState.COMPLETED).order_by(col(Run.created_at).desc()).limit(1)
    ).first()


def schedules(session: Session) -> Sequence[RunSchedule]:
    """Return every schedule, the oldest first."""
    return session.exec(select(RunSchedule).order_by(col(RunSchedule.created_at))).all()


def schedule(session: Session, schedule_id: str) -> RunSchedule | None:
    """Return a schedule by its key."""
    return session.get(RunSchedule, schedule_id)


def remove(session: Session, row: RunSchedule) -> None:
    """Delete a row."""
    session.delete(row)
    session.flush()


def dry_run(session: Session, dry_run_id: str) -> DryRun | None:
    """Return a dry run by its key."""
    return session.get(DryRun, dry_run_id)


def newest_dry_run(session: Session) -> DryRun | None:
    """Return the newest dry run."""
    return session.exec(select(DryRun).order_by(col(DryRun.created_at).desc()).limit(1)).first()


def open_dry_runs(session: Session) -> Sequence[DryRun]:
    """Return dry runs that have not ended."""
    return session.exec(select(DryRun).where(col(DryRun.ended_at).is_(None))).all()


def censuses(session: Session) -> Sequence[CensusRecord]:
    """Return the latest census of every hospital."""
    return session.exec(select(CensusRecord).order_by(col(CensusRecord.hospital_id))).all()


def put_census(session: Session, record: CensusRecord) -> None:
    """Replace a hospital's census."""
    session.merge(record)
    session.flush()


def training_nodes(session: Session) -> Sequence[Node]:
    """Return the approved training nodes."""
    return session.exec(
        select(Node)
        .where(Node.state == EnrolmentState.APPROVED, Node.mode == NodeMode.TRAINING)
        .order_by(col(Node.hospital_id))
    ).all()


def unwelcome_nodes(session: Session) -> Sequence[Node]:
    """Return nodes that the SuperLink still knows though they are not approved any more."""
    return session.exec(
        select(Node).where(Node.state != EnrolmentState.APPROVED, col(Node.flower_node_id).is_not(None))
    ).all()


def keep_presence(session: Session, online: set[str], now: datetime) -> list[str]:
    """Keep since when the SuperLink hears nothing of each registered node; return those that it lost just now."""
    lost = []
    for node in training_nodes(session):
        if node.flower_node_id is None or node.flower_node_id in online:
            node.lost_at = None
        elif node.lost_at is None:
            node.lost_at = now
            lost.append(node.id)
    session.flush()
    return lost


def set_flower_id(session: Session, node_id: str, flower_id: str | None) -> None:
    """Keep under which id the SuperLink knows a node."""
    node = session.get(Node, node_id)
    if node is not None:
        node.flower_node_id = flower_id
        session.flush()
