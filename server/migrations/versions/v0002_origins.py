"""A number for each life of each worker, so that a row's id can be told before it is written.

Rows of before keep their ids, which are all below those that begin with such a number.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "prediction_origins",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("origin", sa.String, nullable=False),
        sa.Column("began_us", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("prediction_origins_by_name", "prediction_origins", ["origin"], unique=True)


def downgrade() -> None:
    """Drops the table; rows keep their ids."""
    op.drop_table("prediction_origins")
