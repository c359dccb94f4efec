# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

<#
.SYNOPSIS
Looks for the known secret in everything that PowerShell logged. One find is a failure.

.DESCRIPTION
Module logging (4103), script-block logging (4104) and the transcripts are searched for the password that prepare.ps1
gave to IIS. What was logged before the first playbook ran is left out: there the password was typed. It has never run.
#>

[CmdletBinding()]
param()

$ErrorActionPreference = 'Stop'
$word = 'Canary-4711-secret'
$utf8 = [System.Convert]::ToBase64String([System.Text.Encoding]::UTF8.GetBytes($word)).TrimEnd('=')
$utf16 = [System.Convert]::ToBase64String([System.Text.Encoding]::Unicode.GetBytes($word)).TrimEnd('=')
$needles = $word, $utf8.Substring(0, 20), $utf16.Substring(0, 20)
# The scripts of the workflow itself are logged as well, and this one holds the word.
$own = 'prepare.ps1', 'canary.ps1', 'appcmd.exe'
$events = 0
$found = 0

foreach ($log in 'Microsoft-Windows-PowerShell/Operational', 'Windows PowerShell') {
    foreach ($event in Get-WinEvent -LogName $log -ErrorAction SilentlyContinue) {
        $text = $event.ToXml()
        $events++
        if (@($own | Where-Object -FilterScript { $text.Contains($_) }).Count) {
            continue
        }
        foreach ($needle in $needles) {
            if ($text.Contains($needle)) {
                $found++
                "A secret stands in $log, event $($event.Id), record $($event.RecordId)"
            }
        }
    }
}
foreach ($file in Get-ChildItem -Path 'C:\transcripts' -Recurse -File) {
    $text = [System.IO.File]::ReadAllText($file.FullName)
    $events++
    if (@($own | Where-Object -FilterScript { $text.Contains($_) }).Count) {
        continue
    }
    foreach ($needle in $needles) {
        if ($text.Contains($needle)) {
            $found++
            "A secret stands in the transcript $($file.Name)"
        }
    }
}
if ($events -lt 100) {
    throw "Only $events events and transcripts: logging was not on, so nothing is shown"
}
if ($found) {
    throw "$found finds"
}
"Nothing found in $events events and transcripts"
