#!/bin/bash
# Whether some replica is ready, asked through nginx; bash speaks TCP itself, so the image needs no curl.
set -eu
exec 3<>/dev/tcp/127.0.0.1/8081
printf 'GET /health/ready HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
read -r _ status _ <&3
[ "$status" = 200 ]
