"""The candidate as each hospital would run it, in the cross-site matrix."""

import sqlalchemy as sa
from alembic import op

revision = "20261127_own_model"
down_revision: str | None = "20261127_privacy"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("model_site") as table:
        table.add_column(sa.Column("own", sa.JSON(), nullable=True))
        table.add_column(sa.Column("own_parts", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("model_site") as table:
        table.drop_column("own_parts")
        table.drop_column("own")
