"""Run by Alembic: applies the steps on the connection that `server.predictions.database.migrate` gives.

The caller has opened the transaction and holds the lock, so that all steps happen, or none.
"""

from alembic import context

from server.predictions.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, transactional_ddl=True)
context.run_migrations()
