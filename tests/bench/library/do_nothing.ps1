#!powershell

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

#AnsibleRequires -CSharpUtil Ansible.Basic

# The floor: what any module of Ansible costs that does nothing at all.
$module = [Ansible.Basic.AnsibleModule]::Create($args, @{ supports_check_mode = $true })
$module.Result.changed = $false
$module.ExitJson()
