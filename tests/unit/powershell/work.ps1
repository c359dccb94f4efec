# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The beginning of the scripts beside it, which load it into their own scope: reads the JSON file that is their only argument, brings the
# compiler of Ansible (add_type) and compiles the C# files (csharp, none is allowed) with what the script adds. Leaves $work.

param (
    [string]
    $List,

    [string[]]
    $More = @()
)

$work = ConvertFrom-Json -InputObject ([System.IO.File]::ReadAllText($List))
$addType = [ScriptBlock]::Create([System.IO.File]::ReadAllText($work.add_type))
New-Module -Name AddType -ScriptBlock $addType | Import-Module -WarningAction SilentlyContinue
$sources = @($work.csharp | ForEach-Object -Process { [System.IO.File]::ReadAllText($_) }) + $More
if ($sources.Count -gt 0) {
    # The compiler leaves its text buffer in the output.
    $null = Add-CSharpType -References $sources
}
