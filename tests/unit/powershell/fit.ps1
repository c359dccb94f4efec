# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs the parts of _Fit.cs that look at files only. The only argument is a JSON file with the path of
# Ansible.ModuleUtils.AddType.psm1, the sources, and the work: findings (schema files, candidate, present file) and overrides
# (a file, each change by itself). Writes one JSON object.

param (
    [string]
    $List
)

$ErrorActionPreference = 'Stop'

. ([System.IO.Path]::Combine($PSScriptRoot, 'work.ps1')) -List $List

$result = [ordered]@{ findings = @(); overrides = @() }
$result.findings = @(
    foreach ($item in $work.findings) {
        $schema = New-Object -TypeName ansible_collections.webfarm.iis.plugins.module_utils._Fit.WebfarmSchema
        foreach ($path in $item.schema) {
            $schema.Add([System.IO.File]::ReadAllText($path))
        }
        $file = [WebfarmConfiguration]::Load($item.file)
        $present = [WebfarmConfiguration]::Load($item.present)
        $found = @([WebfarmFit]::Sections($file, $present, $schema)) + @([WebfarmFit]::Generation($file, $present, $schema))
        , @($found | ForEach-Object -Process { "$($_.Severity) $($_.Code) $($_.Path)" })
    }
)
$result.overrides = @(
    foreach ($item in $work.overrides) {
        $file = [WebfarmConfiguration]::Load($item.file)
        foreach ($change in $item.changes) {
            $values = New-Object -TypeName 'System.Collections.Generic.Dictionary[string,string]'
            $values.Add($change.path, $change.value)
            try {
                [Convert]::ToBase64String([WebfarmOverride]::Apply($file, $values))
            }
            catch {
                $inner = $_.Exception
                while ($null -ne $inner.InnerException) {
                    $inner = $inner.InnerException
                }
                "refused: $($inner.Message)"
            }
        }
    }
)
ConvertTo-Json -InputObject $result -Compress -Depth 5
