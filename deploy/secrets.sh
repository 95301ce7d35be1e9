#!/bin/sh
# Makes the secrets that docker-compose.yml mounts, each in the folder of the service that reads it. Nothing that is there is
# replaced, so run it again after adding a service, and put a certificate of your own in place of the self-signed one.
#
#   deploy/secrets.sh [HOST] [FOLDER]        HOST: the name clients will use, default localhost
#
# The outer folder is closed to other users of this host. Inside, files are readable, because each container reads them as a
# user of its own; a mount begins at the inner folder.
set -eu
host=${1:-localhost}
folder=${2:-$(dirname "$0")/secrets}

random() { openssl rand -hex 32; }
keep() { # $1: a file; what comes in becomes its contents, unless it is there
  [ -s "$1" ] && { cat >/dev/null; return; }
  mkdir -p "$(dirname "$1")"
  cat >"$1"
  chmod 444 "$1"
  echo "wrote $1"
}

mkdir -p "$folder"
chmod 700 "$folder"
random | keep "$folder/serve/jwt.key"
random | keep "$folder/postgres/password"
random | keep "$folder/grafana/password"
if [ ! -s "$folder/proxy/tls.key" ]; then
  mkdir -p "$folder/proxy"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj "/CN=$host" \
    -addext "subjectAltName=DNS:$host,DNS:localhost,IP:127.0.0.1" \
    -keyout "$folder/proxy/tls.key" -out "$folder/proxy/tls.crt" 2>/dev/null
  chmod 444 "$folder/proxy/tls.key" "$folder/proxy/tls.crt"
  echo "wrote $folder/proxy/tls.crt, self-signed for $host, good for 90 days"
fi
chmod 755 "$folder"/*/
