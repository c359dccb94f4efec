#!/usr/bin/python

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the work is done on the controller by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
---
module: key_bundle
short_description: Show, share, fill and sign a key bundle on the controller
version_added: 0.1.0
description:
  - Shows what a key bundle holds and who can open it. That needs no key.
  - Changes who can open it. The keys are sealed anew with fresh content keys, so somebody who is removed cannot open
    the new file with anything from the old one. The servers are not touched.
  - Takes in keys from what people have, among them the XML files of aspnet_regiis, and makes a bundle of them.
  - Signs a bundle, and signs it again after a change.
  - It runs on the controller only; no server is contacted.
options:
  backup:
    description:
      - Keep a copy of the file beside it before it is changed. Who could open the old file can open the copy.
    type: bool
    default: false
  bundle:
    description:
      - Path on the controller of the key bundle (C(*.keyset.json)). It is written in one step with mode 0600.
    type: path
    required: true
  drop_signature:
    description:
      - Remove the signature. A change of a signed bundle is refused unless it is signed again or this is set.
    type: bool
    default: false
  export_unencrypted_xml:
    description:
      - Write private keys into files B(in the clear), as C(aspnet_regiis -px CONTAINER FILE -pri) does, for a tool that
        takes nothing else.
      - The files are written in one step with mode 0600, and the module warns about each. A file that is there already
        and is not this key is never replaced.
      - The key is not in the result of the module.
      - The bundle has to be believed, and it cannot be changed by the same task.
    type: list
    elements: dict
    default: []
    suboptions:
      container:
        description: Name of the key container in the bundle.
        type: str
        required: true
      dest:
        description: Path of the file on the controller.
        type: path
        required: true
  farm:
    description:
      - Name of the farm, written into the bundle. Required for a new bundle.
    type: str
  import_from:
    description:
      - Private keys to take into the bundle, each with the container it belongs to.
      - A container that holds the same key already is left alone. One that holds another is replaced only when
        O(replace) is true.
      - Taking a key in needs no opening key, unless the recipients change as well.
      - Accepted are RSAKeyValue XML (C(aspnet_regiis -px -pri)), PEM and DER (PKCS#1 or PKCS#8, with or without
        passphrase), PVK (clear or encrypted, strong or weak) and PRIVATEKEYBLOB. The kind is recognised by the content.
      - Content with the public half alone is refused. aspnet_regiis reports success for such a file and changes
        nothing.
    type: list
    elements: dict
    default: []
    suboptions:
      container:
        description: Name of the key container, for instance V(iisWasKey).
        type: str
        required: true
      content:
        description:
          - The key itself, as text out of a vaulted variable or a lookup. PVK and PRIVATEKEYBLOB are given in base64.
          - Give this or O(import_from[].src).
        type: str
      passphrase:
        description: Passphrase of the key.
        type: str
      src:
        description: Path on the controller of the file. It may be encrypted with Ansible Vault.
        type: path
  recipients:
    description:
      - Paths on the controller of the PEM certificates (RSA) of those who can open the bundle, see
        O(recipients_action).
      - When omitted, the recipients stay as they are.
    type: list
    elements: path
  recipients_action:
    description:
      - V(set) makes O(recipients) the complete list.
      - V(add) and V(remove) start from the recipients that the file names. Somebody who can write the file could have
        put a certificate there, so both demand a signature that verifies.
    type: str
    choices: [set, add, remove]
    default: set
  remove_containers:
    description:
      - Names of key containers whose keys are taken out of the bundle.
    type: list
    elements: str
    default: []
  replace:
    description:
      - Whether O(import_from) may put a key in the place of another one.
    type: bool
    default: false
  signing_certificate:
    description:
      - Path on the controller of the PEM certificate that the bundle shall be signed by. With a valid signature by it,
        nothing is signed.
      - A bundle that is signed by it counts as signed by O(signer_certificate) too.
    type: path
  signing_content:
    description:
      - The same as O(signing_file), but the PEM text itself.
    type: str
  signing_file:
    description:
      - Path on the controller of the PEM private key of O(signing_certificate), RSA or elliptic curve. It may be
        encrypted with Ansible Vault, or with O(signing_passphrase).
      - It is read only when there is something to sign.
    type: path
  signing_passphrase:
    description:
      - Passphrase of O(signing_file) or O(signing_content).
    type: str
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
  - ansible.builtin.action_common_attributes.flow
  - webfarm.iis.bundle
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
    support: full
  platform:
    platforms: all
