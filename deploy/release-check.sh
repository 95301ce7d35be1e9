#!/bin/sh
# The rest of `make release-check`, after the tests: deploy/release-check.sh VERSION [PYTHON]
# The tree is committed, the version is in pyproject.toml, and the changelog says what it brings.
set -eu
cd "$(dirname "$0")/.."
version=${1:-}
python=${2:-python3}

fail() {
  echo "error: $*" >&2
  exit 1
}

[ -n "$version" ] || fail "expected a version: make release-check VERSION=1.2.3"
[ -z "$(git status --porcelain)" ] || fail "expected everything to be committed, git status names changes"
declared=$("$python" -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')
[ "$declared" = "$version" ] || fail "expected version $version in pyproject.toml, it has $declared"
grep -qF "## [$version]" CHANGELOG.md || fail "expected a section '## [$version]' in CHANGELOG.md, found none"
echo "$version is ready to be tagged: git tag v$version && git push origin v$version"
