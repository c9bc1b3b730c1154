"""A signature whose answer was lost is known again: what was asked under which key stands beside its report."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_asked"
down_revision: str | None = "20261129_worklist"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("report", schema=None) as batch_op:
        batch_op.add_column(sa.Column("asked", sa.String(), nullable=True))


def downgrade() -> None:
    """Undo."""
    with op.batch_alter_table("report", schema=None) as batch_op:
        batch_op.drop_column("asked")
