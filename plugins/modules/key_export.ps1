#!powershell

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

#AnsibleRequires -CSharpUtil Ansible.Basic
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._Diagnosis
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Host

# The target half: proves that this server opens its own files, then seals its private keys, or new ones, to the recipients.
# What the controller does (certificates, signature, generations, the bundle itself) is in the action plugin of the same name.

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
        containers = @{
            type = 'list'
            elements = 'str'
            default = @('iisWasKey', 'iisConfigurationKey')
        }
        dest = @{
            type = 'path'
            required = $true
        }
        farm = @{
            type = 'str'
            required = $true
        }
        generate = @{
            type = 'bool'
            default = $false
        }
        generation = @{
            type = 'int'
        }
        in_use = @{
            type = 'list'
            elements = 'dict'
        }
        recipients = @{
            type = 'list'
            elements = 'path'
            required = $true
        }
        signing_certificate = @{
            type = 'path'
        }
        signing_file = @{
            type = 'path'
        }
        signing_passphrase = @{
            type = 'str'
            no_log = $true
        }
        size = @{
            type = 'int'
            choices = @(2048, 3072, 4096)
            default = 2048
        }
        _recipients = @{
            type = 'list'
            elements = 'dict'
            default = @()
            options = @{
                exponent = @{
                    type = 'str'
                    required = $true
                }
                modulus = @{
                    type = 'str'
                    required = $true
                }
            }
        }
    }
    required_together = @(
        , @('signing_file', 'signing_certificate')
    )
    supports_check_mode = $true
}

$module = [Ansible.Basic.AnsibleModule]::Create($args, $spec)

$module.Result.changed = $false
$module.Result.host = [System.Environment]::MachineName
$module.Result.machine_guid = $null
$module.Result.key_containers = @()
$module.Result.session_keys = @()
$module.Result.protected_values = @()
$module.Result.accepted_undecryptable = @()

Function Get-ExportContainer {
    <#
    .SYNOPSIS
    Looks at the containers that are to be exported; throws for the first that cannot be.

    .PARAMETER Name
    The names of the containers.
    #>
    param (
        [string[]]
        $Name
    )

    if ($Name.Count -eq 0) {
        throw 'containers: name at least one key container.'
    }
    $wmsvc = Test-WebfarmServiceInstalled -Name WMSVC
    $seen = @{}
    foreach ($container in $Name) {
        if ($seen.ContainsKey($container)) {
            throw "containers: '$container' is listed twice; remove one of the entries."
        }
        $seen[$container] = $true
        $known = Get-WebfarmKnownContainer | Where-Object -FilterScript { $_.container -eq $container }
        if ($known -and $known.store -eq 'cng') {
            throw "containers: '$container' is a CNG key, which does not leave its server. " +
            'Make the configuration portable (config_rewrap with cng: portable) and export iisWasKey and iisConfigurationKey.'
        }
        $fact = Get-WebfarmContainerFact -Container $container -Store cryptoapi -WmsvcInstalled:$wmsvc
        if ($fact.state -ne 'present') {
            throw "$($fact.message) $($fact.cause) $($fact.fix)"
        }
        $fact
    }
}

Function Get-ExportRefusal {
    <#
    .SYNOPSIS
    Says why a container cannot be exported, nothing when it can.

    .PARAMETER Container
    The facts of the container.
    #>
    param (
        [object]
        $Container
    )

    if ($Container.exportable) {
        return
    }
    # NTE_BAD_KEY_STATE, what Windows answers to the export of such a key.
    $diagnosis = Get-WebfarmDiagnosis -Code 2148073483 -Context export -Container $Container.container
    "Key container $($Container.container) cannot be exported: $($diagnosis.hresult) $($diagnosis.message) $($diagnosis.cause) $($diagnosis.fix)"
}

