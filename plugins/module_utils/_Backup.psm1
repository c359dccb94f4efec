# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# Backups in the layout that appcmd lists and restores: %windir%\System32\inetsrv\backup\NAME. A folder bears its name only when it
# is complete: it is filled under another name beside the backups, where appcmd does not look, and renamed. What it held when it
# was made is recorded apart from it, under %ProgramData%, because appcmd would copy anything that lies in the folder.

#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -CSharpUtil ..module_utils._ProtectedFolder
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._KeyPlan

$script:partial = 'webfarm-backup.partial'
$script:leaving = 'webfarm-backup.deleted'
# appcmd's own default name.
$script:namedByTime = '^\d{8}T\d{6}$'
$script:parsed = 'applicationHost.config', 'administration.config', 'redirection.config'
$script:attempts = 5
# Of a list, so many of the newest are proven.
$script:provenBackups = 50

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

Function Get-WebfarmBackupProof {
    <#
    .SYNOPSIS
    Tries the session keys and protected values of the files of a backup with the keys of this machine.

    .DESCRIPTION
    Returns the object of Get-WebfarmProof. Throws for a file that is no configuration.

    .PARAMETER File
    Dictionaries with name and content.

    .PARAMETER Decrypt
    session or all.

    .PARAMETER Accepted
    The hashtable from ConvertTo-WebfarmAcceptance.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object[]]
        $File,

        [Parameter()]
        [ValidateSet('session', 'all')]
        [string]
        $Decrypt = 'all',

        [Parameter()]
        [hashtable]
        $Accepted = @{}
    )

    $main = $null
    $files = @(
        foreach ($name in $script:parsed) {
            $item = $File | Where-Object -FilterScript { $_.name -eq $name }
            if ($null -ne $item) {
                $configuration = [WebfarmConfiguration]::Parse($item.content, $name)
                if ($null -eq $main -and $name -eq 'applicationHost.config') {
                    $main = $configuration
                    $configuration
                }
                elseif ($null -ne $main) {
                    # administration.config may use the providers of applicationHost.config.
                    $configuration.Under($main)
                }
                else {
                    $configuration
                }
            }
        }
    )
    Get-WebfarmProof -File $files -Decrypt $Decrypt -Accepted $Accepted
}

Function Get-WebfarmKeyMark {
    <#
    .SYNOPSIS
    Returns the fingerprints of the CryptoAPI keys that the files of a backup need, by container. $null for one that does not open.

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
        foreach ($provider in [WebfarmConfiguration]::Parse($item.content, $item.name).Providers) {
            if (@('aes', 'rsa') -contains $provider.Kind -and $provider.Container -and -not $marks.Contains($provider.Container)) {
                $marks[$provider.Container] = [WebfarmKeyContainer]::Inspect($provider.Container, 'cryptoapi').Fingerprint
            }
        }
    }
    return $marks
}

Function Read-WebfarmBackup {
    <#
    .SYNOPSIS
    Reads the files of one backup: dictionaries with name, path and content. Throws when there is no such backup.

    .PARAMETER Name
    The name of the backup.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Name
    )

    Assert-WebfarmBackupName -Name $Name
    $folder = [System.IO.Path]::Combine((Get-WebfarmBackupFolder), $Name)
    if (-not [System.IO.Directory]::Exists($folder)) {
        throw "name: there is no backup '$Name' in $(Get-WebfarmBackupFolder). server_info with gather_subset backups lists them."
    }
    foreach ($path in [System.IO.Directory]::GetFiles($folder)) {
        @{
            name = [System.IO.Path]::GetFileName($path)
            path = $path
            content = [System.IO.File]::ReadAllBytes($path)
        }
    }
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

Function Get-WebfarmBackupFact {
    <#
    .SYNOPSIS
    Lists the backups of this server, the newest first. Changes nothing.

    .PARAMETER Name
    Only this one.

    .PARAMETER Decrypt
    all proves every value with the keys of this machine, session the session keys only, none lists the files.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [string]
        $Name,

        [Parameter()]
        [ValidateSet('none', 'session', 'all')]
        [string]
        $Decrypt = 'all'
    )

    $root = Get-WebfarmBackupFolder
    if (-not [System.IO.Directory]::Exists($root)) {
        return
    }
    $folders = @([System.IO.Directory]::GetDirectories($root) | Sort-Object -Property { [System.IO.Directory]::GetLastWriteTimeUtc($_) } -Descending)
    $tried = 0
    $facts = @(
        foreach ($folder in $folders) {
            $found = [System.IO.Path]::GetFileName($folder)
            if (-not $Name -or $found -eq $Name) {
                $tried++
                $how = $Decrypt
                if ($tried -gt $script:provenBackups) {
                    $how = 'none'
                }
                Get-WebfarmOneBackupFact -Folder $folder -Decrypt $how
            }
        }
    )
    $facts | Sort-Object -Property { $_.created }, { $_.name } -Descending
}

