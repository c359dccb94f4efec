# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# The interfaces in this file are meant for use within this collection and may change in any release, even a bugfix
# release.

# Who must read which key, and who can: judged from the access list alone, so that the administrator who runs the check
# is not mistaken for the worker process that needs the key.

# English names, the same on every language of Windows, so that a fleet can be compared.
$script:wellKnownAccounts = @{
    'S-1-1-0' = 'Everyone'
    'S-1-3-4' = 'OWNER RIGHTS'
    'S-1-5-6' = 'NT AUTHORITY\SERVICE'
    'S-1-5-7' = 'NT AUTHORITY\ANONYMOUS LOGON'
    'S-1-5-11' = 'NT AUTHORITY\Authenticated Users'
    'S-1-5-18' = 'NT AUTHORITY\SYSTEM'
    'S-1-5-19' = 'NT AUTHORITY\LOCAL SERVICE'
    'S-1-5-20' = 'NT AUTHORITY\NETWORK SERVICE'
    'S-1-5-32-544' = 'BUILTIN\Administrators'
    'S-1-5-32-545' = 'BUILTIN\Users'
    'S-1-5-32-546' = 'BUILTIN\Guests'
    'S-1-5-32-568' = 'BUILTIN\IIS_IUSRS'
    'S-1-15-2-1' = 'APPLICATION PACKAGE AUTHORITY\ALL APPLICATION PACKAGES'
}

# The groups that each reader always belongs to; an entry for one of them counts for the reader.
$script:memberships = @{
    'S-1-5-18' = @('S-1-5-18', 'S-1-5-32-544', 'S-1-5-11', 'S-1-1-0')
    'S-1-5-32-544' = @('S-1-5-32-544', 'S-1-5-32-545', 'S-1-5-11', 'S-1-1-0')
    'S-1-5-32-568' = @('S-1-5-32-568', 'S-1-5-32-545', 'S-1-5-11', 'S-1-1-0')
    'S-1-5-19' = @('S-1-5-19', 'S-1-5-6', 'S-1-5-32-545', 'S-1-5-11', 'S-1-1-0')
}

# What opening a key file for reading asks for (FILE_GENERIC_READ).
$script:genericRead = 0x120089L

Function Get-WebfarmAccountName {
    <#
    .SYNOPSIS
    Returns the account of a SID, or the SID itself when no name is known.

    .PARAMETER Sid
    The SID as text.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Sid
    )

    if ($script:wellKnownAccounts.ContainsKey($Sid)) {
        return $script:wellKnownAccounts[$Sid]
    }
    try {
        $identifier = New-Object -TypeName System.Security.Principal.SecurityIdentifier -ArgumentList $Sid
        return $identifier.Translate([System.Security.Principal.NTAccount]).Value
    }
    catch {
        # A deleted account, or a domain that does not answer: the SID is all there is.
        return $Sid
    }
}

Function Test-WebfarmServiceInstalled {
    <#
    .SYNOPSIS
    Tells whether a service is installed, running or not.

    .PARAMETER Name
    The name of the service.
    #>
    [CmdletBinding()]
    [OutputType([bool])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Name
    )

    Test-Path -LiteralPath "HKLM:\SYSTEM\CurrentControlSet\Services\$Name"
}

Function Get-WebfarmRequiredReader {
    <#
    .SYNOPSIS
    Returns who must be able to read a key container.

    .PARAMETER Container
    The name of the container.

    .PARAMETER WmsvcInstalled
    The Management Service is installed; it reads the configuration as LOCAL SERVICE.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container,

        [Parameter()]
        [switch]
        $WmsvcInstalled
    )

    $sids = @('S-1-5-18', 'S-1-5-32-544')
    if ($Container -in @('iisConfigurationKey', 'iisCngConfigurationKey')) {
        $sids += 'S-1-5-32-568'
    }
    if ($WmsvcInstalled -and $Container -in @('iisWasKey', 'iisConfigurationKey')) {
        $sids += 'S-1-5-19'
    }
    foreach ($sid in $sids) {
        [ordered]@{
            sid = $sid
            account = Get-WebfarmAccountName -Sid $sid
        }
    }
}

Function ConvertTo-WebfarmAccessMask {
    <#
    .SYNOPSIS
    Writes generic rights as the file rights that they stand for.

    .PARAMETER Mask
    The access mask of an entry.
    #>
    [CmdletBinding()]
    [OutputType([long])]
    param (
        [Parameter(Mandatory = $true)]
        [int]
        $Mask
    )

    $mapped = [long]$Mask -band 0x1FFFFFL
    # Bit 31 is GENERIC_READ; as an Int32 the mask is then negative.
    if ($Mask -lt 0) {
        $mapped = $mapped -bor 0x120089L
    }
    if ($Mask -band 0x40000000) {
        $mapped = $mapped -bor 0x120116L
    }
    if ($Mask -band 0x20000000) {
        $mapped = $mapped -bor 0x1200A0L
    }
    if ($Mask -band 0x10000000) {
        $mapped = $mapped -bor 0x1F01FFL
    }
    $mapped
}

