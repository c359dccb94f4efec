# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# Backups in the layout that appcmd lists and restores: %windir%\System32\inetsrv\backup\NAME. A folder bears its name only when it
# is complete: it is filled under another name beside the backups, where appcmd does not look, and renamed. What it held when it
# was made is recorded apart from it, under %ProgramData%, because appcmd would copy anything that lies in the folder.
#
# Those that a transaction makes before it changes anything are named webfarm-TIME-TRANSACTION, and their record says so. Only
# they are deleted without being asked for.

#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._ProtectedFolder
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._KeyPlan

$script:partial = 'webfarm-backup.partial'
$script:leaving = 'webfarm-backup.deleted'
$script:parsed = 'applicationHost.config', 'administration.config', 'redirection.config'
$script:attempts = 5
# As Save-WebfarmPriorBackup names them.
$script:prior = '^webfarm-\d{8}T\d{6}Z-[0-9a-f]{8}$'

Function Get-WebfarmBackupFolder {
    <#
    .SYNOPSIS
    Returns the folder of the backups. Its place is not configurable.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param ()

    $folder = Get-WebfarmConfigurationFolder
    return [System.IO.Path]::Combine([System.IO.Path]::GetDirectoryName($folder), 'backup')
}

Function Get-WebfarmBackupRecordPath {
    <#
    .SYNOPSIS
    Returns where the record of a backup lies, or the folder of the records.

    .PARAMETER Name
    The name of the backup.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter()]
        [string]
        $Name
    )

    $folder = [System.IO.Path]::Combine((Get-WebfarmStateFolder), 'backups')
    if (-not $Name) {
        return $folder
    }
    return [System.IO.Path]::Combine($folder, "$Name.json")
}

Function Assert-WebfarmBackupName {
    <#
    .SYNOPSIS
    Throws for a name that cannot be a folder, or that belongs to the configuration history.

    .PARAMETER Name
    The name.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [AllowEmptyString()]
        [string]
        $Name
    )

    if ($Name -notmatch '^[A-Za-z0-9][A-Za-z0-9 ._()+-]{0,99}$' -or $Name -match '[ .]$' -or
        $Name -match '^(con|prn|aux|nul|com\d|lpt\d)(\.|$)') {
        throw "name: '$Name' cannot be the name of a backup. Use letters, digits, space and . _ ( ) + - , at most 100, the first a letter or digit, " +
        'the last no space or point, and no device name such as CON.'
    }
    if ($Name -like 'CFGHISTORY_*') {
        throw "name: '$Name' is a name of the configuration history, which AppHostSvc keeps. webfarm.iis.history_restore restores from it."
    }
}

Function Get-WebfarmBackupSource {
    <#
    .SYNOPSIS
    Reads what a backup holds: dictionaries with name, path and content. Files that the host does not have are left out.
    #>
    [CmdletBinding()]
    param ()

    $folder = Get-WebfarmConfigurationFolder
    $above = [System.IO.Path]::GetDirectoryName($folder)
    foreach ($path in @(
            [System.IO.Path]::Combine($folder, 'administration.config')
            [System.IO.Path]::Combine($folder, 'applicationHost.config')
            [System.IO.Path]::Combine($folder, 'redirection.config')
            [System.IO.Path]::Combine($above, 'MBSchema.xml')
            [System.IO.Path]::Combine($above, 'MetaBase.xml')
        )) {
        if ([System.IO.File]::Exists($path)) {
            @{
                name = [System.IO.Path]::GetFileName($path)
                path = $path
                content = [System.IO.File]::ReadAllBytes($path)
            }
        }
    }
}

Function ConvertTo-WebfarmBackupFile {
    <#
    .SYNOPSIS
    Returns name, size and SHA-256 of contents, in the order of their names.

    .PARAMETER File
    Dictionaries with name and content.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [AllowEmptyCollection()]
        [object[]]
        $File = @()
    )

    foreach ($item in $File | Sort-Object -Property { $_.name }) {
        [ordered]@{
            name = $item.name
            size = $item.content.Length
            sha256 = [WebfarmKeyContainer]::Sha256($item.content)
        }
    }
}

