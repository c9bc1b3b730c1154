"""Blind first reads, second opinions, what a reading took, and figures for the insights page."""

import sqlalchemy as sa
from alembic import op

revision = "20261129_opinions"
down_revision: str | None = "20261128_reading"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("smear_case") as table:
        table.add_column(sa.Column("blind_drawn", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("blind_read_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("case_cell") as table:
        table.add_column(sa.Column("disputed", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "opinion",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("case_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("reader_id", sa.String(), nullable=True),
        sa.Column("hides_ai", sa.Boolean(), nullable=False),
        sa.Column("asked_by", sa.String(), nullable=True),
        sa.Column("question", sa.String(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("saved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("estimate", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("compared_with", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["smear_case.id"]),
        sa.ForeignKeyConstraint(["reader_id"], ["user_account.id"]),
        sa.ForeignKeyConstraint(["asked_by"], ["user_account.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    for name in ("case_id", "reader_id", "asked_by"):
        op.create_index(op.f(f"ix_opinion_{name}"), "opinion", [name])
    op.create_table(
        "opinion_label",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("opinion_id", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("cell_id", sa.String(), nullable=False),
        sa.Column("previous", sa.String(length=40), nullable=True),
        sa.Column("label", sa.String(length=40), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("refers_to", sa.Integer(), nullable=True),
        sa.Column("idempotency_key", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["opinion_id"], ["opinion.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("idempotency_key"),
    )
    op.create_index(op.f("ix_opinion_label_opinion_id"), "opinion_label", ["opinion_id"])
    op.create_table(
        "reading_activity",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("case_id", sa.String(), nullable=False),
        sa.Column("reader_id", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("keys", sa.Integer(), nullable=False),
        sa.Column("clicks", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["smear_case.id"]),
        sa.ForeignKeyConstraint(["reader_id"], ["user_account.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_reading_activity_case_id"), "reading_activity", ["case_id"])
    op.create_table(
        "case_measure",
        sa.Column("case_id", sa.String(), nullable=False),
        sa.Column("hospital_id", sa.String(), nullable=False),
        sa.Column("stain", sa.String(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cells", sa.Integer(), nullable=False),
        sa.Column("ood_cells", sa.Integer(), nullable=False),
        sa.Column("set_sizes", sa.Integer(), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reader_id", sa.String(), nullable=True),
        sa.Column("corrected", sa.Integer(), nullable=False),
        sa.Column("added", sa.Integer(), nullable=False),
        sa.Column("pairs", sa.JSON(), nullable=False),
        sa.Column("blind_final", sa.JSON(), nullable=False),
        sa.Column("blind_ai", sa.JSON(), nullable=False),
        sa.Column("blind", sa.Boolean(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("keys", sa.Integer(), nullable=False),
        sa.Column("clicks", sa.Integer(), nullable=False),
        sa.Column("blind_seconds", sa.Float(), nullable=False),
        sa.Column("blind_keys", sa.Integer(), nullable=False),
        sa.Column("blind_clicks", sa.Integer(), nullable=False),
        sa.Column("blind_labelled", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["smear_case.id"]),
        sa.ForeignKeyConstraint(["hospital_id"], ["hospital.id"]),
        sa.ForeignKeyConstraint(["reader_id"], ["user_account.id"]),
        sa.PrimaryKeyConstraint("case_id"),
    )
    for name in ("hospital_id", "received_at", "signed_at"):
        op.create_index(op.f(f"ix_case_measure_{name}"), "case_measure", [name])


def downgrade() -> None:
    """Take back."""
    for table in ("case_measure", "reading_activity", "opinion_label", "opinion"):
        op.drop_table(table)
    with op.batch_alter_table("case_cell") as batch:
        batch.drop_column("disputed")
    with op.batch_alter_table("smear_case") as batch:
        batch.drop_column("blind_read_at")
        batch.drop_column("blind_drawn")
