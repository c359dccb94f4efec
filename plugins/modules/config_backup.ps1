#!powershell

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

#AnsibleRequires -CSharpUtil Ansible.Basic
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._Backup
#AnsibleRequires -PowerShell ..module_utils._Change
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Fit
#AnsibleRequires -PowerShell ..module_utils._Host
#AnsibleRequires -PowerShell ..module_utils._KeyPlan
#AnsibleRequires -PowerShell ..module_utils._Restore
#AnsibleRequires -PowerShell ..module_utils._Transaction

# The target half: backups on the server, and the restore through the transaction. Archives are the action plugin's.

$spec = @{
    options = @{
        bundle = @{
            type = 'path'
        }
        dest = @{
            type = 'path'
        }
        farm = @{
            type = 'str'
            default = 'iis'
        }
        force = @{
            type = 'bool'
            default = $false
        }
        keep = @{
            type = 'int'
        }
        keep_days = @{
            type = 'int'
        }
        name = @{
            type = 'str'
        }
        overrides = @{
            type = 'dict'
        }
        recipients = @{
            type = 'list'
            elements = 'path'
        }
        restore_keys = @{
            type = 'bool'
            default = $false
        }
        sealed_keys = @{
            type = 'bool'
            default = $true
        }
        src = @{
            type = 'path'
        }
        state = @{
            type = 'str'
            choices = 'absent', 'present', 'restored', 'verified'
            default = 'present'
        }
        _administration = @{
            type = 'str'
            no_log = $true
        }
        _content = @{
            type = 'str'
            no_log = $true
        }
        _expected_sha256 = @{
            type = 'str'
        }
        _fetch = @{
            type = 'bool'
        }
        _machine_guid = @{
            type = 'str'
        }
    }
    supports_check_mode = $true
}

$more = @((Get-WebfarmBundleSpec), (Get-WebfarmFitSpec), (Get-WebfarmServiceSpec), (Get-WebfarmTransactionSpec))
$module = [Ansible.Basic.AnsibleModule]::Create($args, $spec, $more)
$given = $module.Params

$module.Result.changed = $false
$module.Result.backup = $null
$module.Result.deleted = @()
$module.Result.host = [System.Environment]::MachineName
$module.Result.machine_guid = [WebfarmKeyContainer]::MachineGuid()

$change = New-WebfarmChange -Parameter $given -CheckMode $module.CheckMode -Repair
$failure = $null
try {
    Assert-WebfarmHost
    if ($given._phase -eq 'cleanup') {
        Remove-WebfarmTransport -Name $given._transport
    }
    else {
        Open-WebfarmChange -Change $change
        if ($given.state -eq 'restored') {
            Assert-WebfarmNotRedirected
            Restore-WebfarmBackup -Change $change
        }
        else {
            $task = @{
                Change = $change
                State = $given.state
                Name = [string]$given.name
                Force = $given.force
                Keep = [int]$given.keep
                KeepDays = [int]$given.keep_days
            }
            Invoke-WebfarmBackupTask @task
            if ($given._fetch -and -not $change.Result.backup.planned) {
                $files = @(Read-WebfarmBackup -Name $change.Result.backup.name)
                $module.Result._key_fingerprints = Get-WebfarmKeyMark -File $files
                $module.Result._files = @(
                    foreach ($file in $files) {
                        @{ name = $file.name; content = ConvertTo-WebfarmPackedText -Content $file.content }
                    }
                )
            }
        }
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
