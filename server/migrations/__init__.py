"""How the prediction log's tables come to be, step by step (Alembic)."""
