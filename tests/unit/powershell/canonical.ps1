# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Computes canonical forms with the library that travels to Windows. The only argument is a JSON file with the path of
# Ansible.ModuleUtils.AddType.psm1, the library, schema files, and the cases. Writes one JSON array.

param (
    [string]
    $List
)

$ErrorActionPreference = 'Stop'

. ([System.IO.Path]::Combine($PSScriptRoot, 'work.ps1')) -List $List

$schema = New-Object -TypeName WebfarmEncryptedSchema
foreach ($path in $work.schema) {
    $schema.Add([System.IO.File]::ReadAllBytes($path), [System.IO.Path]::GetFileName($path))
}
$results = @(
    foreach ($case in $work.cases) {
        $used = $null
        if ($case.declared) {
            $used = $schema
        }
        $runKey = $null
        if ($case.run_key) {
            $runKey = [System.Text.Encoding]::UTF8.GetBytes($case.run_key)
        }
        try {
            $bytes = [System.IO.File]::ReadAllBytes($case.path)
            $form = New-Object -TypeName WebfarmCanonical -ArgumentList $bytes, $used, ([string[]]$case.ignore), ([string[]]$case.overrides), $runKey
            [ordered]@{
                digest = $form.Digest
                keyed_digest = $form.KeyedDigest
                attributes = $form.Attributes
                encrypted = @($form.Encrypted)
                locations = @($form.Locations)
                encoding = [WebfarmCanonical]::EncodingOf($bytes)
                error = $null
            }
        }
        catch {
            [ordered]@{
                error = "$($_.Exception.InnerException.Message)"
            }
        }
    }
)
ConvertTo-Json -InputObject ([ordered]@{ declared = @($schema.Paths); results = $results }) -Compress -Depth 6
