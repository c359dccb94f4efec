#!/usr/bin/python

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the work is done on the controller by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
---
module: fleet_report
short_description: Judge recorded servers by a policy and report
version_added: 0.1.0
description:
  - Reads a folder of host records (M(webfarm.iis.compliance_record)), judges every host by every rule of a policy,
    and writes a page for people (HTML), JSON, JUnit XML and CSV, and evidence that is chained from run to run.
  - It runs on the controller only, and reads nothing but that folder, the policy and the clear part of bundles.
    Records of several runs are merged by putting their files into one folder; the newest record of a host counts.
  - A verdict is V(pass), V(warn), V(fail), V(unknown) (a fact is missing, never a pass), V(waived) or V(na). Every
    verdict has a reason, and where something is to be done, a fix.
options:
  bundles:
    description:
      - Key bundles (C(*.keyset.json)) of the farms, old generations as well. They tell which fingerprints a farm should
        have, which generation they are, and which shared keys are no sign of a cloned machine.
      - Only their clear part is read. Without O(signer_certificate) it is as trustworthy as the place where they lie.
    type: list
    elements: path
    default: []
  csv:
    description:
      - Path on the controller for one line per host and rule.
    type: path
  evidence_dir:
    description:
      - Folder on the controller for evidence. Each run adds a file that holds the SHA-256 of the one before.
    type: path
  expected_hosts:
    description:
      - Names of hosts that must have a record. One without fails the rule V(reachable), so that a host that was skipped
        silently is no gap.
    type: list
    elements: str
    default: []
  fail_on:
    description:
      - When the task has to fail. Verdicts - V(fail), V(warn), V(unknown) for hosts that answered, V(unreachable) for a
        host without current facts - or names of rules, which then have to be V(pass), V(waived) or V(na).
      - Empty means that it never fails for what it finds. The reports are written in any case.
    type: list
    elements: str
    default: []
  html:
    description:
      - Path on the controller for the page. It is one file that loads nothing else.
    type: path
  json:
    description:
      - Path on the controller for the report as JSON.
    type: path
  junit:
    description:
      - Path on the controller for the report as JUnit XML, one test suite per host and one test case per rule.
    type: path
  operator:
    description:
      - Who answers for the run, written into the evidence. The default is the user who runs it.
    type: str
  policy:
    description:
      - The policy, with the fields C(name), C(rules), C(overrides) and C(waivers), described in the compliance guide.
      - Empty means every rule with its defaults.
    type: dict
    default: {}
  previous:
    description:
      - Path on the controller of an earlier JSON report. The differences become part of the report as drift. It may be
        the file that O(json) replaces.
    type: path
  report_dir:
    description:
      - Folder on the controller with the records, in itself and in its folders.
    type: path
    required: true
  signer_certificate:
    description:
      - Certificate (PEM) whose key must have signed every one of O(bundles).
    type: path
  signing_certificate:
    description:
      - Certificate (PEM) of O(signing_file).
    type: path
  signing_file:
    description:
      - Private key (PEM) that signs the evidence. The file may be encrypted with Ansible Vault, or with
        O(signing_passphrase).
    type: path
  signing_passphrase:
    description:
      - Passphrase of O(signing_file).
    type: str
  title:
    description:
      - Heading of the report.
    type: str
    default: Compliance of the IIS fleet
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
  - ansible.builtin.action_common_attributes.flow
attributes:
  action:
    support: full
  async:
    support: none
  bypass_host_loop:
    support: none
  check_mode:
    support: full
    details: Every host is judged, no file is written.
  diff_mode:
    support: none
  platform:
    platforms: all
requirements:
  - lxml, and for O(signing_file) cryptography and asn1crypto on the controller
notes:
  - Run it once, on localhost or with C(run_once).
  - No secret is in any of the files. They do tell where a farm is weak; they are written with mode 0600.
seealso:
  - module: webfarm.iis.compliance_record
  - module: webfarm.iis.server_info
author: the webfarm.iis authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Judge what was recorded
  webfarm.iis.fleet_report:
    report_dir: /var/lib/webfarm/records
    html: /var/lib/webfarm/compliance.html
    json: /var/lib/webfarm/compliance.json
    previous: "{{ '/var/lib/webfarm/compliance.json' if '/var/lib/webfarm/compliance.json' is file else omit }}"
  delegate_to: localhost
  run_once: true

- name: Fail a pipeline for findings and for hosts that did not answer, and keep signed evidence
  webfarm.iis.fleet_report:
    report_dir: records
    junit: compliance.xml
    bundles:
      - keys/shop.keyset.json
    fail_on:
      - fail
      - unreachable
    evidence_dir: evidence
    signing_file: auditor.key
    signing_passphrase: "{{ vault_auditor_passphrase }}"
    signing_certificate: auditor.crt
    policy:
      name: Shop baseline
      rules:
        key_size:
          minimum: 2048
        key_exportable: true
      overrides:
        - groups:
            - golden
          rules:
            key_exportable:
              exportable: true
      waivers:
        - rule: backup_recent
          hosts:
            - web7
          reason: It is rebuilt every night.
          until: "2026-12-31"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
summary:
  description: Number of hosts, in all and by status.
  returned: success, and failure for O(fail_on)
  type: dict
  sample:
    hosts: 12
    unreachable: 1
    fail: 2
    unknown: 0
    warn: 0
    pass: 9
rules:
  description: Number of hosts by rule and verdict.
  returned: success, and failure for O(fail_on)
  type: dict
  sample:
    key_size:
      pass: 11
      unknown: 1
noncompliant:
  description: The first 50 hosts that do not pass.
  returned: success, and failure for O(fail_on)
  type: list
  elements: str
  sample:
    - web3
violations:
  description: The first 50 hosts for which O(fail_on) makes the task fail, with their rules.
  returned: success, and failure for O(fail_on)
  type: dict
  sample:
    web3:
      - keys_equal
passed:
  description: Whether there are no violations.
  returned: success, and failure for O(fail_on)
  type: bool
  sample: true
lines:
  description: The summary as lines of text.
  returned: success, and failure for O(fail_on)
  type: list
  elements: str
  sample:
    - "12 hosts: 1 unreachable, 2 fail, 9 pass."
drift:
  description: The differences to O(previous) in numbers; the JSON report has them in full.
  returned: when previous is given
  type: dict
  sample:
    since: "2026-11-22T18:00:00Z"
    worse: 1
    better: 0
    verdicts: 1
    keys: 1
    files: 0
    added: 0
    removed: 0
files:
  description: The reports on the controller, by kind.
  returned: success, and failure for O(fail_on)
  type: dict
  sample:
    html: /var/lib/webfarm/compliance.html
evidence:
  description:
    - The evidence of this run, RV(ignore:number), RV(ignore:path), RV(ignore:sha256) and RV(ignore:signature).
    - Keep the hash elsewhere; it shows whether the newest evidence was cut off later.
  returned: when evidence_dir is given, outside check mode
  type: dict
  sample:
    number: 17
    path: /var/lib/webfarm/evidence/000017.evidence.json
    sha256: 7f750622a096d52d26538e42f17073479f484a0cb23968307d22db47a69eae22
    signature: /var/lib/webfarm/evidence/000017.evidence.json.p7s
"""
