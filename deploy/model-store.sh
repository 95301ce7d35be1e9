#!/bin/sh
# Backs the model store up and brings it back, bundle by bundle, with every hash checked on the way.
#
#   deploy/model-store.sh backup  FOLDER [MODELS]     what FOLDER has not got yet; MODELS is models by default
#   deploy/model-store.sh restore FOLDER [MODELS]     what MODELS has not got; beside a running server, too
#   deploy/model-store.sh drill   FOLDER              restores into a scratch folder and says what came back
#
# With the compose file: docker compose run --rm -v "$PWD/backup:/backup" export deploy/model-store.sh backup /backup /models
# Variable: PYTHON (python), one that has Shoal's training environment.
set -eu
action=${1:-} folder=${2:-} models=${3:-models}
[ -n "$folder" ] || { sed -n '2,9p' "$0" >&2; exit 2; }
export_cli() { "${PYTHON:-python}" -m export "$@"; }

# Of the store $1: name/version of each bundle, hidden and half-written ones left out.
bundles() { (cd "$1" && find . -mindepth 3 -maxdepth 3 -name manifest.json ! -path '*/.*/*' | sed 's|^\./||; s|/manifest.json$||' | sort -V); }
# The policies say which version answers; each is one small file, replaced by a rename.
policies() { # $1: from, $2: to
  (cd "$1" && find . -mindepth 2 -maxdepth 2 -name 'policy*.json') | while read -r file; do
    [ -d "$2/${file%/*}" ] || continue
    cp "$1/$file" "$2/$file.partial"
    mv "$2/$file.partial" "$2/$file"
  done
}

backup() {
  mkdir -p "$folder"
  for bundle in $(bundles "$models"); do
    [ -e "$folder/$bundle/manifest.json" ] || export_cli copy "$bundle" "$folder" --models "$models"
  done
  policies "$models" "$folder"
}

restore() { # $1: where to
  mkdir -p "$1"
  for bundle in $(bundles "$folder"); do export_cli pull "$folder/$bundle" --models "$1"; done
  policies "$folder" "$1"
}

case $action in
  backup) backup ;;
  restore) restore "$models" ;;
  drill)
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    restore "$scratch"
    [ "$(bundles "$scratch")" = "$(bundles "$folder")" ] || { echo "error: not every bundle came back" >&2; exit 1; }
    echo "came back, every hash as its manifest has it: $(bundles "$scratch" | tr '\n' ' ')"
    ;;
  *) sed -n '2,9p' "$0" >&2; exit 2 ;;
esac
