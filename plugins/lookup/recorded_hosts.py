# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of the hosts whose records have a certain outcome."""

from __future__ import annotations

DOCUMENTATION = r"""
name: recorded_hosts
short_description: Hosts by the outcome of their compliance record
version_added: 0.1.0
author: the webfarm.iis authors (!UNKNOWN)
description:
  - Names of the hosts whose record in a folder of M(webfarm.iis.compliance_record) has a certain outcome. Only the
    heads of the records are read, so that it is quick for thousands of hosts.
options:
  _terms:
    description: Folders of records on the controller. A folder that does not exist holds no hosts.
    type: list
    elements: path
    required: true
  outcome:
    description: The outcome.
    type: str
    choices: [answered, unreachable, failed]
    default: unreachable
seealso:
  - module: webfarm.iis.compliance_record
"""

EXAMPLES = r"""
- name: Who did not answer?
  ansible.builtin.debug:
    msg: "{{ query('webfarm.iis.recorded_hosts', '/var/lib/webfarm/records') }}"
"""

RETURN = r"""
_raw:
  description: Names of hosts, sorted.
  type: list
  elements: str
"""

from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.errors import AnsibleLookupError  # noqa: E402
from ansible.plugins.lookup import LookupBase  # noqa: E402

from ansible_collections.webfarm.iis.plugins.plugin_utils import _record  # noqa: E402


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        found: set[str] = set()
        for term in terms:
            folder = Path(self._loader.path_dwim(term))
            if folder.is_dir():
                try:
                    found.update(_record.hosts_with_outcome(folder, self.get_option("outcome")))
                except _record.RecordError as error:
                    raise AnsibleLookupError(f"recorded_hosts: {error}") from None
        return sorted(found)
