#!/usr/bin/python

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the work is done on the controller by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
---
module: config_proof
short_description: Prove on the controller that a configuration opens with a key bundle
version_added: 0.1.0
description:
  - Answers offline whether every protected value of a configuration file opens with the keys of a bundle, with the
    same verdicts as the modules that work on a server.
  - It runs on the controller only; no server is contacted. Without an unaccepted failure it succeeds.
options:
  allow_needs_target:
    description:
      - Values under CNG keys can only be opened on their server. They fail the proof unless this is true.
    type: bool
    default: false
  bundle:
    description:
      - Path on the controller of the key bundle (C(*.keyset.json)) that M(webfarm.iis.key_export) wrote.
    type: path
    required: true
  src:
    description:
      - Path on the controller of the configuration file. A relative path is looked for beside the playbook and in the
        C(files) folders.
    type: path
    required: true
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
  - ansible.builtin.action_common_attributes.flow
  - webfarm.iis.bundle
  - webfarm.iis.bundle.accept
attributes:
  action:
    support: full
  async:
    support: none
  bypass_host_loop:
    support: none
  check_mode:
    support: full
  diff_mode:
    support: none
  platform:
    platforms: all
requirements:
  - cryptography, asn1crypto and lxml on the controller
notes:
  - The bundle must be pinned with O(expected_fingerprints), or signed and verified with O(signer_certificate).
  - It refuses to open a bundle while C(ANSIBLE_DEBUG) or C(ANSIBLE_KEEP_REMOTE_FILES) is set.
seealso:
  - module: webfarm.iis.config
  - module: webfarm.iis.config_rewrap
  - module: webfarm.iis.key_info
author: the webfarm.iis authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Does the candidate open with the keys of the farm?
  webfarm.iis.config_proof:
    src: candidate/applicationHost.config
    bundle: keys/shop.keyset.json
    opening_file: keys/operator.key
    opening_passphrase: "{{ vault_operator_passphrase }}"
    expected_fingerprints: "{{ shop_fingerprints }}"
"""

RETURN = r"""
key_containers:
  description: The keys that were used, as the bundle holds them.
  returned: success, and failure after the proof
  type: list
  elements: dict
  contains:
    container:
      description: Name of the container.
      returned: always
      type: str
      sample: iisWasKey
    fingerprint:
      description: Fingerprint, recomputed from the opened key.
      returned: always
      type: str
      sample: 0f343b0931126a20f133d67c2b018a3b5e0e8a9d0c1c6f1f3e8a2b7d4c5e6f70
proven:
  description: Number of values that open.
  returned: success, and failure after the proof
  type: int
  sample: 12
failed_values:
  description: Attribute paths of the values that do not open and are not accepted.
  returned: success, and failure after the proof
  type: list
  elements: str
  sample: []
needs_target:
  description: Attribute paths of the values under CNG keys.
  returned: success, and failure after the proof
  type: list
  elements: str
  sample: []
protected_values:
  description: Every protected value of the file.
  returned: success, and failure after the proof
  type: list
  elements: dict
  contains:
    file:
      description: Name of the configuration file.
      returned: always
      type: str
      sample: applicationHost.config
    path:
      description: Attribute path relative to the root element.
      returned: always
      type: str
      sample: system.applicationHost/applicationPools/add[@name='Shop']/processModel/@password
    line:
      description: Line of the attribute.
      returned: always
      type: int
      sample: 207
    provider:
      description: Provider that the value names, null when it is malformed.
      returned: always
      type: str
      sample: IISWASOnlyAesProvider
    kind:
      description: V(rsa), V(aes), V(cng) or V(unsupported), null when the provider is not declared.
      returned: always
      type: str
      sample: aes
    container:
      description: The key container of the provider.
      returned: always
      type: str
      sample: iisWasKey
    verdict:
      description:
        - V(ok) when the value opens and is text by every rule that is known (padding, tail, strict UTF-16, no control
          characters).
        - V(bad_data) when its key does not open it, V(garbage) when it opens to something that is no text (AES values
          carry no integrity check), V(missing_key), V(denied) or V(damaged) for the state of its container,
          V(unknown_provider) when the file does not declare the provider, V(unsupported) for another kind of
          provider, V(malformed) when it is not of the form C([enc:Provider:base64:enc]).
        - V(needs_target) for a value under a CNG key.
      returned: always
      type: str
      sample: ok
    hresult:
      description: Error code, null when none was reported.
      returned: always
      type: str
      sample: "0x80090005"
    message:
      description: What went wrong, null when nothing did. Never the clear text.
      returned: always
      type: str
      sample: Bad Data.
    accepted:
      description: Whether O(accept_undecryptable) lists it.
      returned: always
      type: bool
      sample: false
    reason:
      description: The reason given there.
      returned: always
      type: str
      sample: null
"""
