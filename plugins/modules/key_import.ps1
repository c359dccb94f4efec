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
#AnsibleRequires -PowerShell ..module_utils._Transaction

# The target half. Phase compare looks, phase apply imports the sealed keys: the same transaction as in config, without a
# candidate and without touching services. What the controller does is in the action plugin of the same name.

$spec = @{
    options = @{
        allow_running = @{
            type = 'bool'
            default = $false
        }
        bundle = @{
            type = 'path'
            required = $true
        }
        _expected_sha256 = @{
            type = 'str'
        }
    }
    supports_check_mode = $true
}

$module = [Ansible.Basic.AnsibleModule]::Create($args, $spec, @((Get-WebfarmBundleSpec), (Get-WebfarmTransactionSpec), (Get-WebfarmDeadmanSpec)))

$module.Result.changed = $false
$module.Result.key_containers = @()
$module.Result.dependent_files = @()
$module.Result.dependent_values = @()
$module.Result.lost = @()
$module.Result.reencrypted = @()
$module.Result.steps = @()
$module.Result.transaction = @{ outcome = 'none' }

$change = New-WebfarmChange -Parameter $module.Params -CheckMode $module.CheckMode
$failure = $null
try {
    Assert-WebfarmHost
    if ($module.Params._phase -eq 'cleanup') {
        Remove-WebfarmTransport -Name $module.Params._transport
    }
    else {
        Assert-WebfarmNotRedirected
        Open-WebfarmChange -Change $change
        Read-WebfarmChangeFile -Change $change
        Read-WebfarmChangeKey -Change $change
        if (-not $module.Params.allow_running) {
            Assert-WebfarmNotRunning -Change $change
        }
        Confirm-WebfarmChange -Change $change
        Invoke-WebfarmChange -Change $change
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
