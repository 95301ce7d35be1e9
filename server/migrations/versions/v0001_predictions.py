"""Predictions, their inputs, the versions that made them, feedback, gaps."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "predictions",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("client", sa.String),
        sa.Column("protocol", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("variant", sa.String, nullable=False),
        sa.Column("input_sha256", sa.String, nullable=False),
        sa.Column("label", sa.String, nullable=False),
        sa.Column("confidence", sa.Float),
        sa.Column("top", sa.Text, nullable=False),
        sa.Column("latency_us", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("predictions_by_request", "predictions", ["request_id", "position"])
    if op.get_bind().dialect.name == "postgresql":
        op.create_index("predictions_by_time", "predictions", ["at_us"], postgresql_using="brin")
    _create_inputs_and_versions()
    _create_feedback_and_gaps()


def downgrade() -> None:
    """Drops the tables with all that is in them."""
    for table in ("prediction_gaps", "feedback", "prediction_versions", "prediction_inputs", "predictions"):
        op.drop_table(table)


def _create_inputs_and_versions() -> None:
    op.create_table(
        "prediction_inputs",
        sa.Column("sha256", sa.String, primary_key=True),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("form", sa.String, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_index("prediction_inputs_by_time", "prediction_inputs", ["at_us"])
    op.create_table(
        "prediction_versions",
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("variant", sa.String, nullable=False),
        sa.Column("accuracy", sa.Float),
        sa.Column("seen_at_us", sa.BigInteger, nullable=False),
    )


def _create_feedback_and_gaps() -> None:
    op.create_table(
        "feedback",
        sa.Column("prediction_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("client", sa.String),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("predicted", sa.String, nullable=False),
        sa.Column("label", sa.String, nullable=False),
        sa.Column("correct", sa.Boolean, nullable=False),
    )
    op.create_index("feedback_by_version", "feedback", ["model", "version", "at_us"])
    op.create_index("feedback_by_time", "feedback", ["at_us"])
    op.create_table(
        "prediction_gaps",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("began_us", sa.BigInteger, nullable=False),
        sa.Column("ended_us", sa.BigInteger, nullable=False),
        sa.Column("lost_rows", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
    )
