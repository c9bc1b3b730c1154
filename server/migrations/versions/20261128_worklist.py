"""The worklist: who is to read a case, flags as the list filters by them, saved views."""

import json

import sqlalchemy as sa
from alembic import op

revision = "20261128_worklist"
down_revision: str | None = "20261128_reading"
branch_labels = None
depends_on = None

_ASSIGNEE = "fk_smear_case_assigned_to_user_account"
_RANKS = {"critical": 0, "urgent": 1, "routine": 2}


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("smear_case", schema=None) as batch_op:
        batch_op.add_column(sa.Column("assigned_to", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("assigned_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("flag_ids", sa.String(), nullable=False, server_default=" "))
        batch_op.add_column(sa.Column("flag_rank", sa.Integer(), nullable=False, server_default="3"))
        batch_op.create_foreign_key(_ASSIGNEE, "user_account", ["assigned_to"], ["id"])
        batch_op.create_index(batch_op.f("ix_smear_case_assigned_to"), ["assigned_to"], unique=False)
    _fill_flags()
    op.create_table(
        "saved_view",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("owner_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("wanted", sa.JSON(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["user_account.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("owner_id", "name", name="uq_saved_view_owner_name"),
    )
    op.create_index(op.f("ix_saved_view_owner_id"), "saved_view", ["owner_id"], unique=False)


def _fill_flags() -> None:
    case = sa.table("smear_case", sa.column("id"), sa.column("flags"), sa.column("flag_ids"), sa.column("flag_rank"))
    connection = op.get_bind()
    for case_id, kept in connection.execute(sa.select(case.c.id, case.c.flags)).all():
        flags = json.loads(kept) if isinstance(kept, str) else kept or []
        ids = " ".join(["", *dict.fromkeys(str(flag["id"]) for flag in flags), ""]) if flags else " "
        rank = min((_RANKS.get(flag.get("severity"), 2) for flag in flags), default=3)
        connection.execute(sa.update(case).where(case.c.id == case_id).values(flag_ids=ids, flag_rank=rank))


def downgrade() -> None:
    """Take back."""
    op.drop_index(op.f("ix_saved_view_owner_id"), table_name="saved_view")
    op.drop_table("saved_view")
    with op.batch_alter_table("smear_case", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_smear_case_assigned_to"))
        batch_op.drop_constraint(_ASSIGNEE, type_="foreignkey")
        for name in ("flag_rank", "flag_ids", "assigned_at", "assigned_to"):
            batch_op.drop_column(name)