requirements:
  - cryptography, asn1crypto and lxml on the controller
notes:
  - Before anything is taken over from an existing file, it must be pinned with O(expected_fingerprints) or signed and
    verified with O(signer_certificate). Looking at it alone needs neither.
  - The generation rises when a key changes, comes or goes. It stays when only the recipients or the signature change.
  - It refuses to read a key while C(ANSIBLE_DEBUG) or C(ANSIBLE_KEEP_REMOTE_FILES) is set; and to take in, seal again
    or write out one while facts are cached beyond the run or a callback plugin records the results of tasks. With
    C(no_log=true) on the task the recording callbacks are accepted.
  - Somebody who could open an earlier file may have kept the keys. Removing a recipient protects what comes later; new
    keys are the answer to what they know.
seealso:
  - module: webfarm.iis.key_export
  - module: webfarm.iis.key_import
  - module: webfarm.iis.config_proof
author: the webfarm.iis authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Who can open the bundle, and which keys are in it?
  webfarm.iis.key_bundle:
    bundle: keys/shop.keyset.json
  register: shop_bundle

- name: Exactly these three can open it
  webfarm.iis.key_bundle:
    bundle: keys/shop.keyset.json
    recipients:
      - keys/operator.crt
      - keys/deputy.crt
      - keys/safe.crt
    expected_fingerprints: "{{ shop_fingerprints }}"
    opening_file: keys/operator.key
    opening_passphrase: "{{ vault_operator_passphrase }}"

- name: One more, in a bundle that is signed
  webfarm.iis.key_bundle:
    bundle: keys/shop.keyset.json
    recipients: [keys/newcomer.crt]
    recipients_action: add
    signer_certificate: keys/signer.crt
    signing_certificate: keys/signer.crt
    signing_content: "{{ lookup('community.sops.sops', 'keys/signer.key.sops') }}"
    opening_content: "{{ lookup('community.hashi_vault.vault_kv2_get', 'webfarm/custody').secret.private_key }}"

- name: A bundle from the XML files that a runbook of old exported
  webfarm.iis.key_bundle:
    bundle: keys/shop.keyset.json
    farm: shop
    recipients: [keys/operator.crt, keys/safe.crt]
    import_from:
      - container: iisWasKey
        src: old/iisWasKey.xml # encrypted with ansible-vault
      - container: iisConfigurationKey
        content: "{{ vault_iis_configuration_key_xml }}"

- name: Sign it, without being able to open it
  webfarm.iis.key_bundle:
    bundle: keys/shop.keyset.json
    expected_fingerprints: "{{ shop_fingerprints }}"
    signing_certificate: keys/signer.crt
    signing_file: keys/signer.key
    signing_passphrase: "{{ vault_signer_passphrase }}"

- name: The one key that the vendor's tool wants in the clear
  webfarm.iis.key_bundle:
    bundle: keys/shop.keyset.json
    signer_certificate: keys/signer.crt
    opening_file: keys/operator.key
    opening_passphrase: "{{ vault_operator_passphrase }}"
    export_unencrypted_xml:
      - container: iisWasKey
        dest: /run/user/1000/iisWasKey.xml
"""

RETURN = r"""
reasons:
  description: Why the bundle was, or in check mode would be, written. Empty when nothing changes.
  returned: success
  type: list
  elements: str
  sample: ["the recipients differ: CN=carol (sha256 5b29...) is removed"]