Function Get-WebfarmOneBackupFact {
    <#
    .SYNOPSIS
    Describes one backup.

    .PARAMETER Folder
    Its folder.

    .PARAMETER Decrypt
    As for Get-WebfarmBackupFact.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Folder,

        [Parameter(Mandatory = $true)]
        [string]
        $Decrypt
    )

    $name = [System.IO.Path]::GetFileName($Folder)
    $time = [System.IO.Directory]::GetLastWriteTimeUtc($Folder)
    $result = [ordered]@{
        name = $name
        path = $Folder
        origin = 'appcmd'
        created = $null
        files = @()
        size = 0
        complete = $false
        intact = $null
        proven = $null
        total = $null
        failing = $null
        key_fingerprints = @{}
        message = $null
    }
    $record = Read-WebfarmBackupRecord -Name $name
    if ($null -ne $record) {
        $result.origin = 'webfarm'
        $time = [DateTimeOffset]::FromUnixTimeSeconds([long]$record.created).UtcDateTime
        foreach ($property in $record.key_fingerprints.PSObject.Properties) {
            $result.key_fingerprints[$property.Name] = $property.Value
        }
    }
    $result.created = ConvertTo-WebfarmTimeText -Time $time
    try {
        $files = @(
            foreach ($path in [System.IO.Directory]::GetFiles($Folder)) {
                @{ name = [System.IO.Path]::GetFileName($path); path = $path; content = [System.IO.File]::ReadAllBytes($path) }
            }
        )
    }
    catch {
        $result.proven = $false
        $result.message = "It cannot be read: $(Get-WebfarmErrorText -ErrorRecord $_)"
        return $result
    }
    $result.files = @(ConvertTo-WebfarmBackupFile -File $files)
    foreach ($file in $result.files) {
        $result.size += $file.size
    }
    if (@($result.files | ForEach-Object -Process { $_.name }) -notcontains 'applicationHost.config') {
        $result.proven = $false
        $result.message = 'It holds no applicationHost.config.'
        return $result
    }
    if ($null -ne $record) {
        $result.intact = (Format-WebfarmBackupFile -File $result.files) -eq (Format-WebfarmBackupFile -File @($record.files))
    }
    if ($result.intact -eq $false) {
        $result.proven = $false
        $result.message = 'Its files are not the ones that were written when it was made.'
        return $result
    }
    try {
        $null = [WebfarmConfiguration]::Parse(($files | Where-Object -FilterScript { $_.name -eq 'applicationHost.config' }).content, 'applicationHost.config')
        $result.complete = $true
        if ($Decrypt -ne 'none') {
            $proof = Get-WebfarmBackupProof -File $files -Decrypt $Decrypt
            $result.total = $proof.SessionKeys.Count + $proof.ProtectedValues.Count
            $result.failing = @($proof.Problems).Count
            if ($result.failing -gt 0) {
                $result.proven = $false
                $result.message = Format-WebfarmProblem -Problem $proof.Problems -Limit 3 -WithoutAdvice
            }
            elseif ($Decrypt -eq 'all') {
                $result.proven = $true
            }
        }
    }
    catch {
        $result.proven = $false
        $result.message = Get-WebfarmErrorText -ErrorRecord $_
    }
    $result
}