Function Format-WebfarmBackupFile {
    <#
    .SYNOPSIS
    Returns one text for the files of a backup. Two backups with equal texts hold the same.

    .PARAMETER File
    The entries with name and sha256.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter()]
        [AllowEmptyCollection()]
        [object[]]
        $File = @()
    )

    $lines = @($File | ForEach-Object -Process { "$(([string]$_.name).ToLowerInvariant())=$($_.sha256)" } | Sort-Object)
    return $lines -join ';'
}

Function Get-WebfarmKeyMark {
    <#
    .SYNOPSIS
    Returns the fingerprints of the CryptoAPI keys that the files of a backup need, by container. $null for one that does not open.
    A file that cannot be read as a configuration needs none.

    .PARAMETER File
    Dictionaries with name and content.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object[]]
        $File
    )

    $marks = [ordered]@{}
    foreach ($item in $File | Where-Object -FilterScript { $script:parsed -contains $_.name }) {
        try {
            $providers = [WebfarmConfiguration]::Parse($item.content, $item.name).Providers
        }
        catch {
            Write-Verbose -Message "$($item.name): $_"
            continue
        }
        foreach ($provider in $providers) {
            if (@('aes', 'rsa') -contains $provider.Kind -and $provider.Container -and -not $marks.Contains($provider.Container)) {
                $marks[$provider.Container] = [WebfarmKeyContainer]::Inspect($provider.Container, 'cryptoapi').Fingerprint
            }
        }
    }
    return $marks
}

Function Read-WebfarmBackupRecord {
    <#
    .SYNOPSIS
    Returns the record that was written when the backup was made; $null for one that something else made.

    .PARAMETER Name
    The name of the backup.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Name
    )

    $path = Get-WebfarmBackupRecordPath -Name $Name
    if (-not [System.IO.File]::Exists($path)) {
        return $null
    }
    try {
        $record = [System.IO.File]::ReadAllText($path) | ConvertFrom-Json
        if ($record.format -eq 'webfarm.iis backup' -and $record.version -eq 1) {
            return $record
        }
    }
    catch {
        Write-Verbose -Message "$path is no record: $_"
    }
    return $null
}

Function Write-WebfarmBackup {
    <#
    .SYNOPSIS
    Writes a backup and its record, and reads it back. Nothing bears the name before everything is on the disk.

    .DESCRIPTION
    The caller holds the lock (Enter-WebfarmRun).

    .PARAMETER Name
    Its name.

    .PARAMETER File
    From Read-WebfarmStableSource.

    .PARAMETER Prior
    A transaction makes it, before it changes anything.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Name,

        [Parameter(Mandatory = $true)]
        [object[]]
        $File,

        [Parameter()]
        [switch]
        $Prior
    )

    $root = Get-WebfarmBackupFolder
    $folder = [System.IO.Path]::Combine($root, $Name)
    if ([System.IO.Directory]::Exists($folder) -or [System.IO.File]::Exists($folder)) {
        throw "name: '$folder' exists already. Choose another name, or delete it first."
    }
    if (@($File | ForEach-Object -Process { $_.name }) -notcontains 'applicationHost.config') {
        throw "There is no applicationHost.config in $(Get-WebfarmConfigurationFolder): is IIS installed on this host?"
    }
    if (-not $PSCmdlet.ShouldProcess($folder, 'make backup')) {
        return
    }
    Clear-WebfarmBackupLeftover
    $staging = [System.IO.Path]::Combine([System.IO.Path]::GetDirectoryName($root), $script:partial)
    $record = Get-WebfarmBackupRecordPath -Name $Name
    $named = $false
    $first = -not [System.IO.Directory]::Exists($root)
    try {
        $null = [System.IO.Directory]::CreateDirectory($root)
        [WebfarmProtectedFolder]::Ensure($staging)
        foreach ($item in $File) {
            [WebfarmProtectedFolder]::WriteFile([System.IO.Path]::Combine($staging, $item.name), $item.content)
        }
        $written = @(
            foreach ($path in [System.IO.Directory]::GetFiles($staging)) {
                @{ name = [System.IO.Path]::GetFileName($path); content = [System.IO.File]::ReadAllBytes($path) }
            }
        )
        $listed = @(ConvertTo-WebfarmBackupFile -File $File)
        if ((Format-WebfarmBackupFile -File @(ConvertTo-WebfarmBackupFile -File $written)) -ne (Format-WebfarmBackupFile -File $listed)) {
            throw "$staging does not hold what was written to it. Check the disk."
        }
        Save-WebfarmBackupRecord -Name $Name -File $listed -KeyFingerprint (Get-WebfarmKeyMark -File $File) -Prior:$Prior
        [System.IO.Directory]::Move($staging, $folder)
        $named = $true
    }
    catch {
        $reason = Get-WebfarmSentence -ErrorRecord $_
        throw "The backup '$Name' was not made: $reason Nothing bears its name."
    }
    finally {
        if (-not $named) {
            if ([System.IO.Directory]::Exists($staging)) {
                [System.IO.Directory]::Delete($staging, $true)
            }
            if ([System.IO.File]::Exists($record)) {
                [System.IO.File]::Delete($record)
            }
            Remove-WebfarmEmptyRecordFolder
            if ($first -and [System.IO.Directory]::Exists($root)) {
                [System.IO.Directory]::Delete($root)
            }
        }
    }
}

