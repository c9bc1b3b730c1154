"""What a run's last round came to, on each hospital's validation cells; runs from before tell of none."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_last_round"
down_revision: str | None = "20261130_class_limits"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("federated_run", schema=None) as batch_op:
        batch_op.add_column(sa.Column("validated", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("federated_run", schema=None) as batch_op:
        batch_op.drop_column("validated")
