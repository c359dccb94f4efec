#!/usr/bin/env bash
# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The controller of the Windows workflow:
#   controller.sh install               the collection, built and installed as a user would, and a custody key
#   controller.sh play NAME [OPTION...]  one playbook of the collection against the runner
set -eu
cd "$(dirname "$0")/../.."
venv=.build/venv
case "$1" in
  install)
    ./run build
    mkdir -p .build/installed
    "$venv/bin/ansible-galaxy" collection install .build/artefact/*.tar.gz -p .build/installed --offline
    openssl req -x509 -newkey rsa:3072 -sha256 -nodes -subj /CN=custody -days 2 \
      -keyout tests/windows/custody.key -out tests/windows/custody.crt
    ;;
  play)
    shift
    name=$1
    shift
    ANSIBLE_COLLECTIONS_PATH=$PWD/.build/installed "$venv/bin/ansible-playbook" \
      -i tests/windows/inventory.yml "$name" "$@"
    ;;
  *)
    echo "controller.sh: install, or play NAME" >&2
    exit 2
    ;;
esac