Function Read-WebfarmStableSource {
    <#
    .SYNOPSIS
    Reads the configuration files until two readings agree, so that a backup is of one moment.
    #>
    [CmdletBinding()]
    param ()

    $before = @(Get-WebfarmBackupSource)
    for ($attempt = 1; $attempt -le $script:attempts; $attempt++) {
        $after = @(Get-WebfarmBackupSource)
        $one = Format-WebfarmBackupFile -File @(ConvertTo-WebfarmBackupFile -File $before)
        if ($one -eq (Format-WebfarmBackupFile -File @(ConvertTo-WebfarmBackupFile -File $after))) {
            return $after
        }
        $before = $after
        Start-Sleep -Milliseconds 500
    }
    throw 'The configuration files change while they are read. Wait until nobody edits them, and run again.'
}

Function Save-WebfarmBackupRecord {
    <#
    .SYNOPSIS
    Writes down what a backup holds and which keys it was made under: hashes and fingerprints.

    .PARAMETER Name
    The name of the backup.

    .PARAMETER File
    Its files with name, size and sha256.

    .PARAMETER KeyFingerprint
    Fingerprint by container.

    .PARAMETER Prior
    A transaction makes it.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Name,

        [Parameter(Mandatory = $true)]
        [object[]]
        $File,

        [Parameter(Mandatory = $true)]
        [System.Collections.IDictionary]
        $KeyFingerprint,

        [Parameter()]
        [switch]
        $Prior
    )

    $path = Get-WebfarmBackupRecordPath -Name $Name
    if (-not $PSCmdlet.ShouldProcess($path, 'write')) {
        return
    }
    $record = [ordered]@{
        format = 'webfarm.iis backup'
        version = 1
        name = $Name
        created = Get-WebfarmUnixTime
        prior = [bool]$Prior
        files = @($File)
        key_fingerprints = $KeyFingerprint
    }
    foreach ($folder in (Get-WebfarmStateFolder), (Get-WebfarmBackupRecordPath)) {
        [WebfarmProtectedFolder]::Ensure($folder)
    }
    $text = ConvertTo-Json -InputObject $record -Depth 5
    [WebfarmProtectedFolder]::WriteFile($path, [System.Text.Encoding]::UTF8.GetBytes($text))
}

