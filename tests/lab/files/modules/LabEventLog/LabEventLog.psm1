# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Stand-in for Get-WinEvent -FilterHashtable, which Wine cannot have: it answers from a file of events, one JSON object a line, as the
# stand-in services write it (time, source, id, message, data: four bytes as hexadecimal digits, texts: further properties). The file is
# C:\lab\events.jsonl, or what LAB_EVENTS names. A line with a failure (source, failure: an error id) is a log that cannot be read.

Function Get-WinEvent {
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $FilterHashtable,

        [Parameter()]
        [int64]
        $MaxEvents = [int64]::MaxValue
    )

    $path = 'C:\lab\events.jsonl'
    if ($env:LAB_EVENTS) {
        $path = $env:LAB_EVENTS
    }
    $log = 'System'
    if ($FilterHashtable.ProviderName -like '*-W3SVC-WP') {
        $log = 'Application'
    }
    $lines = @(
        if ([System.IO.File]::Exists($path)) {
            foreach ($line in [System.IO.File]::ReadAllLines($path)) {
                ConvertFrom-Json -InputObject $line
            }
        }
    )
    $mine = @($lines | Where-Object -FilterScript { $_.source -eq $FilterHashtable.ProviderName })
    $failure = 'NoMatchingEventsFound'
    if ($log -ne $FilterHashtable.LogName) {
        $mine = @()
        $failure = 'LogsAndProvidersDontOverlap'
    }
    foreach ($line in $mine) {
        if ($line.failure) {
            $mine = @()
            $failure = $line.failure
        }
    }
    $found = @(
        foreach ($line in $mine) {
            $when = $line.time
            if ($when -isnot [DateTime]) {
                $when = [DateTime]::Parse($when, [System.Globalization.CultureInfo]::InvariantCulture)
            }
            $when = $when.ToLocalTime()
            if ($FilterHashtable.Id -contains $line.id -and $when -ge $FilterHashtable.StartTime) {
                $properties = @(
                    foreach ($text in $line.texts) {
                        [PSCustomObject]@{ Value = $text }
                    }
                    if ($line.data) {
                        $bytes = for ($i = 0; $i -lt $line.data.Length; $i += 2) {
                            [System.Convert]::ToByte($line.data.Substring($i, 2), 16)
                        }
                        [PSCustomObject]@{ Value = [byte[]]$bytes }
                    }
                )
                [PSCustomObject]@{
                    Id = [int]$line.id
                    TimeCreated = $when
                    Message = $line.message
                    Properties = $properties
                }
            }
        }
    )
    if ($found.Count -gt 0) {
        # The newest first, as the log is read.
        [array]::Reverse($found)
        return $found | Select-Object -First $MaxEvents
    }
    $exception = New-Object -TypeName System.Exception -ArgumentList "No events were found ($failure)."
    $record = New-Object -TypeName System.Management.Automation.ErrorRecord -ArgumentList $exception, $failure, 'ObjectNotFound', $null
    $PSCmdlet.WriteError($record)
}

Export-ModuleMember -Function Get-WinEvent
