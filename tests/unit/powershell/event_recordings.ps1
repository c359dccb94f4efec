# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Plays recorded events to Get-WebfarmEventFact. The argument is a JSON file: libraries (paths of psm1 files, the stand-in for Get-WinEvent
# among them), cases (each with the file of its events, hours and limit). Prints what was returned, as JSON. No part of Windows is called,
# so that it runs anywhere.
param (
    [Parameter(Mandatory = $true)]
    [string]
    $Path
)

$ErrorActionPreference = 'Stop'
$plan = ConvertFrom-Json -InputObject ([System.IO.File]::ReadAllText($Path))
foreach ($library in $plan.libraries) {
    Import-Module -Name $library -Force -DisableNameChecking -WarningAction SilentlyContinue
}
$answers = foreach ($case in $plan.cases) {
    $env:LAB_EVENTS = $case.events
    Get-WebfarmEventFact -Hours $case.hours -Limit $case.limit
}
ConvertTo-Json -InputObject @($answers) -Compress -Depth 6