Function Clear-WebfarmBackupLeftover {
    <#
    .SYNOPSIS
    Removes what an interrupted run left: a half-filled or half-deleted folder, and records without a backup.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param ()

    $root = Get-WebfarmBackupFolder
    foreach ($name in $script:partial, $script:leaving) {
        $folder = [System.IO.Path]::Combine([System.IO.Path]::GetDirectoryName($root), $name)
        if ([System.IO.Directory]::Exists($folder) -and $PSCmdlet.ShouldProcess($folder, 'delete')) {
            [System.IO.Directory]::Delete($folder, $true)
        }
    }
    $records = Get-WebfarmBackupRecordPath
    if ([System.IO.Directory]::Exists($records)) {
        foreach ($path in [System.IO.Directory]::GetFiles($records)) {
            $folder = [System.IO.Path]::Combine($root, [System.IO.Path]::GetFileNameWithoutExtension($path))
            if (-not [System.IO.Directory]::Exists($folder) -and $PSCmdlet.ShouldProcess($path, 'delete')) {
                [System.IO.File]::Delete($path)
            }
        }
    }
    Remove-WebfarmEmptyRecordFolder
}

Function Remove-WebfarmBackup {
    <#
    .SYNOPSIS
    Deletes a backup. It loses its name at once, whatever happens then.

    .PARAMETER Name
    The name of the backup.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Name
    )

    Assert-WebfarmBackupName -Name $Name
    $root = Get-WebfarmBackupFolder
    $folder = [System.IO.Path]::Combine($root, $Name)
    if (-not $PSCmdlet.ShouldProcess($folder, 'delete')) {
        return
    }
    Clear-WebfarmBackupLeftover
    [System.IO.Directory]::Move($folder, [System.IO.Path]::Combine([System.IO.Path]::GetDirectoryName($root), $script:leaving))
    Clear-WebfarmBackupLeftover
}

Function Remove-WebfarmEmptyRecordFolder {
    <#
    .SYNOPSIS
    Removes the folder of the records where it holds none.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param ()

    $records = Get-WebfarmBackupRecordPath
    if ([System.IO.Directory]::Exists($records) -and [System.IO.Directory]::GetFileSystemEntries($records).Count -eq 0 -and
        $PSCmdlet.ShouldProcess($records, 'delete empty folder')) {
        [System.IO.Directory]::Delete($records)
    }
}

Function Save-WebfarmPriorBackup {
    <#
    .SYNOPSIS
    Makes the backup that precedes a transaction. Returns its name; nothing where none is wanted, or none can be made of a file that is no
    configuration. Throws where it fails.

    .DESCRIPTION
    Where the newest one that a transaction made holds the present files under the present keys, it is that one, and none is made: a change
    that fails again and again fills no disk. The caller holds the lock.

    .PARAMETER Id
    The id of the transaction.

    .PARAMETER Keep
    How many such backups are kept; 0: none is made.

    .PARAMETER Unreadable
    The present applicationHost.config is no configuration.

    .PARAMETER Warning
    A list that receives warnings.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Id,

        [Parameter(Mandatory = $true)]
        [int]
        $Keep,

        [Parameter()]
        [switch]
        $Unreadable,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    if ($Keep -eq 0) {
        return
    }
    if ($Unreadable) {
        # appcmd would restore it, and nothing could start.
        $Warning.Add('No backup precedes this change: the present applicationHost.config is no configuration. The undo set keeps it.')
        return
    }
    $stamp = [DateTime]::UtcNow.ToString('yyyyMMddTHHmmss', [System.Globalization.CultureInfo]::InvariantCulture)
    $name = "webfarm-${stamp}Z-$($Id.Substring($Id.LastIndexOf('-') + 1))"
    if (-not $PSCmdlet.ShouldProcess($name, 'make backup')) {
        return
    }
    try {
        $files = @(Read-WebfarmStableSource)
        $newest = Get-WebfarmPriorBackup | Select-Object -First 1
        if ($newest -and (Test-WebfarmBackupCurrent -Name $newest -File $files)) {
            return $newest
        }
        Write-WebfarmBackup -Name $name -File $files -Prior
    }
    catch {
        throw "$(Get-WebfarmSentence -ErrorRecord $_) No change is made without it; prior_backups=0 makes none."
    }
    return $name
}

