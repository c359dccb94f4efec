#!powershell

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

#AnsibleRequires -CSharpUtil Ansible.Basic
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Host
#AnsibleRequires -PowerShell ..module_utils._Selftest

$spec = @{
    options = @{
        describe_iis_keys = @{
            type = 'bool'
            default = $false
        }
        host_name = @{
            type = 'bool'
            default = $false
        }
        report_dir = @{
            type = 'path'
            required = $true
        }
    }
    supports_check_mode = $true
}

$module = [Ansible.Basic.AnsibleModule]::Create($args, $spec)

$module.Result.changed = $false
$module.Result.leftovers = @()
$module.Result.server = $null
$module.Result.answers = @()

$lock = $null
try {
    Assert-WebfarmHost
    $module.Result.server = Get-WebfarmSelftestHost -Name:$module.Params.host_name
    if ($module.CheckMode) {
        $module.Result.leftovers = @(Get-WebfarmScratch)
        $module.Result.answers = @(Get-WebfarmPlannedAnswer)
    }
    else {
        $lock = Enter-WebfarmSelftest
        $trial = Invoke-WebfarmSelftest -DescribeIisKeys:$module.Params.describe_iis_keys
        $module.Result.leftovers = $trial.Removed
        $module.Result.answers = Protect-WebfarmIdentity -Value $trial.Answers
    }
    $module.Result.changed = $module.Result.leftovers.Count -gt 0
}
catch {
    $module.FailJson("The self-test failed: $(Get-WebfarmErrorText -ErrorRecord $_)", $_)
}
finally {
    if ($null -ne $lock) {
        $lock.ReleaseMutex()
        $lock.Dispose()
    }
}

$module.ExitJson()
