"""Parameters of a run's strategy; runs from before have the defaults of theirs."""

import sqlalchemy as sa
from alembic import op

revision = "20261125_strategy"
down_revision: str | None = "20261123"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("federated_run", schema=None) as batch_op:
        batch_op.add_column(sa.Column("strategy_parameters", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("federated_run", schema=None) as batch_op:
        batch_op.drop_column("strategy_parameters")
