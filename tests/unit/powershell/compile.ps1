# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Compiles C# utilities the way Ansible does on PowerShell 7, where a warning is an error. The only argument is a JSON
# file with the path of Ansible.ModuleUtils.AddType.psm1 and the units, each with a name and the paths of its sources.
# Writes one JSON object: the name of each unit and what the compiler said, empty when all is well.

param (
    [string]
    $List
)

$ErrorActionPreference = 'Stop'

. ([System.IO.Path]::Combine($PSScriptRoot, 'work.ps1')) -List $List

$result = [ordered]@{}
foreach ($unit in $work.units) {
    $sources = @(
        foreach ($path in $unit.sources) {
            [System.IO.File]::ReadAllText($path)
        }
    )
    try {
        # The compiler leaves its text buffer in the output.
        $null = Add-CSharpType -References $sources
        $result[$unit.name] = ''
    }
    catch {
        $result[$unit.name] = "$($_.Exception.Message)"
    }
}
ConvertTo-Json -InputObject $result -Compress
