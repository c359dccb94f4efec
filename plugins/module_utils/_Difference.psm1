# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# How configurations differ, attribute by attribute. Nothing here changes the server.

#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._History
#AnsibleRequires -PowerShell ..module_utils._FileFacts

# So many differences are listed.
$script:shown = 50

Function Get-WebfarmDifference {
    <#
    .SYNOPSIS
    Lists the attributes that differ between two configurations.

    .DESCRIPTION
    An encrypted value is a fingerprint of what is written. A secret in clear is [secret]; where the schema of this server cannot be
    read, every value may be one.

    .PARAMETER Before
    The one.

    .PARAMETER After
    The other.

    .PARAMETER Limit
    How many to return at most.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Before,

        [Parameter(Mandatory = $true)]
        [object]
        $After,

        [Parameter()]
        [int]
        $Limit = $script:shown
    )

    foreach ($difference in [WebfarmHistory]::Compare($Before, $After, (Get-WebfarmSecretSchema)) | Select-Object -First $Limit) {
        ConvertTo-WebfarmDifference -Difference $difference
    }
}

Function Get-WebfarmSecretSchema {
    <#
    .SYNOPSIS
    Returns what the schema of this server declares as encrypted; $null where not all of it can be read.
    #>
    [CmdletBinding()]
    param ()

    $problems = New-Object -TypeName System.Collections.Generic.List[object]
    $schema = Get-WebfarmSchema -Problem $problems
    if ($problems.Count -eq 0) {
        $schema
    }
}

Function ConvertTo-WebfarmDifference {
    <#
    .SYNOPSIS
    Returns one difference as results have it.

    .PARAMETER Difference
    From [WebfarmHistory]::Compare.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Difference
    )

    [ordered]@{
        path = $Difference.Path
        change = $Difference.Change
        before = $Difference.Before
        after = $Difference.After
    }
}

Function Add-WebfarmSnapshotDifference {
    <#
    .SYNOPSIS
    Adds to every snapshot how the present configuration differs from it.

    .PARAMETER History
    From Get-WebfarmHistoryFact, changed in place.

    .PARAMETER File
    The present applicationHost.config; $null when it cannot be read.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $History,

        [Parameter()]
        [AllowNull()]
        [object]
        $File
    )

    $schema = Get-WebfarmSecretSchema
    foreach ($snapshot in $History.snapshots) {
        $snapshot.differences = $null
        $snapshot.difference_count = $null
        if ($null -eq $File -or -not $snapshot.sha256) {
            continue
        }
        try {
            $old = [WebfarmConfiguration]::Load($snapshot.path)
            $found = @([WebfarmHistory]::Compare($old, $File, $schema))
            $snapshot.difference_count = $found.Count
            $snapshot.differences = @(
                $found | Select-Object -First $script:shown | ForEach-Object -Process { ConvertTo-WebfarmDifference -Difference $_ }
            )
        }
        catch {
            Write-Verbose -Message "$($snapshot.path) cannot be compared: $_"
        }
    }
}

Export-ModuleMember -Function @(
    'Add-WebfarmSnapshotDifference'
    'Get-WebfarmDifference'
)
