# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the option of every module that refuses a configuration which does not fit the server."""

from __future__ import annotations


class ModuleDocFragment:
    """Shared option."""

    DOCUMENTATION = r"""
options:
  accept_unfit:
    description:
      - Findings of RV(fit) that are taken as they are, each with the reason. The result keeps showing them.
      - O(accept_unfit[].code=older_generation) is how the configuration of an older IIS is migrated to this server.
    type: list
    elements: dict
    default: []
    suboptions:
      code:
        description:
          - The code of the finding, as RV(fit) and the message show it.
        type: str
        required: true
        choices:
          - folder_user_unknown
          - iis_express
          - module_dll_missing
          - newer_generation
          - not_in_schema
          - older_generation
          - pending_reboot
          - pool_user_unknown
          - schema_unreadable
          - section_without_schema
          - address_absent
          - certificate_absent
          - certificate_not_checked
          - folder_absent
          - isapi_cgi_absent
          - isapi_filter_absent
          - log_folder_absent
          - share_not_checked
      path:
        description:
          - The path of one finding. Without it every finding of the code is accepted.
        type: str
      reason:
        description:
          - Why it is accepted. It must not be empty.
        type: str
        required: true
"""
