# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Describes web.config files with the libraries that travel to Windows, as far as they need no keys. The only argument is a
# JSON file with the path of Ansible.ModuleUtils.AddType.psm1, the libraries, the configuration, the folder that stands for
# that of Windows, and the run keys. Writes one JSON array.

param (
    [string]
    $List
)

$ErrorActionPreference = 'Stop'

. ([System.IO.Path]::Combine($PSScriptRoot, 'work.ps1')) -List $List
foreach ($path in $work.powershell) {
    $text = [System.IO.File]::ReadAllText($path).Replace("[System.Environment]::GetFolderPath('Windows')", "'$($work.windows)'")
    New-Module -Name ([System.IO.Path]::GetFileNameWithoutExtension($path)) -ScriptBlock ([ScriptBlock]::Create($text)) |
        Import-Module -WarningAction SilentlyContinue
}
$file = [PSCustomObject]@{
    Bytes = [System.IO.File]::ReadAllBytes($work.configuration)
}
$results = @(
    foreach ($text in $work.run_keys) {
        try {
            Get-WebfarmWebFact -File $file -Decrypt none -RunKey (ConvertTo-WebfarmRunKey -Text $text)
        }
        catch {
            [ordered]@{
                error = "$($_.Exception.Message)"
            }
        }
    }
)
ConvertTo-Json -InputObject $results -Compress -Depth 6
