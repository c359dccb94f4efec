# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# The events of IIS and its services that bear on keys and configuration. The log is asked by Get-WinEvent alone, so that recorded events can
# stand in for it. Not verified on Windows: written after the documentation and tested against recorded events.

#AnsibleRequires -PowerShell ..module_utils._Diagnosis
#AnsibleRequires -PowerShell ..module_utils._Facts

Function Get-WebfarmEventFact {
    <#
    .SYNOPSIS
    Returns the events of IIS and its services that bear on keys and configuration, the newest first.

    .DESCRIPTION
    The event log is asked by Get-WinEvent. Where that is not there or the log cannot be read, readable is false and message says why:
    that is no error. Not verified on Windows.

    .PARAMETER Hours
    How far back to look.

    .PARAMETER Limit
    How many events to return at most.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [int]
        $Hours = 24,

        [Parameter()]
        [int]
        $Limit = 50
    )

    $result = [ordered]@{
        readable = $false
        message = $null
        hours = $Hours
        entries = @()
    }
    if ($null -eq (Get-Command -Name Get-WinEvent -ErrorAction SilentlyContinue)) {
        $result.message = 'This PowerShell has no Get-WinEvent.'
        return $result
    }
    $wanted = (Get-WebfarmDiagnosisTable).events
    $found = New-Object -TypeName System.Collections.Generic.List[object]
    $since = [DateTime]::Now.AddHours(-$Hours)
    foreach ($source in @($wanted | ForEach-Object -Process { $_.source } | Select-Object -Unique)) {
        $log = 'System'
        if ($source -like '*-W3SVC-WP') {
            $log = 'Application'
        }
        $filter = @{
            LogName = $log
            ProviderName = $source
            Id = @($wanted | Where-Object -FilterScript { $_.source -eq $source } | ForEach-Object -Process { [int]$_.id })
            StartTime = $since
        }
        try {
            foreach ($record in Get-WinEvent -FilterHashtable $filter -MaxEvents $Limit -ErrorAction Stop) {
                $found.Add((ConvertTo-WebfarmEventFact -EventRecord $record -Log $log -Source $source))
            }
            $result.readable = $true
        }
        catch {
            # No event at all is reported as an error, and so is a source that is not registered here or writes to another log.
            if ($_.FullyQualifiedErrorId -match '^(NoMatchingEventsFound|NoMatchingProvidersFound|LogsAndProvidersDontOverlap)\b') {
                $result.readable = $true
            }
            else {
                $result.message = "The $log log cannot be read: $(Get-WebfarmErrorText -ErrorRecord $_)"
            }
        }
    }
    $result.entries = @($found | Sort-Object -Property { $_.time } -Descending | Select-Object -First $Limit)
    $result
}

Function ConvertTo-WebfarmEventFact {
    <#
    .SYNOPSIS
    Turns an event record into plain facts.

    .PARAMETER EventRecord
    What Get-WinEvent returned.

    .PARAMETER Log
    The log it comes from.

    .PARAMETER Source
    Its source.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $EventRecord,

        [Parameter(Mandatory = $true)]
        [string]
        $Log,

        [Parameter(Mandatory = $true)]
        [string]
        $Source
    )

    $code = Get-WebfarmEventCode -EventRecord $EventRecord
    $text = "$($EventRecord.Message)".Trim()
    if ($text.Length -gt 400) {
        $text = $text.Substring(0, 400) + '...'
    }
    [ordered]@{
        time = ConvertTo-WebfarmTimeText -Time $EventRecord.TimeCreated
        log = $Log
        source = $Source
        id = [int]$EventRecord.Id
        hresult = $code
        message = $text
    }
}

Function Get-WebfarmEventCode {
    <#
    .SYNOPSIS
    Returns the error code that an event carries, as text, or nothing.

    .DESCRIPTION
    IIS writes it as four bytes, little-endian ("the data field contains the error code"). The Service Control Manager writes %% and the number
    as a parameter, which the log shows as its text.

    .PARAMETER EventRecord
    What Get-WinEvent returned.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $EventRecord
    )

    $found = [uint32]0
    foreach ($property in $EventRecord.Properties) {
        $value = $property.Value
        $number = [uint32]0
        if ($value -is [byte[]] -and $value.Length -eq 4) {
            $number = [System.BitConverter]::ToUInt32($value, 0)
        }
        elseif ($value -is [string] -and $value -match '^%%(\d{1,10})$') {
            $null = [uint32]::TryParse($Matches[1], [ref]$number)
        }
        if ($number -ne 0) {
            $found = $number
        }
    }
    if ($found -eq 0) {
        # Not nothing, which would become an empty object in the result.
        return $null
    }
    Format-WebfarmCode -Code $found
}

Export-ModuleMember -Function Get-WebfarmEventFact
