"""Where the hospital's rules on a class's share fire, with each case; cases from before tell of none."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_class_limits"
down_revision: str | None = "20261130_asked"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("smear_case", schema=None) as batch_op:
        batch_op.add_column(sa.Column("limits", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("smear_case", schema=None) as batch_op:
        batch_op.drop_column("limits")
