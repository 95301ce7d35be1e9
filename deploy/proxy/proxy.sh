#!/bin/sh
# Runs nginx, and reloads it when a replica joins or the certificate changes.
#
# Debian's nginx looks a name up once, at its start. So this asks every second which addresses the name has. A new one is taken
# in at once. One that is gone is left to nginx at first, which passes over whoever does not answer: a reload closes idle client
# connections, and a replica that restarts is back under its old address soon.
set -eu
name=${UPSTREAM:-serve}
certificate=/etc/shoal/tls/tls.crt
forget_after_s=30
mkdir -p /tmp/nginx

if ! { [ -r "$certificate" ] && [ -r "${certificate%.crt}.key" ]; }; then
  echo "error: expected tls.crt and tls.key in the folder mounted on /etc/shoal/tls, readable by user $(id -u):" \
    "run deploy/secrets.sh, or put yours there" >&2
  exit 2
fi

addresses() { getent ahostsv4 "$name" | awk '$2 == "STREAM" {print $1}' | sort -u || true; }
fingerprint() { cksum <"$certificate"; }

upstream() { # $1: its name, $2: the port, $3: addresses
  echo "upstream $1 {"
  echo "  zone $1 64k;"
  echo "  least_conn;"
  # nginx refuses an upstream without servers; nobody listens on this port, so it answers 502 until there is one
  for address in ${3:-127.0.0.1}; do
    echo "  server $address:$([ -n "$3" ] && echo "$2" || echo 9) max_fails=1 fail_timeout=2s;"
  done
  echo "  keepalive 64;"
  echo "}"
}

configure() { # $1: addresses
  {
    echo "client_max_body_size ${SHOAL_MAX_BODY_BYTES:-16777216};"
    upstream serve_http 8000 "$1"
    upstream serve_grpc 8001 "$1"
  } >/tmp/nginx/upstreams.conf
}

follow() { # $1: the addresses in force
  known=$1 seen_certificate=$(fingerprint) gone_s=0
  while sleep 1; do
    now=$(addresses)
    new=$(printf '%s\n' "$now" | grep -vxF "$known" || true)
    if [ "$now" = "$known" ]; then gone_s=0; else gone_s=$((gone_s + 1)); fi
    if [ -n "$new" ] || [ "$gone_s" -ge "$forget_after_s" ] || [ "$(fingerprint)" != "$seen_certificate" ]; then
      known=$now seen_certificate=$(fingerprint) gone_s=0
      configure "$known"
      nginx -e stderr -s reload
    fi
  done
}

first=$(addresses)
configure "$first"
follow "$first" &
exec nginx -e stderr -g 'daemon off;'
