"""The prediction log's tables. `server/migrations` makes them; a test compares the two.

Times are microseconds since the epoch (UTC) in a BIGINT: both databases keep and compare them alike.
"""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text

METADATA: Final = MetaData()
# SQLite counts up by itself only what it calls INTEGER.
_NUMBER: Final = BigInteger().with_variant(Integer(), "sqlite")

PREDICTIONS: Final = Table(
    "predictions",
    METADATA,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("at_us", BigInteger, nullable=False),
    Column("request_id", String, nullable=False),
    Column("position", Integer, nullable=False),
    Column("client", String),
    Column("protocol", String, nullable=False),
    Column("model", String, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("variant", String, nullable=False),
    Column("input_sha256", String, nullable=False),
    Column("label", String, nullable=False),
    Column("confidence", Float),
    Column("top", Text, nullable=False),
    Column("latency_us", BigInteger, nullable=False),
    Index("predictions_by_request", "request_id", "position"),
    sqlite_autoincrement=True,  # a number is never used again: feedback names it
)
# Rows come nearly in the order of their time, so a BRIN index costs next to nothing. SQLite has none; there the report
# reads the table.
_BY_TIME: Final = Index("predictions_by_time", PREDICTIONS.c.at_us, postgresql_using="brin").ddl_if(
    dialect="postgresql"
)

# A number for each life of each worker that has written. A prediction's id begins with it; see `records.SEQUENCE_BITS`.
ORIGINS: Final = Table(
    "prediction_origins",
    METADATA,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("origin", String, nullable=False),
    Column("began_us", BigInteger, nullable=False),
    Index("prediction_origins_by_name", "origin", unique=True),
    sqlite_autoincrement=True,
)

INPUTS: Final = Table(
    "prediction_inputs",
    METADATA,
    Column("sha256", String, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("form", String, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Index("prediction_inputs_by_time", "at_us"),
)

VERSIONS: Final = Table(
    "prediction_versions",
    METADATA,
    Column("model", String, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("labels", Text, nullable=False),
    Column("variant", String, nullable=False),
    Column("accuracy", Float),
    Column("seen_at_us", BigInteger, nullable=False),
)

FEEDBACK: Final = Table(
    "feedback",
    METADATA,
    Column("prediction_id", BigInteger, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("request_id", String, nullable=False),
    Column("position", Integer, nullable=False),
    Column("client", String),
    Column("model", String, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("predicted", String, nullable=False),
    Column("label", String, nullable=False),
    Column("correct", Boolean, nullable=False),
    Index("feedback_by_version", "model", "version", "at_us"),
    Index("feedback_by_time", "at_us"),
)

GAPS: Final = Table(
    "prediction_gaps",
    METADATA,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("began_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger, nullable=False),
    Column("lost_rows", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
)
