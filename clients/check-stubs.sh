#!/bin/sh
# Runs the commands of docs/clients.md: generates stubs for every language whose tools are installed, compiles its example
# and lets it classify a picture. What is skipped is named with what it lacks. Needs the npm registry for JavaScript.
set -eu
cd "$(dirname "$0")/.."
SHOAL_STUBS=all exec "${PYTHON:-python}" -m pytest -q -rs -p no:cacheprovider tests/clients/test_clients_page.py