bundle:
  description: The bundle as it is after the task, in check mode as it would be.
  returned: success
  type: dict
  contains:
    path:
      description: Path of the file on the controller.
      returned: always
      type: str
      sample: /srv/iac/keys/shop.keyset.json
    farm:
      description: Name of the farm.
      returned: always
      type: str
      sample: shop
    generation:
      description: Counts the key sets of the farm, from 1.
      returned: always
      type: int
      sample: 3
    created:
      description: When the file was written, UTC.
      returned: always
      type: str
      sample: "2026-01-31T12:00:00Z"
    source_host:
      description: The server that the keys come from, null when they come from files.
      returned: always
      type: str
      sample: WEB1
    machine_guid:
      description: MachineGuid of that server, null when the keys come from files.
      returned: always
      type: str
      sample: 0e3b1c7a-5d2f-4b89-9c10-aabbccddeeff
    accepted_undecryptable:
      description: The values that the source could not open and that were accepted, each with C(path) and C(reason).
      returned: always
      type: list
      elements: dict
      sample: []
key_containers:
  description: The keys in the bundle.
  returned: success
  type: list
  elements: dict
  contains:
    container:
      description: Name of the container.
      returned: always
      type: str
      sample: iisWasKey
    store:
      description: Always V(cryptoapi).
      returned: always
      type: str
      sample: cryptoapi
    bits:
      description: Size of the key.
      returned: always
      type: int
      sample: 2048
    fingerprint:
      description: Public fingerprint as the bundle states it. It is computed anew whenever the key is opened.
      returned: always
      type: str
      sample: 0f343b0931126a20f133d67c2b018a3b5e0e8a9d0c1c6f1f3e8a2b7d4c5e6f70
    exportable:
      description: Whether the key was exportable on its source, null when it comes from a file.
      returned: always
      type: bool
      sample: true
    sddl:
      description: Access list of the container on its source, null when the key comes from a file.
      returned: always
      type: str
      sample: D:PAI(A;;FA;;;SY)(A;;FA;;;BA)
fingerprints:
  description: Fingerprint by container, in the form of O(expected_fingerprints).
  returned: success
  type: dict
  sample: {"iisWasKey": "0f343b0931126a20f133d67c2b018a3b5e0e8a9d0c1c6f1f3e8a2b7d4c5e6f70"}
recipients:
  description: Everybody who can open at least one key of the bundle.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: Subject of the certificate, null when the bundle does not hold the certificate.
      returned: always
      type: str
      sample: CN=operator
    issuer:
      description: Issuer of the certificate.
      returned: always
      type: str
      sample: CN=operator
    serial:
      description: Serial number, hexadecimal.
      returned: always
      type: str
      sample: 1a2b3c
    certificate_fingerprint:
      description: SHA-256 of the certificate, null when the bundle does not hold it.
      returned: always
      type: str
      sample: 5b2963177f3b0a0f0c1d2e3f405162738495a6b7c8d9eafb0c1d2e3f40516273
    not_after:
      description: When the certificate expires, UTC. An expired one still opens the bundle.
      returned: always
      type: str
      sample: "2036-01-31T12:00:00Z"
signed:
  description: Whether the bundle has a signature. RV(trust) says whether it was verified.
  returned: success
  type: bool
  sample: true
signers:
  description: Who the signature says made it, with the fields of RV(recipients). It is not verified by this.
  returned: success
  type: list
  elements: dict
  sample: []
trust:
  description:
    - How the file on disk was found trustworthy, V(pinned), V(signed) or both. Empty when nobody asked and nothing was
      taken over from it.
  returned: success
  type: list
  elements: str
  sample: [signed]
exported:
  description: The files of O(export_unencrypted_xml), each with C(container), C(dest) and C(changed). Never the keys.
  returned: success
  type: list
  elements: dict
  sample: []
backup_file:
  description: Path of the copy that O(backup) made, null when none was.
  returned: success
  type: str
  sample: null
"""