Function Get-WebfarmPriorBackup {
    <#
    .SYNOPSIS
    Returns the names of the backups that transactions made, the newest first.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param ()

    $root = Get-WebfarmBackupFolder
    if (-not [System.IO.Directory]::Exists($root)) {
        return
    }
    # The time is a text of one form: names compare as they follow each other.
    $names = [string[]]@([System.IO.Directory]::GetDirectories($root) | ForEach-Object -Process { [System.IO.Path]::GetFileName($_) })
    [System.Array]::Sort($names, [System.StringComparer]::Ordinal)
    [System.Array]::Reverse($names)
    foreach ($name in $names) {
        if ($name -cmatch $script:prior) {
            $record = Read-WebfarmBackupRecord -Name $name
            if ($null -ne $record -and $record.prior -eq $true) {
                $name
            }
        }
    }
}

Function Test-WebfarmBackupCurrent {
    <#
    .SYNOPSIS
    Tells whether a backup is whole, holds these files, and was made under the keys of now.

    .PARAMETER Name
    The name of the backup.

    .PARAMETER File
    Dictionaries with name and content.
    #>
    [CmdletBinding()]
    [OutputType([bool])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Name,

        [Parameter(Mandatory = $true)]
        [object[]]
        $File
    )

    try {
        $record = Read-WebfarmBackupRecord -Name $Name
        $held = @(
            foreach ($path in [System.IO.Directory]::GetFiles([System.IO.Path]::Combine((Get-WebfarmBackupFolder), $Name))) {
                @{ name = [System.IO.Path]::GetFileName($path); content = [System.IO.File]::ReadAllBytes($path) }
            }
        )
    }
    catch {
        Write-Verbose -Message "$Name cannot be read: $_"
        return $false
    }
    $text = Format-WebfarmBackupFile -File @(ConvertTo-WebfarmBackupFile -File $File)
    foreach ($other in (Format-WebfarmBackupFile -File @($record.files)), (Format-WebfarmBackupFile -File @(ConvertTo-WebfarmBackupFile -File $held))) {
        if ($other -ne $text) {
            return $false
        }
    }
    $marks = Get-WebfarmKeyMark -File $File
    $then = @{}
    foreach ($property in $record.key_fingerprints.PSObject.Properties) {
        $then[$property.Name] = $property.Value
    }
    if ($then.Count -ne $marks.Count) {
        return $false
    }
    foreach ($container in $marks.Keys) {
        if ($then[$container] -ne $marks[$container]) {
            return $false
        }
    }
    return $true
}

Function Limit-WebfarmPriorBackup {
    <#
    .SYNOPSIS
    Deletes the oldest backups that transactions made, and touches no other. Never throws: the change that it follows holds.

    .PARAMETER Keep
    How many stay; 0: none was made, and none is deleted.

    .PARAMETER Warning
    A list that receives warnings.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [int]
        $Keep,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    if ($Keep -eq 0) {
        return
    }
    try {
        foreach ($name in @(Get-WebfarmPriorBackup | Select-Object -Skip $Keep)) {
            if ($PSCmdlet.ShouldProcess($name, 'delete')) {
                Remove-WebfarmBackup -Name $name
            }
        }
    }
    catch {
        $Warning.Add("Old backups of transactions could not be deleted: $(Get-WebfarmErrorText -ErrorRecord $_)")
    }
}

Export-ModuleMember -Function @(
    'Assert-WebfarmBackupName'
    'Clear-WebfarmBackupLeftover'
    'ConvertTo-WebfarmBackupFile'
    'Format-WebfarmBackupFile'
    'Get-WebfarmBackupFolder'
    'Get-WebfarmBackupRecordPath'
    'Get-WebfarmBackupSource'
    'Get-WebfarmKeyMark'
    'Get-WebfarmPriorBackup'
    'Limit-WebfarmPriorBackup'
    'Read-WebfarmBackupRecord'
    'Read-WebfarmStableSource'
    'Remove-WebfarmBackup'
    'Save-WebfarmPriorBackup'
    'Write-WebfarmBackup'
)
