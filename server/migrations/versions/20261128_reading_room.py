"""The reading room: cells that a reader marks, splits or merges, redo, groups seen, references by consent."""

import sqlalchemy as sa
from alembic import op

revision = "20261128_reading"
down_revision: str | None = "20261128_accounts"
branch_labels = None
depends_on = None

_CELL_READER = "fk_case_cell_added_by_user_account"


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("case_cell", schema=None) as batch_op:
        batch_op.add_column(sa.Column("ai_margin", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("stands", sa.Boolean(), nullable=False, server_default=sa.true()))
        batch_op.add_column(sa.Column("added_by", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("added_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("parents", sa.JSON(), nullable=False, server_default=sa.text("'[]'")))
        batch_op.create_foreign_key(_CELL_READER, "user_account", ["added_by"], ["id"])
    with op.batch_alter_table("case_field", schema=None) as batch_op:
        batch_op.add_column(sa.Column("microns", sa.Float(), nullable=True))
    with op.batch_alter_table("review", schema=None) as batch_op:
        batch_op.add_column(sa.Column("seen", sa.JSON(), nullable=False, server_default=sa.text("'[]'")))
    with op.batch_alter_table("label_change", schema=None) as batch_op:
        batch_op.add_column(sa.Column("kind", sa.String(length=40), nullable=False, server_default="class"))
        batch_op.add_column(sa.Column("stood", sa.Boolean(), nullable=False, server_default=sa.true()))
        batch_op.add_column(sa.Column("stands", sa.Boolean(), nullable=False, server_default=sa.true()))
        batch_op.add_column(sa.Column("refers_to", sa.String(), nullable=True))
    op.execute("UPDATE label_change SET kind = 'undo' WHERE idempotency_key LIKE 'undo:%'")
    with op.batch_alter_table("hospital", schema=None) as batch_op:
        batch_op.add_column(sa.Column("shares_references", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("hospital", schema=None) as batch_op:
        batch_op.drop_column("shares_references")
    with op.batch_alter_table("label_change", schema=None) as batch_op:
        for name in ("refers_to", "stands", "stood", "kind"):
            batch_op.drop_column(name)
    with op.batch_alter_table("review", schema=None) as batch_op:
        batch_op.drop_column("seen")
    with op.batch_alter_table("case_field", schema=None) as batch_op:
        batch_op.drop_column("microns")
    with op.batch_alter_table("case_cell", schema=None) as batch_op:
        batch_op.drop_constraint(_CELL_READER, type_="foreignkey")
        for name in ("parents", "added_at", "added_by", "stands", "ai_margin"):
            batch_op.drop_column(name)
