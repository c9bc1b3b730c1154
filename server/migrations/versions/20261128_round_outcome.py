"""Whether a round left a model, and what noise at the centre has spent with it."""

import sqlalchemy as sa
from alembic import op

revision = "20261128_round_outcome"
down_revision: str | None = "20261127_own_model"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; a round from before left a model where as many hospitals as it needed replied."""
    with op.batch_alter_table("round_record") as table:
        table.add_column(sa.Column("whole", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("epsilon", sa.Float(), nullable=True))
    with op.batch_alter_table("round_record") as table:
        table.alter_column("whole", server_default=None)
    record = sa.table("round_record", *map(sa.column, ("run_id", "ended_at", "replied", "sampled")), sa.column("whole"))
    run = sa.table("federated_run", sa.column("id"), sa.column("min_sites"))
    needed = sa.select(run.c.min_sites).where(run.c.id == record.c.run_id).scalar_subquery()
    least = sa.case((needed < record.c.sampled, needed), else_=record.c.sampled)
    enough = record.c.ended_at.is_not(None) & (record.c.replied >= least) & (record.c.replied > 0)
    op.execute(sa.update(record).values(whole=sa.true()).where(enough))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("round_record") as table:
        table.drop_column("epsilon")
        table.drop_column("whole")