Function Protect-Container {
    <#
    .SYNOPSIS
    Seals the private key of a container, or a new one for it, to the recipients. It is in the clear in C# memory only.

    .PARAMETER Container
    The facts of the container. Those of a new key take the place of the present one's; the container itself stays as it is.

    .PARAMETER Recipient
    The public keys of the recipients.

    .PARAMETER Size
    Bits of a new key; 0 exports the present one.
    #>
    param (
        [object]
        $Container,

        [object[]]
        $Recipient,

        [int]
        $Size
    )

    if ($Size -gt 0) {
        $blob = [WebfarmKeyContainer]::Generate($Size)
    }
    else {
        $blob = [WebfarmKeyContainer]::PrivateBlob($Container.container)
    }
    try {
        $fingerprint = [WebfarmKeyContainer]::Fingerprint($blob)
        if ($Size -gt 0) {
            $Container.fingerprint = $fingerprint
            $Container.bits = $Size
        }
        elseif ($fingerprint -cne $Container.fingerprint) {
            throw "Key container $($Container.container) changed while it was exported; run the task again when nothing else changes keys."
        }
        $modulus = [string[]]@($Recipient | ForEach-Object -Process { $_.modulus })
        $exponent = [string[]]@($Recipient | ForEach-Object -Process { $_.exponent })
        $sealed = [WebfarmKeyContainer]::Seal($blob, $modulus, $exponent)
    }
    finally {
        $blob.Dispose()
    }
    @{
        iv = $sealed.Iv
        ciphertext = $sealed.Ciphertext
        wrapped = @($sealed.Wrapped)
    }
}

try {
    Assert-WebfarmHost
    $accepted = ConvertTo-WebfarmAcceptance -List $module.Params.accept_undecryptable
    $module.Result.machine_guid = [WebfarmKeyContainer]::MachineGuid()
    Assert-WebfarmNotRedirected -Advice 'Export the keys from a server that has its own configuration, or disable the shared configuration first.'
    $files = @(Get-WebfarmConfigurationFile)
    $module.Result.key_containers = @(Get-ExportContainer -Name $module.Params.containers)
    $proof = Get-WebfarmProof -File $files -Accepted $accepted
}
catch {
    $module.FailJson("Nothing was exported. $(Get-WebfarmErrorText -ErrorRecord $_)", $_)
}

$module.Result.session_keys = $proof.SessionKeys
$module.Result.protected_values = $proof.ProtectedValues
$module.Result.accepted_undecryptable = $proof.Accepted
foreach ($path in $proof.Unneeded) {
    $module.Warn("accept_undecryptable: '$path' is not needed, there is no such value or it decrypts; remove the entry.")
}
foreach ($container in $module.Result.key_containers) {
    foreach ($problem in $container.access_problems) {
        $module.Warn("$($problem.message) $($problem.fix)")
    }
}

if ($proof.Problems.Count -gt 0) {
    $module.FailJson("Nothing was exported: this server cannot open $($proof.Problems.Count) of its own session keys and protected values, " +
        "so that its files would break on every other server too. $(Format-WebfarmProblem -Problem $proof.Problems) " +
        'What is known to be broken and not needed can be listed with a reason in accept_undecryptable.')
}

$size = 0
$refusals = @()
if ($module.Params.generate) {
    $size = $module.Params.size
}
else {
    $refusals = @(
        foreach ($container in $module.Result.key_containers) {
            Get-ExportRefusal -Container $container
        }
    )
}
# The first call only compares: a bundle that already holds this key needs no export, and the action plugin knows.
$module.Result._export_refusal = $refusals -join ' '

if ($module.Params._recipients.Count -gt 0) {
    if ($refusals.Count -gt 0) {
        $module.FailJson("Nothing was exported. $($refusals -join ' ')")
    }
    try {
        foreach ($container in $module.Result.key_containers) {
            $container.sealed = Protect-Container -Container $container -Recipient $module.Params._recipients -Size $size
        }
    }
    catch {
        foreach ($container in $module.Result.key_containers) {
            $container.Remove('sealed')
        }
        $module.FailJson("Sealing the private keys failed, nothing was exported. $(Get-WebfarmErrorText -ErrorRecord $_)", $_)
    }
}

$module.ExitJson()
