# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options that every module with a transaction shares."""

from __future__ import annotations


class ModuleDocFragment:
    """Shared options; all of them extend C(webfarm.iis.transaction.deadman), and a module that
    stops and starts services C(webfarm.iis.transaction.services) as well."""

    # What happens to what the old keys open, and how long the way back is kept.
    DOCUMENTATION = r"""
options:
  dependents:
    description:
      - What becomes of protected values that the old key opens and that the change does not carry along. They may be
        in the configuration files of IIS, in C(web.config) files under the sites, and in the registry values of the
        Centralized Certificate Store.
      - V(fail) lists them and changes nothing.
      - V(reencrypt) encrypts them anew for the new key in the same transaction, with new session keys.
      - Values that the old key does not open either are listed as lost. With V(reencrypt) each of them has to be
        accepted with O(accept_undecryptable).
      - Shares are not searched, and a folder tree beyond 20000 folders only in part; both give a warning.
    type: str
    choices:
      - fail
      - reencrypt
    default: fail
  undo_expiry_hours:
    description:
      - How long the undo set is kept. A later run of a module that changes something deletes it when its time is over.
    type: int
    default: 72
  without_undo:
    description:
      - Go on when the old state cannot be kept completely, for instance because a key is neither exportable nor
        has a key file.
      - A failure then can leave the server without its old keys.
    type: bool
    default: false
"""

    # The way back alone, for a module that changes no key.
    UNDO = r"""
options:
  undo_expiry_hours:
    description:
      - How long the undo set is kept. A later run of a module that changes something deletes it when its time is over.
    type: int
    default: 72
  without_undo:
    description:
      - Go on when the old state cannot be kept completely, for instance because a key is neither exportable nor
        has a key file.
      - A failure then can leave the server without its old keys.
    type: bool
    default: false
"""

    # What precedes a change, and the scheduled task that settles an interrupted run.
    DEADMAN = r"""
notes:
  - The scheduled task that settles an interrupted run (O(deadman_minutes)), the start types that go with it, and the
    way back with C(appcmd) from the backup that precedes a change (O(prior_backups)) were tried in the lab of this
    collection and not verified on Windows. The guide to the transaction says how to settle a run by hand.
options:
  _settler:
    description:
      - Internal. The script of that task, set by the action plugin.
    type: str
  deadman_minutes:
    description:
      - After how many minutes a scheduled task of the target settles the run if it was interrupted. The task also runs
        when the server starts. It completes what was written and holds, and undoes everything else, needs nothing from
        the controller, and removes itself. While the run itself is still working the task waits and tries again every
        five minutes.
      - V(0) registers no task, for servers where policy forbids scheduled tasks. An interrupted run then waits for the
        next run of a module, with the services of IIS stopped and not starting with Windows.
      - Give it more than the change usually takes.
    type: int
    default: 15
  prior_backups:
    description:
      - Before anything changes, a backup of the present configuration is made, in the layout that
        C(appcmd list backups) shows. Its name is C(webfarm-), the time in UTC and the end of the transaction's id; the
        result names it in RV(transaction). Nothing is changed where it cannot be made.
      - So many of these backups are kept, the newest ones; older ones are deleted when a change has succeeded. No other
        backup is touched.
      - A change that is undone leaves its backup. Where the newest one already holds the present files under the
        present keys, none is made, so that a change that fails again and again does not fill the disk.
      - V(0) makes none and deletes none.
    type: int
    default: 10
"""

    # Services around the change.
    SERVICES = r"""
attributes:
  action_group:
    description:
      - Use C(group/webfarm.iis.transaction) in C(module_defaults) to set the options of services for all modules of
        the group.
    support: full
    membership:
      - webfarm.iis.transaction
options:
  logon_test:
    description:
      - Try whether the accounts of application pools log on with the passwords of the new configuration, when keys and
        files are written and nothing is started yet. Where one does not, the change is undone.
      - An account is tried once in a run, however many pools use it, and never in check mode or when an interrupted run
        is settled. Pools that do not run, and accounts without a password (group managed service accounts), are left
        out.
      - Every try with a wrong password counts towards the lockout of the account. In a domain the servers of a farm
        count together. Try one server first, and do not use this where the threshold is low.
      - Where the domain does not answer there is a warning, and the change goes on.
      - Not verified on Windows.
    type: bool
    default: false
  start_services:
    description:
      - Which services are started after the change, and belong to the health check.
      - V(as_before) starts those that ran. V(automatic) also starts those that start with Windows, and what
        they need. A new server without the right key has them stopped, because they could not start.
      - A server where nothing changes is left as it is.
    type: str
    choices:
      - as_before
      - automatic
    default: as_before
  start_timeout:
    description:
      - How many seconds each service may take to start, and the requests of the health check to be answered.
    type: int
    default: 180
  stop_timeout:
    description:
      - How many seconds each service may take to stop. A service that takes longer is not killed, the change is undone.
    type: int
    default: 180
  verify_urls:
    description:
      - URLs that must answer after the change. They are asked on the target itself, at the address of the
        binding that fits; name resolution and load balancers have no part in it, and certificates are not judged.
      - Each is asked again until it answers as it should or O(start_timeout) is over.
    type: list
    elements: dict
    default: []
    suboptions:
      host_header:
        description: The host name to ask for, when it is not the one in the URL.
        type: str
      status:
        description: The status codes that are right.
        type: list
        elements: int
        default:
          - 200
      url:
        description: An http or https URL.
        type: str
        required: true
  warm_up:
    description:
      - Send one request to every started site with an http binding. An answer 503 or a 500.19 page means that
        the server is not healthy.
    type: bool
    default: true
"""
