"""Load and measurements against a running server."""
