#!/usr/bin/env bash
# Make a certificate that scheduler, workers and clients share, and the dask configuration that uses it:
#
#     bash cluster/tls/make-certificate.sh ~/.wkdask-tls
#     export DASK_CONFIG=~/.wkdask-tls/dask.yaml
#
# It is signed by itself: only who holds its key can take part. Keep the folder to yourself, on a file system that
# all hosts see, and make a new one when it ends.
set -euo pipefail

folder=${1:?usage: $0 FOLDER [DAYS]}
days=${2:-365}
umask 077
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
[ ! -e "$folder/key.pem" ] || { echo "$folder/key.pem is there; use another folder, or remove it" >&2; exit 1; }
chmod 700 "$folder"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days "$days" \
    -subj "/CN=dask of $(id -un)" -addext "keyUsage=critical,digitalSignature,keyCertSign" \
    -addext "extendedKeyUsage=serverAuth,clientAuth" \
    -keyout "$folder/key.pem" -out "$folder/cert.pem" 2>/dev/null

cat >"$folder/dask.yaml" <<YAML
# Written by make-certificate.sh: every connection between scheduler, workers and clients is encrypted, both ends
# show the certificate, and who cannot is turned away.
distributed:
  comm:
    default-scheme: tls
    require-encryption: true
    tls:
      ca-file: "$folder/cert.pem"
      scheduler: {cert: "$folder/cert.pem", key: "$folder/key.pem"}
      worker: {cert: "$folder/cert.pem", key: "$folder/key.pem"}
      client: {cert: "$folder/cert.pem", key: "$folder/key.pem"}
YAML
echo "export DASK_CONFIG=$folder/dask.yaml"
