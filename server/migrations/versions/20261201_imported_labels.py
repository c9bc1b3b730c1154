"""How many imported labels a run learnt from, for schedules; runs from before tell of none."""

import sqlalchemy as sa
from alembic import op

revision = "20261201_imported_labels"
down_revision: str | None = "20261130_last_round"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("federated_run", schema=None) as batch_op:
        batch_op.add_column(sa.Column("imported", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("federated_run", schema=None) as batch_op:
        batch_op.drop_column("imported")