Function New-WebfarmBackup {
    <#
    .SYNOPSIS
    Makes a backup of the present configuration, reads it back, and returns its facts.

    .DESCRIPTION
    The caller holds the lock (Enter-WebfarmRun). Nothing bears the name before everything is on the disk.

    .PARAMETER Name
    Its name; default yyyyMMddTHHmmss, local time, as appcmd names them.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter()]
        [string]
        $Name
    )

    if (-not $Name) {
        $Name = [DateTime]::Now.ToString('yyyyMMddTHHmmss', [System.Globalization.CultureInfo]::InvariantCulture)
    }
    Assert-WebfarmBackupName -Name $Name
    $root = Get-WebfarmBackupFolder
    $folder = [System.IO.Path]::Combine($root, $Name)
    if ([System.IO.Directory]::Exists($folder) -or [System.IO.File]::Exists($folder)) {
        throw "name: '$folder' exists already. Choose another name, or delete it first."
    }
    if (-not $PSCmdlet.ShouldProcess($folder, 'make backup')) {
        return
    }
    Clear-WebfarmBackupLeftover
    $files = @(Read-WebfarmStableSource)
    if (@($files | ForEach-Object -Process { $_.name }) -notcontains 'applicationHost.config') {
        throw "There is no applicationHost.config in $(Get-WebfarmConfigurationFolder): is IIS installed on this host?"
    }
    $staging = [System.IO.Path]::Combine([System.IO.Path]::GetDirectoryName($root), $script:partial)
    $record = Get-WebfarmBackupRecordPath -Name $Name
    $named = $false
    try {
        $null = [System.IO.Directory]::CreateDirectory($root)
        [WebfarmProtectedFolder]::Ensure($staging)
        foreach ($item in $files) {
            [WebfarmProtectedFolder]::WriteFile([System.IO.Path]::Combine($staging, $item.name), $item.content)
        }
        $written = @(
            foreach ($path in [System.IO.Directory]::GetFiles($staging)) {
                @{ name = [System.IO.Path]::GetFileName($path); content = [System.IO.File]::ReadAllBytes($path) }
            }
        )
        $listed = @(ConvertTo-WebfarmBackupFile -File $files)
        if ((Format-WebfarmBackupFile -File @(ConvertTo-WebfarmBackupFile -File $written)) -ne (Format-WebfarmBackupFile -File $listed)) {
            throw "$staging does not hold what was written to it. Check the disk."
        }
        Save-WebfarmBackupRecord -Name $Name -File $listed -KeyFingerprint (Get-WebfarmKeyMark -File $files)
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
        }
    }
    Get-WebfarmBackupFact -Name $Name
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
        $KeyFingerprint
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
    $records = Get-WebfarmBackupRecordPath
    if ([System.IO.Directory]::Exists($records) -and [System.IO.Directory]::GetFileSystemEntries($records).Count -eq 0) {
        [System.IO.Directory]::Delete($records)
    }
}

Function Get-WebfarmExpiredBackup {
    <#
    .SYNOPSIS
    Returns the names of the backups that retention deletes. Changes nothing.

    .DESCRIPTION
    Only backups whose name is a time are considered: one that somebody named is kept. The newest that proves always stays.

    .PARAMETER Fact
    All backups, from Get-WebfarmBackupFact with their proof.

    .PARAMETER Keep
    How many are kept; 0 does not count.

    .PARAMETER KeepDays
    How old the kept ones may be; 0 does not look at the age.

    .PARAMETER Now
    The time to judge by.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter()]
        [AllowEmptyCollection()]
        [object[]]
        $Fact = @(),

        [Parameter()]
        [int]
        $Keep,

        [Parameter()]
        [int]
        $KeepDays,

        [Parameter()]
        [DateTime]
        $Now = [DateTime]::UtcNow
    )

    $sorted = @($Fact | Sort-Object -Property { $_.created }, { $_.name } -Descending)
    $last = $sorted | Where-Object -FilterScript { $_.proven } | Select-Object -First 1
    $oldest = ConvertTo-WebfarmTimeText -Time $Now.AddDays(-$KeepDays)
    $number = 0
    foreach ($one in $sorted) {
        if ($one.name -notmatch $script:namedByTime) {
            continue
        }
        $number++
        # Times are texts of one form: they compare as they follow each other.
        $expired = ($Keep -gt 0 -and $number -gt $Keep) -or ($KeepDays -gt 0 -and [string]::CompareOrdinal($one.created, $oldest) -lt 0)
        if ($expired -and ($null -eq $last -or $one.name -ne $last.name)) {
            $one.name
        }
    }
}

Export-ModuleMember -Function @(
    'Assert-WebfarmBackupName'
    'Clear-WebfarmBackupLeftover'
    'ConvertTo-WebfarmBackupFile'
    'Format-WebfarmBackupFile'
    'Get-WebfarmBackupFact'
    'Get-WebfarmBackupFolder'
    'Get-WebfarmBackupProof'
    'Get-WebfarmBackupSource'
    'Get-WebfarmExpiredBackup'
    'Get-WebfarmKeyMark'
    'New-WebfarmBackup'
    'Read-WebfarmBackup'
    'Remove-WebfarmBackup'
)