Function Get-WebfarmAccessEntry {
    <#
    .SYNOPSIS
    Returns the entries of a DACL in their order.

    .PARAMETER Sddl
    A security descriptor as SDDL.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Sddl
    )

    $descriptor = New-Object -TypeName System.Security.AccessControl.RawSecurityDescriptor -ArgumentList $Sddl
    if ($null -eq $descriptor.DiscretionaryAcl) {
        # No DACL at all grants everything to everyone.
        return [PSCustomObject]@{
            Sid = 'S-1-1-0'
            Deny = $false
            Mask = 0x1F01FF
            Rights = 0x1F01FFL
            Inherited = $false
            InheritOnly = $false
            Conditional = $false
        }
    }
    foreach ($entry in $descriptor.DiscretionaryAcl) {
        if ($entry -isnot [System.Security.AccessControl.KnownAce]) {
            continue
        }
        $conditional = $false
        if ($entry -is [System.Security.AccessControl.QualifiedAce]) {
            $deny = $entry.AceQualifier -eq [System.Security.AccessControl.AceQualifier]::AccessDenied
            $conditional = $entry.IsCallback
        }
        else {
            continue
        }
        [PSCustomObject]@{
            Sid = $entry.SecurityIdentifier.Value
            Deny = $deny
            Mask = $entry.AccessMask
            Rights = ConvertTo-WebfarmAccessMask -Mask $entry.AccessMask
            Inherited = $entry.IsInherited
            InheritOnly = [bool]($entry.AceFlags -band [System.Security.AccessControl.AceFlags]::InheritOnly)
            Conditional = $conditional
        }
    }
}

Function Test-WebfarmReadAccess {
    <#
    .SYNOPSIS
    Tells whether an access list lets an account read, as Windows itself walks it: in order, the first entry that speaks
    about a right decides it.

    .PARAMETER Entry
    The entries from Get-WebfarmAccessEntry.

    .PARAMETER Sid
    The account, one of those that this collection knows the group memberships of, or any other SID.
    #>
    [CmdletBinding()]
    [OutputType([bool])]
    param (
        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [object[]]
        $Entry,

        [Parameter(Mandatory = $true)]
        [string]
        $Sid
    )

    $groups = @($Sid, 'S-1-1-0')
    if ($script:memberships.ContainsKey($Sid)) {
        $groups = $script:memberships[$Sid]
    }
    $wanted = $script:genericRead
    foreach ($ace in $Entry) {
        if ($ace.InheritOnly -or $groups -notcontains $ace.Sid) {
            continue
        }
        if ($ace.Deny) {
            if ($ace.Rights -band $wanted) {
                return $false
            }
        }
        elseif (-not $ace.Conditional) {
            # A conditional grant depends on claims that cannot be judged here: it does not count.
            $wanted = $wanted -band (-bnot $ace.Rights)
            if ($wanted -eq 0) {
                return $true
            }
        }
    }
    $false
}

