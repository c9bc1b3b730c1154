"""Second factor, recovery codes, invitations, steps of signing in, failures by address."""

import sqlalchemy as sa
from alembic import op

revision = "20261128_accounts"
down_revision: str | None = "20261128_round_outcome"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("user_account") as table:
        table.add_column(sa.Column("email", sa.String(), nullable=True))
        table.add_column(sa.Column("last_sign_in_at", sa.DateTime(timezone=True), nullable=True))
        table.add_column(sa.Column("totp_sealed", sa.String(), nullable=True))
        table.add_column(sa.Column("totp_pending", sa.String(), nullable=True))
        table.add_column(sa.Column("totp_step", sa.Integer(), nullable=True))
        table.add_column(sa.Column("totp_since", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("user_session") as table:
        table.add_column(sa.Column("user_agent", sa.String(), nullable=False, server_default=""))
    with op.batch_alter_table("user_session") as table:
        table.alter_column("user_agent", server_default=None)
    op.create_table(
        "sign_in_step",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user_account.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_sign_in_step_user_id"), "sign_in_step", ["user_id"])
    op.create_table(
        "recovery_code",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("code_sha256", sa.String(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["user_account.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_recovery_code_user_id"), "recovery_code", ["user_id"])
    op.create_table(
        "invitation",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("token_sha256", sa.String(), nullable=False),
        sa.Column("display_name", sa.String(), nullable=False),
        sa.Column("role", sa.String(length=40), nullable=False),
        sa.Column("hospital_id", sa.String(), nullable=True),
        sa.Column("email", sa.String(), nullable=True),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["hospital_id"], ["hospital.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_invitation_token_sha256"), "invitation", ["token_sha256"], unique=True)
    op.create_table(
        "failed_sign_in",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_failed_sign_in_address"), "failed_sign_in", ["address"])


def downgrade() -> None:
    """Take back."""
    for table in ("failed_sign_in", "invitation", "recovery_code", "sign_in_step"):
        op.drop_table(table)
    with op.batch_alter_table("user_session") as batch:
        batch.drop_column("user_agent")
    with op.batch_alter_table("user_account") as batch:
        for name in ("totp_since", "totp_step", "totp_pending", "totp_sealed", "last_sign_in_at", "email"):
            batch.drop_column(name)
