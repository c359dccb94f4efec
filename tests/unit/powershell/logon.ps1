# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Asks _Logon.cs, as far as it needs no Windows. The only argument is a JSON file with the path of
# Ansible.ModuleUtils.AddType.psm1, the C# files, passwords, and a folder with the names of files in it. Writes what each password
# lacks, and the content of each file in base64, as one JSON object.

param (
    [string]
    $List
)

$ErrorActionPreference = 'Stop'

. ([System.IO.Path]::Combine($PSScriptRoot, 'work.ps1')) -List $List
$lacks = @(
    foreach ($text in $work.passwords) {
        [string][WebfarmLogon]::Weakness($text)
    }
)
$contents = @(
    foreach ($content in [WebfarmLogon]::Read($work.folder, [string[]]$work.names, $null, $null)) {
        if ($null -eq $content) {
            'missing'
        }
        else {
            [Convert]::ToBase64String($content)
        }
    }
)
$secure = [WebfarmLogon]::Secure('x')
$result = [ordered]@{
    lacks = $lacks
    contents = $contents
    secure = "$($secure.GetType().FullName) $($secure.Length) $($secure.IsReadOnly())"
    judged = @($work.errors | ForEach-Object -Process { [WebfarmLogon]::Judge($_) })
    nothing = $null -eq [WebfarmLogon]::Secure($null)
}
ConvertTo-Json -InputObject $result -Compress
