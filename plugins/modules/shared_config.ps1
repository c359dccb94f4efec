#!powershell

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

#AnsibleRequires -CSharpUtil Ansible.Basic
#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._Logon
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -PowerShell ..module_utils._Change
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Fit
#AnsibleRequires -PowerShell ..module_utils._Host
#AnsibleRequires -PowerShell ..module_utils._KeyPlan
#AnsibleRequires -PowerShell ..module_utils._SharedConfig

$spec = @{
    options = @{
        copy_keys = @{
            type = 'bool'
            default = $true
        }
        expected_fingerprints = @{
            type = 'dict'
        }
        force = @{
            type = 'bool'
            default = $false
        }
        keep = @{
            type = 'str'
            choices = @('keys', 'keys_and_configuration')
        }
        key_encryption_password = @{
            type = 'str'
            no_log = $true
        }
        password = @{
            type = 'str'
            no_log = $true
        }
        path = @{
            type = 'str'
        }
        state = @{
            type = 'str'
            choices = @('exported', 'enabled', 'disabled')
            required = $true
        }
        undo_expiry_hours = @{
            type = 'int'
            default = 72
        }
        user_name = @{
            type = 'str'
        }
        without_undo = @{
            type = 'bool'
            default = $false
        }
    }
    required_if = @(
        , @('state', 'exported', @('path', 'key_encryption_password'))
        , @('state', 'enabled', @(, 'path'))
    )
    required_together = @(
        , @('user_name', 'password')
    )
    supports_check_mode = $true
}

$module = [Ansible.Basic.AnsibleModule]::Create($args, $spec, @((Get-WebfarmFitSpec), (Get-WebfarmServiceSpec)))

$module.Result.changed = $false
$module.Result.fit = @()
$module.Result.missing_features = @()
$module.Result.shared_config = $null
$module.Result.key_containers = @()
$module.Result.services = @()
$module.Result.app_pools = @()
$module.Result.sites = @()
$module.Result.steps = @()
$module.Result.transaction = @{ outcome = 'none' }

$given = @{}
foreach ($name in $module.Params.Keys) {
    $given[$name] = $module.Params[$name]
}
$state = $given.state
$path = ([string]$given.path).TrimEnd('\')
$change = New-WebfarmChange -Parameter $given -CheckMode $module.CheckMode
$failure = $null
$plan = @()
try {
    Assert-WebfarmHost
    Assert-WebfarmSharedOption -Parameter $given
    Open-WebfarmChange -Change $change
    Import-WebfarmIisAdministration
    $secret = [WebfarmLogon]::Secure($given.password)
    $keySecret = [WebfarmLogon]::Secure($given.key_encryption_password)
    $before = Get-WebfarmSharedState
    $after = [ordered]@{ enabled = $before.enabled; path = $before.path; user_name = $before.user_name }
    $plan = @(Get-WebfarmSharedKey)
    $account = @{ Path = $path; UserName = [string]$given.user_name; Password = $secret }
    $needed = $false
    if ($state -eq 'exported') {
        Assert-WebfarmNotRedirected -Advice 'Export on the server that the shared files came from.'
        $needed = $given.force -or -not (Test-WebfarmExported @account)
        if ($needed -and -not $module.CheckMode) {
            $parameter = @{ PhysicalPath = $path; KeyEncryptionPassword = $keySecret; UserName = $given.user_name; Password = $secret }
            Export-WebfarmShared -Path $path -Parameter $parameter
            $change.Result.steps = @("Exported the configuration and its keys to $path.")
        }
    }
    elseif ($state -eq 'enabled') {
        if ($before.enabled -and $before.path.TrimEnd('\') -ne $path) {
            throw "path: shared configuration is enabled already, from $($before.path). Disable it first (state=disabled)."
        }
        $needed = -not $before.enabled -or $before.user_name -ne [string]$given.user_name
        $remote = Read-WebfarmSharedFolder @account -WithKey $given.copy_keys
        if (-not $needed -or -not $given.copy_keys) {
            $advice = 'Set copy_keys and key_encryption_password to import its keys. Nothing was changed.'
            Assert-WebfarmSharedProof -File $remote.applicationHost -Name 'the shared applicationHost.config' -Advice $advice
        }
        Assert-WebfarmSharedFit -Change $change -File $remote.applicationHost -InUse $before.enabled
        $after = [ordered]@{ enabled = $true; path = $path; user_name = [string]$given.user_name }
        if ($path.StartsWith('\\') -and -not $given.user_name) {
            $module.Warn("Without user_name IIS reads $path as the account of this computer, which cannot be tried from here.")
        }
        if ($needed -and -not $module.CheckMode) {
            $parameter = @{ PhysicalPath = $path; KeyEncryptionPassword = $keySecret; UserName = $given.user_name; Password = $secret }
            if (-not $given.copy_keys) {
                $parameter.DontCopyRemoteKeys = $true
            }
            $action = {
                param ($Steps)
                $call = @{ Parameter = $parameter; Plan = $plan; Remote = $remote; Expected = $given.expected_fingerprints }
                Enable-WebfarmShared @call
                $Steps.Add("Enabled the shared configuration from $path and proved it with the keys in their containers.")
            }
            Invoke-WebfarmSharedTransaction -Change $change -Plan $plan -Action $action
        }
    }
    elseif ($before.enabled) {
        $needed = $true
        $copy = $given.keep -eq 'keys_and_configuration'
        $after = [ordered]@{ enabled = $false; path = $before.path; user_name = $before.user_name }
        $stays = Get-WebfarmStayingFile -Copy $copy -State $before -Password $secret
        if (-not $module.CheckMode) {
            $action = {
                param ($Steps)
                Disable-WebfarmShared -Copy $copy -Plan $plan -Expected $stays
                $Steps.Add('Disabled the shared configuration; the imported keys stay.')
            }
            Invoke-WebfarmSharedTransaction -Change $change -Plan $plan -Action $action
        }
    }
    $module.Diff.before = @{ shared_config = $before }
    $module.Diff.after = @{ shared_config = $after }
    if ($needed) {
        $change.Result.changed = $true
    }
    if ($needed -and $state -eq 'exported') {
        $module.Diff.after.exported = $path
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
foreach ($text in $change.Warning) {
    $module.Warn($text)
}
$module.Result.key_containers = @(
    foreach ($entry in $plan) {
        [ordered]@{ container = $entry.container; before = $entry.before.fingerprint; after = $entry.after.fingerprint }
    }
)
try {
    $module.Result.shared_config = Get-WebfarmSharedState
}
catch {
    $module.Warn("$(Get-WebfarmErrorText -ErrorRecord $_)")
}
if ($null -ne $failure) {
    $message = Get-WebfarmSentence -ErrorRecord $failure
    if ($module.Result.transaction.outcome -eq 'none' -and $state -ne 'exported' -and -not $message.Contains('Nothing was changed')) {
        $message += ' Nothing was changed.'
    }
    $module.FailJson($message, $failure)
}
$module.ExitJson()
