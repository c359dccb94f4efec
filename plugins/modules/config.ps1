#!powershell

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

#AnsibleRequires -CSharpUtil Ansible.Basic
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._Change
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Fit
#AnsibleRequires -PowerShell ..module_utils._Host
#AnsibleRequires -PowerShell ..module_utils._KeyPlan
#AnsibleRequires -PowerShell ..module_utils._Transaction

# The target half. Phase plan looks, proves what can be proven, and where no key has to arrive does everything; phase apply
# does the rest with the sealed keys. What the controller does is in the action plugin of the same name.

$spec = @{
    options = @{
        backup = @{
            type = 'bool'
            default = $false
        }
        bundle = @{
            type = 'path'
        }
        golden_verdicts = @{
            type = 'list'
            elements = 'dict'
        }
        overrides = @{
            type = 'dict'
        }
        planned_fingerprints = @{
            type = 'dict'
        }
        planned_sha256 = @{
            type = 'str'
        }
        remote_src = @{
            type = 'bool'
            default = $false
        }
        src = @{
            type = 'path'
        }
        _content = @{
            type = 'str'
            no_log = $true
        }
        _expected_sha256 = @{
            type = 'str'
        }
    }
    supports_check_mode = $true
}

$more = @((Get-WebfarmBundleSpec), (Get-WebfarmFitSpec), (Get-WebfarmServiceSpec), (Get-WebfarmTransactionSpec))
$module = [Ansible.Basic.AnsibleModule]::Create($args, $spec, $more)

$module.Result.changed = $false
$module.Result.key_containers = @()
$module.Result.configuration_file = $null
$module.Result.dependent_files = @()
$module.Result.dependent_values = @()
$module.Result.expects = $null
$module.Result.fit = @()
$module.Result.lost = @()
$module.Result.missing_features = @()
$module.Result.reencrypted = @()
$module.Result.protected_values = @()
$module.Result.proof = $null
$module.Result.services = @()
$module.Result.app_pools = @()
$module.Result.sites = @()
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
        if (-not $module.Params.src -and (-not $module.Params.bundle -or $module.Params.remote_src)) {
            throw 'src: give a configuration, or a bundle, or both. Without src the server keeps its own configuration, and only its keys change.'
        }
        Assert-WebfarmNotRedirected
        Open-WebfarmChange -Change $change
        Read-WebfarmChangeFile -Change $change
        Read-WebfarmChangeKey -Change $change
        Confirm-WebfarmChange -Change $change
        if (-not $module.Params.src) {
            Confirm-WebfarmOwnFile -Change $change
        }
        Invoke-WebfarmChange -Change $change -InService
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
