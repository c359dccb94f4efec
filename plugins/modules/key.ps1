#!powershell

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

#AnsibleRequires -CSharpUtil Ansible.Basic
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._Change
#AnsibleRequires -PowerShell ..module_utils._CngSetup
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Host
#AnsibleRequires -PowerShell ..module_utils._KeyPlan
#AnsibleRequires -PowerShell ..module_utils._OwnKey
#AnsibleRequires -PowerShell ..module_utils._Transaction

$spec = @{
    options = @{
        access = @{
            type = 'dict'
            options = @{
                add = @{
                    type = 'list'
                    elements = 'dict'
                    options = @{
                        account = @{
                            type = 'str'
                            required = $true
                        }
                        rights = @{
                            type = 'str'
                            choices = 'read', 'full'
                            default = 'read'
                        }
                    }
                }
                remove = @{
                    type = 'list'
                    elements = 'dict'
                    options = @{
                        account = @{
                            type = 'str'
                            required = $true
                        }
                    }
                }
                set = @{
                    type = 'list'
                    elements = 'dict'
                    options = @{
                        account = @{
                            type = 'str'
                            required = $true
                        }
                        rights = @{
                            type = 'str'
                            choices = 'read', 'full'
                            default = 'read'
                        }
                    }
                }
            }
        }
        container = @{
            type = 'str'
            required = $true
            aliases = @('name')
        }
        exportable = @{
            type = 'bool'
        }
        method = @{
            type = 'str'
            choices = 'cryptoapi', 'iis_setup'
            default = 'cryptoapi'
        }
        regenerate = @{
            type = 'str'
            choices = 'never', 'fail', 'partial_idempotence', 'full_idempotence', 'always'
            default = 'fail'
        }
        size = @{
            type = 'int'
            choices = 2048, 3072, 4096
        }
        state = @{
            type = 'str'
            choices = 'absent', 'present'
            default = 'present'
        }
    }
    supports_check_mode = $true
}

$module = [Ansible.Basic.AnsibleModule]::Create($args, $spec, @((Get-WebfarmTransactionSpec), (Get-WebfarmServiceSpec)))

$module.Result.changed = $false
$module.Result.access = @{ before = @(); after = @() }
$module.Result.dependent_files = @()
$module.Result.dependent_values = @()
$module.Result.key_containers = @()
$module.Result.lost = @()
$module.Result.reencrypted = @()
$module.Result.services = @()
$module.Result.app_pools = @()
$module.Result.sites = @()
$module.Result.steps = @()
$module.Result.transaction = @{ outcome = 'none' }

$change = New-WebfarmChange -Parameter $module.Params -CheckMode $module.CheckMode
$failure = $null
$access = $null
try {
    Assert-WebfarmHost
    Assert-WebfarmNotRedirected
    if ($module.Params.state -eq 'absent' -and $null -ne $module.Params.access) {
        throw 'access: an absent key has no access list. Leave it out.'
    }
    Assert-WebfarmKeyMethod -Parameter $module.Params
    Open-WebfarmChange -Change $change
    Read-WebfarmChangeFile -Change $change
    if ($module.Params.method -eq 'iis_setup') {
        Invoke-WebfarmCngSetup -Change $change
    }
    else {
        $access = Read-WebfarmOwnKey -Change $change
        Confirm-WebfarmChange -Change $change -RenewSession
        # Who may read a key concerns nobody who reads it now.
        $inService = $false
        if ($change.Import.Count -gt 0 -and $change.Import[0].key_changes) {
            $inService = Test-WebfarmOwnKeyInUse -Change $change
        }
        Invoke-WebfarmChange -Change $change -InService:$inService
    }
}
catch {
    $failure = $_
}
finally {
    Close-WebfarmChange -Change $change
}

foreach ($name in $change.Result.Keys) {
    if (-not $name.StartsWith('_')) {
        $module.Result[$name] = $change.Result[$name]
    }
}
if ($null -ne $access) {
    $module.Result.access = $access
}
if ($change.Diff) {
    $module.Diff.before = $change.Diff.before
    $module.Diff.after = $change.Diff.after
    if ($null -ne $access) {
        $module.Diff.before.access = @($access.before | ForEach-Object -Process { "$($_.type) $($_.account) $($_.rights)" })
        $module.Diff.after.access = @($access.after | ForEach-Object -Process { "$($_.type) $($_.account) $($_.rights)" })
    }
}
foreach ($text in $change.Warning) {
    $module.Warn($text)
}
if ($null -ne $failure) {
    $module.FailJson("$(Get-WebfarmErrorText -ErrorRecord $failure)", $failure)
}
$module.ExitJson()
