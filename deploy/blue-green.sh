#!/bin/sh
# Brings another release up beside the one that serves, on one host, and moves over to it only if it is fit.
#
#   deploy/blue-green.sh TAG          e.g. deploy/blue-green.sh v1.3.0, after `docker compose pull` or `build`
#
#   serve (old)  ●──────────────●──────────────● drains, starts again as TAG ●───────▶
#   serve-next (TAG)  ● smoke alone ● joins, watched ●───────────────────────● drains, gone
#                     └── not fit: gone, nothing has happened ──┘
#
# The proxy (docker compose --profile proxy) is what clients talk to. Variables: REPLICAS (2), SMOKE_ARGS (for
# python -m benchmarks.smoke, such as "--token-file FILE --max-p99-ms 100"), PROXY_URL (https://localhost:8443), PROXY_CA
# (deploy/secrets/proxy/tls.crt), COMPOSE (docker compose), ENV_FILE (.env), PYTHON (python3).
set -eu
cd "$(dirname "$0")/.."
tag=${1:?expected the tag of the images to move to, such as: deploy/blue-green.sh v1.3.0}
replicas=${REPLICAS:-2}
env_file=${ENV_FILE:-.env}
proxy_url=${PROXY_URL:-https://localhost:8443}
proxy_ca=${PROXY_CA:-deploy/secrets/proxy/tls.crt}
touch "$env_file"

say() { echo "$(date +%T) $*"; }
compose() { ${COMPOSE:-docker compose} --env-file "$env_file" --profile next "$@"; }
# shellcheck disable=SC2086 # SMOKE_ARGS are several words
smoke() { "${PYTHON:-python3}" -m benchmarks.smoke "$@" ${SMOKE_ARGS:-}; }
healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]; }
next() { NEXT_TAG=$tag compose ps -q serve-next; }

take_back() {
  say "takes $tag back: $1"
  NEXT_TAG=$tag compose rm --stop --force serve-next
  exit 1
}

say "starts $tag beside what serves"
NEXT_TAG=$tag compose up -d --no-build --scale "serve-next=$replicas" serve-next
for container in $(next); do
  port=$(docker port "$container" 8000/tcp | head -n 1)
  smoke "http://127.0.0.1:${port##*:}" || take_back "it is not fit by itself"
done

say "lets it answer with the others"
for container in $(next); do
  network=$(docker inspect --format '{{range $name, $_ := .NetworkSettings.Networks}}{{println $name}}{{end}}' "$container" |
    grep '_front$')
  docker network disconnect "$network" "$container"
  docker network connect --alias serve "$network" "$container"
done
sleep 3  # the proxy looks for new addresses every second
smoke "$proxy_url" --ca "$proxy_ca" || take_back "beside the others it is not fit"

say "moves the others over"
(
  umask 077  # it may hold a password
  grep -v '^TAG=' "$env_file" >"$env_file.new" || true
  echo "TAG=$tag" >>"$env_file.new"
)
mv "$env_file.new" "$env_file"
compose up -d --no-build --no-deps --scale "serve=$replicas" serve
for container in $(compose ps -q serve); do
  waited_s=0
  until healthy "$container"; do
    waited_s=$((waited_s + 1))
    [ "$waited_s" -lt 180 ] || { echo "error: $container is not healthy; serve-next goes on answering" >&2; exit 1; }
    sleep 1
  done
done
sleep 3
NEXT_TAG=$tag compose rm --stop --force serve-next
say "$tag serves"
