"""Resuming, pausing and scheduling of runs; a hospital's own tolerance at the gate; silent nodes."""

import sqlalchemy as sa
from alembic import op

revision = "20261126_control"
down_revision: str | None = "20261126_dry_run"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("federated_run", schema=None) as batch_op:
        batch_op.add_column(sa.Column("past_flower_runs", sa.JSON(), nullable=False, server_default=sa.text("'[]'")))
        batch_op.add_column(sa.Column("resumes", sa.Integer(), nullable=False, server_default=sa.text("0")))
        batch_op.add_column(sa.Column("plan", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))
        batch_op.add_column(sa.Column("feedback", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))
        batch_op.add_column(sa.Column("pause_requested", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("hospital", schema=None) as batch_op:
        batch_op.add_column(sa.Column("gate_tolerance", sa.Float(), nullable=True))
    with op.batch_alter_table("node", schema=None) as batch_op:
        batch_op.add_column(sa.Column("lost_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "run_schedule",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("weekday", sa.Integer(), nullable=True),
        sa.Column("minute", sa.Integer(), nullable=False),
        sa.Column("least_labels", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("considered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("run_schedule")
    with op.batch_alter_table("node", schema=None) as batch_op:
        batch_op.drop_column("lost_at")
    with op.batch_alter_table("hospital", schema=None) as batch_op:
        batch_op.drop_column("gate_tolerance")
    with op.batch_alter_table("federated_run", schema=None) as batch_op:
        for name in ("pause_requested", "feedback", "plan", "resumes", "past_flower_runs"):
            batch_op.drop_column(name)
