# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# Keys that are made on the host itself: whether a new one is needed, and the plan for it. A new key pair exists in memory only
# until the transaction writes it.

#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._Diagnosis
#AnsibleRequires -PowerShell ..module_utils._KeyAccess
#AnsibleRequires -PowerShell ..module_utils._KeyPlan

$script:defaultSize = 2048

# Keys that belong to certificates and to Windows: replaced or deleted here, they would take something else down.
$script:foreignKeys = @('Microsoft Internet Information Server', 'WMSvc Certificate Key Container', 'MS IIS DCOM Server', 'TSSecKeySet1')

Function Get-WebfarmRegeneration {
    <#
    .SYNOPSIS
    Decides by the option regenerate: generate, keep or fail. The words mean what they mean in community.crypto.

    .PARAMETER Regenerate
    never, fail, partial_idempotence, full_idempotence or always.

    .PARAMETER State
    missing, damaged or present.

    .PARAMETER Conform
    The present key is as the options say.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [ValidateSet('never', 'fail', 'partial_idempotence', 'full_idempotence', 'always')]
        [string]
        $Regenerate,

        [Parameter(Mandatory = $true)]
        [ValidateSet('missing', 'damaged', 'present')]
        [string]
        $State,

        [Parameter()]
        [bool]
        $Conform
    )

    if ($State -eq 'missing' -or $Regenerate -eq 'always') {
        return 'generate'
    }
    if ($State -eq 'damaged') {
        if ($Regenerate -eq 'full_idempotence') {
            return 'generate'
        }
        return 'fail'
    }
    if ($Conform -or $Regenerate -eq 'never') {
        return 'keep'
    }
    if ($Regenerate -eq 'fail') {
        return 'fail'
    }
    return 'generate'
}

Function Assert-WebfarmOwnContainer {
    <#
    .SYNOPSIS
    Throws for a container whose keys are not made here.

    .PARAMETER Container
    The name of the container.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container
    )

    if (@('iisCngWasKey', 'iisCngConfigurationKey') -contains $Container) {
        throw "$Container is a CNG key; only IIS's own setup makes those. Nothing was changed. To get a new one from it, make the configuration " +
        'portable first (config_rewrap with cng=portable), so that no value needs the old key, and run this module again with method=iis_setup, ' +
        'which runs %windir%\System32\inetsrv\iissetup.exe /install SharedLibraries. This route was not verified on Windows.'
    }
    if ($Container.StartsWith('webfarm.iis.transport.', [System.StringComparison]::OrdinalIgnoreCase)) {
        throw "$Container is a key that this collection made for one transfer; it is deleted by itself."
    }
}

Function Get-WebfarmOwnKeyPlan {
    <#
    .SYNOPSIS
    Compares a container with what it shall be. Returns a dictionary: Entry (as from Get-WebfarmKeyPlan), Generated, Warning.

    .PARAMETER Parameter
    The parameters of the module: container, state, size, regenerate, exportable, access.

    .PARAMETER KeySet
    Receives the new key.

    .PARAMETER WmsvcInstalled
    The Management Service is installed.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Parameter,

        [Parameter(Mandatory = $true)]
        [object]
        $KeySet,

        [Parameter()]
        [switch]
        $WmsvcInstalled
    )

    $name = $Parameter.container
    Assert-WebfarmOwnContainer -Container $name
    $info = [WebfarmKeyContainer]::Inspect($name, 'cryptoapi')
    if ($info.State -eq 'denied') {
        $diagnosis = Get-WebfarmDiagnosis -Code $info.Error -Verdict denied -Context open -Container $name
        throw "The key container $name is denied: $(([string]$info.ErrorMessage).TrimEnd('.')). $($diagnosis.cause) $($diagnosis.fix) Nothing was changed."
    }
    $entry = ConvertTo-WebfarmPlanEntry -Container $name -Info $info
    $plan = @{
        Entry = $entry
        Generated = $false
        Warning = @()
    }
    if ($Parameter.state -eq 'absent') {
        if ($info.State -ne 'missing') {
            Assert-WebfarmReplaceable -Container $name
            $entry.after = [ordered]@{ state = 'missing'; fingerprint = $null; bits = $null; exportable = $null }
            $entry.changed = $true
            $entry.key_changes = $true
        }
        return $plan
    }
    $differences = @()
    if ($info.State -eq 'present') {
        if ($Parameter.size -and $info.Bits -ne $Parameter.size) {
            $differences += "it has $($info.Bits) bits, wanted are $($Parameter.size)"
        }
        if ($Parameter.exportable -and -not $info.Exportable) {
            $differences += 'it cannot be exported, so that only a new one could be'
        }
        if ($info.KeySpec -ne 'exchange') {
            $differences += 'it is a signature key, nothing can be encrypted with it'
        }
    }
    $decision = Get-WebfarmRegeneration -Regenerate $Parameter.regenerate -State $info.State -Conform ($differences.Count -eq 0)
    if ($decision -eq 'fail') {
        if ($info.State -eq 'damaged') {
            $diagnosis = Get-WebfarmDiagnosis -Code $info.Error -Verdict damaged -Context open -Container $name
            throw "The key in $name cannot be read: $(([string]$info.ErrorMessage).TrimEnd('.')). $($diagnosis.cause) $($diagnosis.fix) Nothing was changed. " +
            'To replace it by a new one, set regenerate to full_idempotence.'
        }
        throw "The key in $name is not as wanted: $($differences -join '; '). Nothing was changed. " +
        'To replace it by a new one, set regenerate to full_idempotence.'
    }
    if ($decision -eq 'keep' -and $differences.Count -gt 0) {
        $plan.Warning += "The key in $name stays although $($differences -join '; ') (regenerate is never)."
    }
    if ($decision -eq 'generate') {
        Assert-WebfarmReplaceable -Container $name
        $size = $script:defaultSize
        if ($Parameter.size) {
            $size = $Parameter.size
        }
        elseif (@(3072, 4096) -contains $info.Bits) {
            # A new key is not weaker than the one that it replaces.
            $size = $info.Bits
        }
        $exportable = [bool]$info.Exportable
        if ($null -ne $Parameter.exportable) {
            $exportable = $Parameter.exportable
        }
        $secret = [WebfarmKeyContainer]::Generate($size)
        $KeySet.Add($name, $secret)
        $entry.after = [ordered]@{
            state = 'present'
            fingerprint = [WebfarmKeyContainer]::Fingerprint($secret)
            bits = $size
            exportable = $exportable
        }
        $entry.key_changes = $true
        $plan.Generated = $true
    }
    elseif ($Parameter.exportable -eq $false -and $info.Exportable) {
        # The same key, put in again without the permission.
        Assert-WebfarmReplaceable -Container $name
        $KeySet.Add($name, [WebfarmKeyContainer]::PrivateBlob($name))
        $entry.after = [ordered]@{
            state = 'present'
            fingerprint = $info.Fingerprint
            bits = $info.Bits
            exportable = $false
        }
        $entry.key_changes = $true
    }
    Set-WebfarmPlannedAccess -Entry $entry -Access $Parameter.access -WmsvcInstalled:$WmsvcInstalled
    $entry.changed = $entry.key_changes -or [bool]$entry.new_sddl
    return $plan
}

