"""The worklist: who is to read a case, flags as the list filters by them, saved views; questions; more of a smear."""

import json

import sqlalchemy as sa
from alembic import op

revision = "20261129_worklist"
down_revision: str | None = "20261129_signed_at"
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
        batch_op.add_column(sa.Column("supplements", sa.JSON(), nullable=False, server_default=sa.text("'[]'")))
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
    _add_questions()
    _add_supplements()


def _add_questions() -> None:
    with op.batch_alter_table("user_account", schema=None) as batch_op:
        batch_op.add_column(sa.Column("mail_notices", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.create_table(
        "consult_thread",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("case_id", sa.String(), nullable=False),
        sa.Column("opened_by", sa.String(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cell_id", sa.String(), nullable=True),
        sa.Column("field", sa.Integer(), nullable=True),
        *(sa.Column(name, sa.Integer(), nullable=True) for name in ("x0", "y0", "x1", "y1")),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolved_by", sa.String(), nullable=True),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["smear_case.id"]),
        *(sa.ForeignKeyConstraint([name], ["user_account.id"]) for name in ("opened_by", "resolved_by", "last_by")),
        sa.PrimaryKeyConstraint("id"),
    )
    for name in ("case_id", "last_at"):
        op.create_index(op.f(f"ix_consult_thread_{name}"), "consult_thread", [name], unique=False)
    op.create_table(
        "consult_message",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("thread_id", sa.String(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["author"], ["user_account.id"]),
        sa.ForeignKeyConstraint(["thread_id"], ["consult_thread.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("idempotency_key"),
    )
    op.create_index(op.f("ix_consult_message_thread_id"), "consult_message", ["thread_id"], unique=False)
    op.create_table(
        "consult_person",
        sa.Column("thread_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("noticed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["thread_id"], ["consult_thread.id"]),
        sa.ForeignKeyConstraint(["user_id"], ["user_account.id"]),
        sa.PrimaryKeyConstraint("thread_id", "user_id"),
    )
    op.create_index(op.f("ix_consult_person_user_id"), "consult_person", ["user_id"], unique=False)


def _add_supplements() -> None:
    op.create_table(
        "case_supplement",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("case_id", sa.String(), nullable=False),
        sa.Column("hospital_id", sa.String(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("cells", sa.Integer(), nullable=False),
        sa.Column("asked_by", sa.String(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("fields_came", sa.Integer(), nullable=False),
        sa.Column("cells_came", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["smear_case.id"]),
        sa.ForeignKeyConstraint(["hospital_id"], ["hospital.id"]),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"]),
        sa.ForeignKeyConstraint(["asked_by"], ["user_account.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    for name in ("case_id", "node_id"):
        op.create_index(op.f(f"ix_case_supplement_{name}"), "case_supplement", [name], unique=False)


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
    for name in ("case_supplement", "consult_person", "consult_message", "consult_thread"):
        op.drop_table(name)
    with op.batch_alter_table("user_account", schema=None) as batch_op:
        batch_op.drop_column("mail_notices")
    op.drop_index(op.f("ix_saved_view_owner_id"), table_name="saved_view")
    op.drop_table("saved_view")
    with op.batch_alter_table("smear_case", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_smear_case_assigned_to"))
        batch_op.drop_constraint(_ASSIGNEE, type_="foreignkey")
        for name in ("supplements", "flag_rank", "flag_ids", "assigned_at", "assigned_to"):
            batch_op.drop_column(name)
