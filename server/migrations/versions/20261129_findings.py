"""Findings beside the differential, kept phrases, amendments, a hospital's contact and reference intervals."""

import sqlalchemy as sa
from alembic import op

revision = "20261129_findings"
down_revision: str | None = "20261129_opinions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "finding_change",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("case_id", sa.String(), nullable=False),
        sa.Column("item", sa.String(), nullable=False),
        sa.Column("value", sa.JSON(), nullable=True),
        sa.Column("previous", sa.JSON(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("refers_to", sa.String(), nullable=True),
        sa.Column("undone", sa.Boolean(), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["by"], ["user_account.id"]),
        sa.ForeignKeyConstraint(["case_id"], ["smear_case.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("idempotency_key"),
    )
    op.create_index(op.f("ix_finding_change_case_id"), "finding_change", ["case_id"])
    op.create_table(
        "phrase",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("place", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user_account.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_phrase_user_id"), "phrase", ["user_id"])
    with op.batch_alter_table("smear_case") as table:
        table.add_column(sa.Column("amending", sa.JSON(), nullable=True))
    with op.batch_alter_table("hospital") as table:
        table.add_column(sa.Column("contact", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))
        table.add_column(sa.Column("blood_limits", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))
    with op.batch_alter_table("hospital") as table:
        table.alter_column("contact", server_default=None)
        table.alter_column("blood_limits", server_default=None)


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("smear_case") as batch:
        batch.drop_column("amending")
    with op.batch_alter_table("hospital") as batch:
        batch.drop_column("blood_limits")
        batch.drop_column("contact")
    op.drop_table("phrase")
    op.drop_table("finding_change")
