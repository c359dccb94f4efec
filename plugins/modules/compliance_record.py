#!/usr/bin/python

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the work is done by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
---
module: compliance_record
short_description: Record the facts of an IIS server in one file on the controller
version_added: 0.1.0
description:
  - Calls M(webfarm.iis.server_info) once on the server and writes what it returns into one JSON file on the controller,
    in one step. A folder of such files is all that M(webfarm.iis.fleet_report) reads.
  - The facts are not part of the result. So a run over many hosts needs little memory, and no fact cache holds them.
  - A host that cannot be reached and a host whose facts cannot be gathered get a record as well, with the reason. The
    first stays unreachable for Ansible (set C(ignore_unreachable) to go on); the second is no failure of the task, but
    RV(outcome) says V(failed).
options:
  canonical_ignore:
    description:
      - Paths of attributes and elements that do not count when configurations are compared. C(*) stands for anything.
    type: list
    elements: str
    default: []
  canonical_overrides:
    description:
      - Paths of attributes whose value is each server's own. They have to be there; their value does not count.
    type: list
    elements: str
    default: []
  containers:
    description:
      - Further key containers to look at, as in M(webfarm.iis.key_info).
    type: list
    elements: str
    default: []
  decrypt:
    description:
      - How far the proof of the values goes, as in M(webfarm.iis.key_info).
    type: str
    choices:
      - none
      - session
      - all
    default: all
  farm:
    description:
      - The farm of this server. Rules that compare servers compare those of one farm.
    type: str
    default: iis
  gather_subset:
    description:
      - What is gathered, as in M(webfarm.iis.server_info). Rules that need what was not gathered say V(unknown).
    type: list
    elements: str
    default:
      - all
  report_dir:
    description:
      - Folder on the controller for the records. It is made when it is missing.
      - The file is named after the host in the inventory, with the ending C(.host.json). An older one is replaced.
    type: path
    required: true
  run_key:
    description:
      - Key under which secrets that stand in clear text are made comparable, 64 to 128 hexadecimal digits. The records
        hold HMACs under it and never the secrets, nor hashes that could be tried out.
      - Without it a random one is made for each run. Give one to the slices of a run, so that their records can be
        compared. It does not have to be kept, and is best not kept.
    type: str
  web_configurations:
    description:
      - V(sites) looks at the C(web.config) files at the roots of applications too, as in M(webfarm.iis.server_info).
    type: str
    choices:
      - none
      - sites
    default: sites
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
  - ansible.builtin.action_common_attributes.flow
  - webfarm.iis.attributes
attributes:
  action:
    support: full
  async:
    support: none
  bypass_host_loop:
    support: none
  check_mode:
    support: full
    details: The facts are gathered, the record is not written.
  diff_mode:
    support: none
  idempotent:
    support: full
  platform:
    platforms: windows
notes:
  - Nothing on the server is changed. The task never says V(changed), although the record is written anew each time.
  - Records hold no secrets, but they tell where keys are weak. The folder is made with mode 0750, the files with 0640.
seealso:
  - module: webfarm.iis.fleet_report
  - module: webfarm.iis.server_info
author: the webfarm.iis authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Record every server
  webfarm.iis.compliance_record:
    report_dir: /var/lib/webfarm/records
    farm: shop
  ignore_unreachable: true
"""

RETURN = r"""
outcome:
  description:
    - V(answered), V(unreachable) or V(failed).
  returned: always
  type: str
  sample: answered
message:
  description: Why there are no facts.
  returned: when outcome is not V(answered)
  type: str
  sample: The module refuses to work without an elevated token.
path:
  description: The record on the controller.
  returned: always
  type: str
  sample: /var/lib/webfarm/records/web1.host.json
recorded:
  description: When it was taken (UTC).
  returned: always
  type: str
  sample: "2026-11-23T18:00:00Z"
"""
