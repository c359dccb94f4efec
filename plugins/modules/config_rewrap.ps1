#!powershell

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

#AnsibleRequires -CSharpUtil Ansible.Basic
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Host
#AnsibleRequires -PowerShell ..module_utils._Rewrap

# The target half: reads a configuration on the server whose keys open it, proves it, and returns a copy without CNG values.
# A second call wraps the secrets of that copy for the public keys of other servers. Nothing is written on the server; the
# action plugin of the same name writes the files.

$spec = @{
    options = @{
        accept_undecryptable = @{
            type = 'list'
            elements = 'dict'
            default = @()
            options = @{
                path = @{
                    type = 'str'
                    required = $true
                }
                reason = @{
                    type = 'str'
                    required = $true
                }
            }
        }
        cng = @{
            type = 'str'
            choices = @('refuse', 'portable')
            default = 'refuse'
        }
        dest = @{
            type = 'path'
        }
        path = @{
            type = 'path'
        }
    }
    supports_check_mode = $true
}

$module = [Ansible.Basic.AnsibleModule]::Create($args, $spec, @(, (Get-WebfarmRewrapSpec)))

$module.Result.changed = $false
$module.Result.host = [System.Environment]::MachineName
$module.Result.machine_guid = $null
$module.Result.path = $module.Params.path
$module.Result.source_sha256 = $null
$module.Result.sha256 = $null
$module.Result.conversions = @()
$module.Result.session_keys = @()
$module.Result.protected_values = @()
$module.Result.accepted_undecryptable = @()

try {
    Assert-WebfarmHost
    $accepted = ConvertTo-WebfarmAcceptance -List $module.Params.accept_undecryptable
    $module.Result.machine_guid = [WebfarmKeyContainer]::MachineGuid()
    if ($module.Params._targets) {
        $wrapping = @{
            Copy = $module.Params._existing
            Target = $module.Params._targets
            Left = @($accepted.Keys)
            Fresh = $module.Params.session_key -eq 'per_host'
        }
        $wrapped = Get-WebfarmWrapping @wrapping
    }
    else {
        $source = Read-WebfarmRewrapSource -Path $module.Params.path
        $module.Result.path = $source.Path
        $module.Result.source_sha256 = $source.File.Sha256
        $proof = Get-WebfarmProof -File $source.File -Accepted $accepted
    }
}
catch {
    $module.FailJson("No copy was made. $(Get-WebfarmErrorText -ErrorRecord $_)", $_)
}

if ($module.Params._targets) {
    $module.Result.sha256 = $wrapped.Sha256
    $module.Result._paths = $wrapped.Paths
    $module.Result._wrapped = $wrapped.Answer
    $module.ExitJson()
}

$module.Result.session_keys = $proof.SessionKeys
$module.Result.protected_values = $proof.ProtectedValues
$module.Result.accepted_undecryptable = $proof.Accepted
foreach ($path in $proof.Unneeded) {
    $module.Warn("accept_undecryptable: '$path' is not needed, there is no such value in this file or it decrypts; remove the entry.")
}

if ($proof.Problems.Count -gt 0) {
    $module.FailJson("No copy was made: this server cannot open $($proof.Problems.Count) session keys and protected values of '$($source.Path)'. " +
        "$(Format-WebfarmProblem -Problem $proof.Problems) " +
        'What is known to be broken and not needed can be listed with a reason in accept_undecryptable.')
}

$cngValues = @($proof.ProtectedValues | Where-Object -FilterScript { $_.kind -eq 'cng' -and -not $_.accepted })
if ($module.Params.cng -eq 'refuse' -and $cngValues.Count -gt 0) {
    $list = @($cngValues | ForEach-Object -Process { "line $($_.line): $($_.path) ($($_.provider))" }) -join '; '
    $module.FailJson("No copy was made: $($cngValues.Count) values of '$($source.Path)' depend on CNG keys, which no other server has: $list. " +
        'Use cng: portable to encrypt them again under the AES providers in the copy (the file on this server stays as it is).')
}

try {
    $content = $source.File.Bytes
    if ($module.Params.cng -eq 'portable') {
        # A value that was accepted as undecryptable stays as it is.
        $left = [string[]]@($proof.Accepted | ForEach-Object -Process { $_.path })
        $portable = [WebfarmProtection]::MakePortable($source.File, $left)
        $content = $portable.Bytes
        $module.Result.conversions = @(
            foreach ($conversion in $portable.Conversions) {
                [ordered]@{
                    path = $conversion.Path
                    from_provider = $conversion.FromProvider
                    to_provider = $conversion.ToProvider
                    to_container = $source.File.Provider($conversion.ToProvider).Container
                }
            }
        )
    }
    $copy = [WebfarmConfiguration]::Parse($content, $source.File.Name)
    $sameSha256 = Get-WebfarmSameCopy -Text $module.Params._existing -File $copy
    $module.Result.same_content = [bool]$sameSha256
    if ($sameSha256) {
        $module.Result.sha256 = $sameSha256
    }
    else {
        $module.Result.sha256 = $copy.Sha256
        $module.Result._content = ConvertTo-WebfarmPackedText -Content $content
    }
}
catch {
    $module.FailJson("No copy was made. $(Get-WebfarmErrorText -ErrorRecord $_)", $_)
}

$module.ExitJson()