Function Get-WebfarmAccessProblem {
    <#
    .SYNOPSIS
    Returns what is wrong with the access list of a key container, nothing when all is well.

    .DESCRIPTION
    kind is missing (an account that must read the key cannot), forbidden (IIS_IUSRS can read a WAS-only key) or
    unreadable (the access list itself could not be read).

    .PARAMETER Container
    The name of the container.

    .PARAMETER Sddl
    Its security descriptor as SDDL.

    .PARAMETER WmsvcInstalled
    The Management Service is installed.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container,

        [Parameter(Mandatory = $true)]
        [AllowEmptyString()]
        [string]
        $Sddl,

        [Parameter()]
        [switch]
        $WmsvcInstalled
    )

    $failure = 'it is empty'
    $entries = @()
    if ($Sddl) {
        $failure = $null
        try {
            $entries = @(Get-WebfarmAccessEntry -Sddl $Sddl)
        }
        catch {
            $failure = $_.Exception.GetBaseException().Message.TrimEnd('.')
        }
    }
    if ($failure) {
        return [ordered]@{
            kind = 'unreadable'
            sid = $null
            account = $null
            message = "The access list of $Container cannot be judged: $failure."
            fix = "Look at the access list of the key file of $Container as an administrator."
        }
    }

    foreach ($reader in Get-WebfarmRequiredReader -Container $Container -WmsvcInstalled:$WmsvcInstalled) {
        if (Test-WebfarmReadAccess -Entry $entries -Sid $reader.sid) {
            continue
        }
        $denied = @($entries | Where-Object -FilterScript {
                $_.Deny -and -not $_.InheritOnly -and $script:memberships[$reader.sid] -contains $_.Sid -and ($_.Rights -band $script:genericRead)
            })
        $message = "$($reader.account) ($($reader.sid)) cannot read $Container."
        $fix = "Grant $($reader.account) read access to the key $Container."
        if ($denied.Count -gt 0) {
            $message = "$($reader.account) ($($reader.sid)) cannot read ${Container}: an entry denies it to $(Get-WebfarmAccountName -Sid $denied[0].Sid)."
            $fix = "Remove the deny entry from the key $Container, and grant $($reader.account) read access."
        }
        [ordered]@{
            kind = 'missing'
            sid = $reader.sid
            account = $reader.account
            message = $message
            fix = $fix
        }
    }

    if ($Container -in @('iisWasKey', 'iisCngWasKey') -and (Test-WebfarmReadAccess -Entry $entries -Sid 'S-1-5-32-568')) {
        [ordered]@{
            kind = 'forbidden'
            sid = 'S-1-5-32-568'
            account = 'BUILTIN\IIS_IUSRS'
            message = "Worker processes (IIS_IUSRS) can read $Container, which opens the passwords of all application pools to every site."
            fix = "Remove the entry of IIS_IUSRS, Users, Authenticated Users or Everyone from the key $Container."
        }
    }
}

Function Get-WebfarmFolderProblem {
    <#
    .SYNOPSIS
    Returns what is wrong with the access list of a key folder: SYSTEM and Administrators must be able to use it.

    .PARAMETER Path
    The folder.

    .PARAMETER Sddl
    Its security descriptor as SDDL.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Path,

        [Parameter(Mandatory = $true)]
        [string]
        $Sddl
    )

    $entries = @(Get-WebfarmAccessEntry -Sddl $Sddl)
    foreach ($sid in 'S-1-5-18', 'S-1-5-32-544') {
        if (-not (Test-WebfarmReadAccess -Entry $entries -Sid $sid)) {
            $account = Get-WebfarmAccountName -Sid $sid
            [ordered]@{
                kind = 'missing'
                sid = $sid
                account = $account
                message = "$account ($sid) cannot read the key folder '$Path'."
                fix = "Grant $account full control of '$Path'."
            }
        }
    }
}

Function ConvertTo-WebfarmAclFact {
    <#
    .SYNOPSIS
    Lists the entries of an access list with accounts and rights in words.

    .PARAMETER Sddl
    The security descriptor as SDDL.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Sddl
    )

    foreach ($entry in Get-WebfarmAccessEntry -Sddl $Sddl) {
        $rights = 'other'
        if (($entry.Rights -band 0x1F019BL) -eq 0x1F019BL) {
            # What key tools call full control; a file's full control contains it.
            $rights = 'full'
        }
        elseif (($entry.Rights -band 0x120116L) -eq 0x120116L) {
            $rights = 'write'
        }
        elseif (($entry.Rights -band $script:genericRead) -eq $script:genericRead) {
            $rights = 'read'
        }
        $type = 'allow'
        if ($entry.Deny) {
            $type = 'deny'
        }
        [ordered]@{
            sid = $entry.Sid
            account = Get-WebfarmAccountName -Sid $entry.Sid
            type = $type
            rights = $rights
            mask = '0x{0:X8}' -f $entry.Mask
            inherited = [bool]$entry.Inherited
        }
    }
}

Function Get-WebfarmSddlOwner {
    <#
    .SYNOPSIS
    Returns the owner of a security descriptor as an account name, $null when it names none.

    .PARAMETER Sddl
    The security descriptor as SDDL.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Sddl
    )

    $descriptor = New-Object -TypeName System.Security.AccessControl.RawSecurityDescriptor -ArgumentList $Sddl
    if ($null -eq $descriptor.Owner) {
        return $null
    }
    Get-WebfarmAccountName -Sid $descriptor.Owner.Value
}

$export = @{
    Function = @(
        'ConvertTo-WebfarmAclFact'
        'Get-WebfarmAccessProblem'
        'Get-WebfarmAccountName'
        'Get-WebfarmFolderProblem'
        'Get-WebfarmRequiredReader'
        'Get-WebfarmSddlOwner'
        'Test-WebfarmServiceInstalled'
    )
}
Export-ModuleMember @export