Function Assert-WebfarmReplaceable {
    <#
    .SYNOPSIS
    Throws for a container whose key belongs to something else than the configuration of IIS.

    .PARAMETER Container
    The name of the container.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container
    )

    if ($script:foreignKeys -contains $Container) {
        throw "The key in $Container belongs to a certificate or to Windows; it is not replaced or deleted here. Nothing was changed. " +
        'Its access list can be changed.'
    }
}

Function Set-WebfarmPlannedAccess {
    <#
    .SYNOPSIS
    Fills in the access list that an entry of the plan shall have.

    .PARAMETER Entry
    The entry.

    .PARAMETER Access
    The option access.

    .PARAMETER WmsvcInstalled
    The Management Service is installed.
    #>
    [CmdletBinding()]
    [System.Diagnostics.CodeAnalysis.SuppressMessageAttribute('PSUseShouldProcessForStateChangingFunctions', '', Justification = 'Fills an object only')]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Entry,

        [Parameter()]
        [AllowNull()]
        [object]
        $Access,

        [Parameter()]
        [switch]
        $WmsvcInstalled
    )

    # A container that is made anew has no list to keep.
    $fresh = $Entry.before.state -ne 'present'
    $base = $Entry.sddl
    if ($fresh) {
        $base = (Get-WebfarmNewKeyAccess -Container $Entry.container -Sddl $base -WmsvcInstalled:$WmsvcInstalled).sddl
    }
    $wanted = Get-WebfarmWantedAccess -Container $Entry.container -Sddl $base -Access $Access
    if (-not $wanted -and $fresh) {
        $wanted = $base
    }
    $Entry.new_sddl = $wanted
}

Function Read-WebfarmOwnKey {
    <#
    .SYNOPSIS
    Fills a change with the plan for one container. Returns the access list before and after.

    .PARAMETER Change
    From New-WebfarmChange, after Read-WebfarmChangeFile.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $Change.KeySet = New-Object -TypeName WebfarmKeySet
    $query = @{
        Parameter = $Change.Parameter
        KeySet = $Change.KeySet
        WmsvcInstalled = Test-WebfarmServiceInstalled -Name WMSVC
    }
    $plan = Get-WebfarmOwnKeyPlan @query
    $entry = $plan.Entry
    foreach ($text in $plan.Warning) {
        $Change.Warning.Add($text)
    }
    $Change.Plan = @($entry)
    $Change.Import = @($entry | Where-Object -FilterScript { $_.changed })
    $after = $entry.after
    if ($plan.Generated -and $Change.CheckMode) {
        # The key of this run is thrown away; the next one is another.
        $after = [ordered]@{ state = 'present'; fingerprint = $null; bits = $after.bits; exportable = $after.exportable }
    }
    $Change.Result.key_containers = @(
        [ordered]@{
            container = $entry.container
            store = $entry.store
            before = $entry.before
            after = $after
            changed = $entry.changed
            generated = $plan.Generated
        }
    )
    $access = [ordered]@{ before = @(); after = @() }
    if ($entry.sddl) {
        $access.before = @(ConvertTo-WebfarmAclFact -Sddl $entry.sddl)
    }
    if ($entry.after.state -eq 'present') {
        $access.after = $access.before
    }
    if ($entry.new_sddl) {
        $access.after = @(ConvertTo-WebfarmAclFact -Sddl $entry.new_sddl)
    }
    return $access
}

Function Test-WebfarmOwnKeyInUse {
    <#
    .SYNOPSIS
    Tells whether services of IIS hold the key open, so that they are stopped while it is replaced.

    .PARAMETER Change
    From New-WebfarmChange, after Confirm-WebfarmChange.
    #>
    [CmdletBinding()]
    [OutputType([bool])]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $name = $Change.Plan[0].container
    $used = @($Change.Live.Providers | ForEach-Object -Process { $_.Container }) + @('iisWasKey', 'iisConfigurationKey', 'NetFrameworkConfigurationKey')
    return $used -contains $name -or $Change.Dependent.Count -gt 0
}

Export-ModuleMember -Function @(
    'Get-WebfarmOwnKeyPlan'
    'Get-WebfarmRegeneration'
    'Read-WebfarmOwnKey'
    'Test-WebfarmOwnKeyInUse'
)
