# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Lets the health check ask URLs. The only argument is a JSON file with the path of Ansible.ModuleUtils.AddType.psm1, the C# files, the
# library, a configuration, and cases with the URLs to ask. Writes the problems of each case as one JSON array.

param (
    [string]
    $List
)

$ErrorActionPreference = 'Stop'

. ([System.IO.Path]::Combine($PSScriptRoot, 'work.ps1')) -List $List
Import-Module -Name $work.library -DisableNameChecking -WarningAction SilentlyContinue
$configuration = [WebfarmConfiguration]::Load($work.configuration)
$said = @(
    foreach ($url in $work.urls) {
        $problem = & (Get-Module -Name _Service) {
            param ($Url, $Configuration)
            Get-WebfarmUrlProblem -Url @($Url) -Configuration $Configuration -TimeoutSeconds 1
        } $url $configuration
        [string]$problem
    }
)
ConvertTo-Json -InputObject $said -Compress
