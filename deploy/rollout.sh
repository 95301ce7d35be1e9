#!/bin/sh
# Deploys a release to a Kubernetes cluster, and takes it back by itself where it is not fit.
#
#   deploy/rollout.sh REGISTRY TAG URL      e.g. deploy/rollout.sh ghcr.io/us/ v1.3.0 https://shoal.example.com
#
# Variables: OVERLAY (overlays/cpu), NAMESPACE (shoal), SMOKE_TOKEN_FILE, SMOKE_ARGS (for python -m benchmarks.smoke),
# PYTHON (python3). kubectl has to reach the cluster.
set -eu
cd "$(dirname "$0")/.."
registry=${1?expected the registry, such as ghcr.io/us/}
tag=${2:?expected the tag of the images}
url=${3:?expected the URL that clients use}
namespace=${NAMESPACE:-shoal}
deployment=deployment/shoal-serve

release=$(mktemp -d deploy/kubernetes/release.XXXXXX)
trap 'rm -rf "$release"' EXIT
suffix=
case "${OVERLAY:=overlays/cpu}" in *gpu*) suffix=-gpu ;; esac
cat >"$release/kustomization.yaml" <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../$OVERLAY]
images:
  - {name: shoal-serve, newName: ${registry}shoal-serve, newTag: $tag$suffix}
  - {name: shoal-train, newName: ${registry}shoal-train, newTag: $tag}
END

fit() {
  kubectl -n "$namespace" rollout status "$deployment" --timeout=10m || return 1
  # shellcheck disable=SC2086 # SMOKE_ARGS are several words
  "${PYTHON:-python3}" -m benchmarks.smoke "$url" ${SMOKE_TOKEN_FILE:+--token-file "$SMOKE_TOKEN_FILE"} \
    --seconds 120 ${SMOKE_ARGS:-}
}

before=$(kubectl -n "$namespace" get "$deployment" --ignore-not-found -o name)
kubectl apply -k "$release"
if fit; then
  echo "$tag serves"
  exit 0
fi
if [ -z "$before" ]; then
  echo "error: $tag is not fit, and there was nothing before it to go back to" >&2
  exit 1
fi
echo "$tag is not fit: goes back to what was" >&2
kubectl -n "$namespace" rollout undo "$deployment"
kubectl -n "$namespace" rollout status "$deployment" --timeout=10m
exit 1
