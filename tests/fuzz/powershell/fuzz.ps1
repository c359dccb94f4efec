# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Compiles the parsers of the target with Fuzz.cs and runs them. The only argument is a JSON file: add_type, sources, inputs,
# value, output.

param (
    [string]
    $List
)

$ErrorActionPreference = 'Stop'

$work = ConvertFrom-Json -InputObject ([System.IO.File]::ReadAllText($List))
$addType = [ScriptBlock]::Create([System.IO.File]::ReadAllText($work.add_type))
New-Module -Name AddType -ScriptBlock $addType | Import-Module -WarningAction SilentlyContinue
$sources = @(
    foreach ($path in $work.sources) {
        [System.IO.File]::ReadAllText($path)
    }
)
$null = Add-CSharpType -References $sources
[System.IO.File]::WriteAllLines($work.output, [WebfarmFuzz]::Run($work.inputs, $work.value))
