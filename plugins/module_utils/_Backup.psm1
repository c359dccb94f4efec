# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# Backups as they are listed, proven, made by name, and expire. How they lie on the disk is in _BackupFolder.psm1.

#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -PowerShell ..module_utils._BackupFolder
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._KeyPlan

# appcmd's own default name.
$script:namedByTime = '^\d{8}T\d{6}$'
$script:parsed = 'applicationHost.config', 'administration.config', 'redirection.config'
# Of a list, so many of the newest are proven.
$script:provenBackups = 50

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
        if ($record.prior -eq $true) {
            $result.origin = 'transaction'
        }
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
    The caller holds the lock (Enter-WebfarmRun).

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
    if (-not $PSCmdlet.ShouldProcess($Name, 'make backup')) {
        return
    }
    Write-WebfarmBackup -Name $Name -File @(Read-WebfarmStableSource)
    Get-WebfarmBackupFact -Name $Name
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

    # Those of transactions expire by a rule of their own, and vouch for none.
    $sorted = @($Fact | Where-Object -FilterScript { $_.origin -ne 'transaction' } | Sort-Object -Property { $_.created }, { $_.name } -Descending)
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
    'Get-WebfarmBackupFact'
    'Get-WebfarmBackupProof'
    'Get-WebfarmExpiredBackup'
    'New-WebfarmBackup'
    'Read-WebfarmBackup'
)
