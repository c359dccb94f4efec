# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options that every reader of a bundle shares."""

from __future__ import annotations


class ModuleDocFragment:
    """Shared options; a module extends C(webfarm.iis.bundle) and, for more, C(webfarm.iis.bundle.optional)."""

    # How a bundle is found, believed and opened. key_import, config and config_proof declare the same.
    DOCUMENTATION = r"""
options:
  bundle:
    description:
      - Path on the controller of the key bundle (C(*.keyset.json)) that M(webfarm.iis.key_export) wrote.
    type: path
  expected_fingerprints:
    description:
      - The public fingerprints that the keys in O(bundle) must have, as a dictionary of container name and fingerprint
        (SHA-256 over the DER SubjectPublicKeyInfo, lower-case hexadecimal).
      - Kept in the inventory, this pins the farm's keys. A bundle is believed only when every key that is used is
        pinned here, or when it is signed and O(signer_certificate) verifies it.
      - Pins cover the keys and nothing else. They are what tells today's keys from an older bundle that was once signed
        as well, so the two together are better than either.
      - The fingerprints are recomputed from the opened keys; the ones written in the bundle are never relied on.
    type: dict
  signer_certificate:
    description:
      - Path on the controller of the PEM certificate whose key signed O(bundle).
      - Given, it makes the signature required. A bundle without a signature, or with one by another key, is refused
        even when all its keys are pinned.
      - With O(expected_fingerprints) as well, both are checked. A key that is not pinned is covered by the signature.
      - The certificate is trusted as it is given. No chain is built and no date is checked.
    type: path
  opening_content:
    description:
      - The same as O(opening_file), but the PEM text itself, so that it can come from a vaulted variable or a lookup
        and need not lie in a file.
      - Give one of the two.
    type: str
  opening_file:
    description:
      - Path on the controller of the PEM private key that opens O(bundle), one of its recipients.
      - The file may be encrypted with Ansible Vault, or with O(opening_passphrase). It is decrypted in memory.
    type: path
  opening_passphrase:
    description:
      - Passphrase of O(opening_file) or O(opening_content).
      - It stays on the controller.
    type: str
"""

    # What accept_undecryptable means is the same wherever it is offered.
    ACCEPT = r"""
options:
  accept_undecryptable:
    description:
      - Protected values that cannot be decrypted and are accepted nevertheless, each with the reason.
      - Every report shows the accepted paths with their reasons.
      - A path that is listed and decrypts, or that does not exist, gives a warning.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - The attribute path as the results show it, for instance
            V(system.applicationHost/applicationPools/add[@name='Old']/processModel/@password).
        type: str
        required: true
      reason:
        description:
          - Why it is accepted. It must not be empty.
        type: str
        required: true
"""

    # Modules that make a target receive a private key.
    TRANSPORT = r"""
options:
  allow_unencrypted_transport:
    description:
      - Allow a private key to be sent over a connection that is not encrypted (WinRM over HTTP without message
        encryption).
      - The key is sealed to the target's own transport key in any case. This option accepts that the rest of the
        conversation can be read and altered on the way.
    type: bool
    default: false
"""
