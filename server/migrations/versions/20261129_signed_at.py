"""When cases were signed is looked for by time: turn-around."""

from alembic import op

revision = "20261129_signed_at"
down_revision: str | None = "20261129_findings"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("smear_case", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_smear_case_signed_at"), ["signed_at"], unique=False)


def downgrade() -> None:
    """Undo."""
    with op.batch_alter_table("smear_case", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_smear_case_signed_at"))
