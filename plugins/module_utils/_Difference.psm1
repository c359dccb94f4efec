# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# How configurations differ, attribute by attribute. Nothing here changes the server.

#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._History

Function Get-WebfarmDifference {
    <#
    .SYNOPSIS
    Lists the attributes that differ between two configurations. Secrets are fingerprints of what is written.

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
        $Limit = 50
    )

    $number = 0
    foreach ($difference in [WebfarmHistory]::Compare($Before, $After)) {
        $number++
        if ($number -gt $Limit) {
            break
        }
        [ordered]@{
            path = $difference.Path
            change = $difference.Change
            before = $difference.Before
            after = $difference.After
        }
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

    foreach ($snapshot in $History.snapshots) {
        $snapshot.differences = $null
        $snapshot.difference_count = $null
        if ($null -eq $File -or -not $snapshot.sha256) {
            continue
        }
        try {
            $old = [WebfarmConfiguration]::Load($snapshot.path)
            $snapshot.difference_count = [WebfarmHistory]::Compare($old, $File).Length
            $snapshot.differences = @(Get-WebfarmDifference -Before $old -After $File)
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
