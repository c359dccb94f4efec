#!powershell

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

#AnsibleRequires -CSharpUtil Ansible.Basic
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._Change
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Host
#AnsibleRequires -PowerShell ..module_utils._KeyPlan
#AnsibleRequires -PowerShell ..module_utils._Restore

# The target half: finds the snapshot and restores it. One under older keys goes to the controller first, and comes back in _content.

$spec = @{
    options = @{
        backup = @{
            type = 'bool'
            default = $false
        }
        bundle = @{
            type = 'path'
        }
        containers = @{
            type = 'list'
            elements = 'str'
        }
        enabled = @{
            type = 'bool'
        }
        expected_fingerprints = @{
            type = 'dict'
        }
        max_histories = @{
            type = 'int'
        }
        number = @{
            type = 'int'
        }
        opening_content = @{
            type = 'str'
            no_log = $true
        }
        opening_file = @{
            type = 'path'
        }
        opening_passphrase = @{
            type = 'str'
            no_log = $true
        }
        path = @{
            type = 'str'
        }
        period = @{
            type = 'str'
        }
        select = @{
            type = 'str'
            choices = @('last_proven')
        }
        signer_certificate = @{
            type = 'path'
        }
        time = @{
            type = 'str'
        }
        _content = @{
            type = 'str'
            no_log = $true
        }
        _number = @{
            type = 'int'
        }
        _phase = @{
            type = 'str'
            choices = @('plan')
        }
    }
    mutually_exclusive = @(, @('number', 'time', 'select'))
    required_one_of = @(, @('number', 'time', 'select', 'enabled', 'path', 'max_histories', 'period'))
    supports_check_mode = $true
}

$transaction = Get-WebfarmTransactionSpec
$transaction.options.Remove('dependents')
$module = [Ansible.Basic.AnsibleModule]::Create($args, $spec, @($transaction, (Get-WebfarmServiceSpec)))
$given = $module.Params
# The keys of the server stay as they are.
$given._planned = @()
$given.dependents = 'fail'

$module.Result.changed = $false
$module.Result.snapshot = $null
$module.Result.differences = @()

$change = New-WebfarmChange -Parameter $given -CheckMode $module.CheckMode -Repair
$failure = $null
try {
    Assert-WebfarmHost
    $restores = $null -ne $given.number -or $given.time -or $given.select
    $settings = $null -ne $given.enabled -or $given.path -or $null -ne $given.max_histories -or $given.period
    if ($restores -and $settings) {
        throw 'A restore and settings of the history do not go together: the file that comes back has settings of its own. Use two tasks.'
    }
    Assert-WebfarmNotRedirected
    Open-WebfarmChange -Change $change
    if ($restores) {
        Restore-WebfarmSnapshot -Change $change
    }
    else {
        $change.Repair = $false
        Set-WebfarmHistory -Change $change
    }
}
catch {
    $failure = $_
}
finally {
    Close-WebfarmChange -Change $change
}

foreach ($name in $change.Result.Keys) {
    $module.Result[$name] = $change.Result[$name]
}
if ($change.Diff) {
    $module.Diff.before = $change.Diff.before
    $module.Diff.after = $change.Diff.after
}
foreach ($text in $change.Warning) {
    $module.Warn($text)
}
if ($null -ne $failure) {
    $module.FailJson("$(Get-WebfarmErrorText -ErrorRecord $failure)", $failure)
}
$module.ExitJson()
