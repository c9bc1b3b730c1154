"""A run's privacy, and what each hospital's part in it has spent."""

import sqlalchemy as sa
from alembic import op

revision = "20261127_privacy"
down_revision: str | None = "20261126_control"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("federated_run") as table:
        table.add_column(sa.Column("privacy", sa.JSON(), nullable=False, server_default="{}"))
    with op.batch_alter_table("federated_run") as table:
        table.alter_column("privacy", server_default=None)
    with op.batch_alter_table("site_round") as table:
        table.add_column(sa.Column("epsilon", sa.Float(), nullable=True))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("site_round") as table:
        table.drop_column("epsilon")
    with op.batch_alter_table("federated_run") as table:
        table.drop_column("privacy")
