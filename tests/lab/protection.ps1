# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs inside a lab host: the C# libraries, compiled as Ansible compiles them, do a list of jobs in one process and print
# their results as JSON. test_protection_target.py makes the jobs and judges the results.

param (
    [string]
    $Job
)

$ErrorActionPreference = 'Stop'
$task = Get-Content -LiteralPath $Job -Raw | ConvertFrom-Json
Import-Module -Name $task.add_type
Add-CSharpType -References @($task.sources | ForEach-Object -Process { [System.IO.File]::ReadAllText($_) })

Function ConvertTo-Plain {
    param ($Verdicts)
    , @($Verdicts | ForEach-Object -Process {
            @{ path = $_.Path; provider = $_.Provider; verdict = $_.Verdict; code = $_.Error; line = $_.Line; message = $_.ErrorMessage }
        })
}

$results = @{}
$file = [WebfarmConfiguration]::Load($task.file)
$results.live = ConvertTo-Plain ([WebfarmProtection]::Prove($file, $null))
$results.sessions = @([WebfarmProtection]::ProveSessionKeys($file, $null) | ForEach-Object -Process {
        @{ provider = $_.Provider; verdict = $_.Verdict; algorithm = $_.Algorithm; key_bits = $_.KeyBits }
    })
$results.providers = @($file.Providers | ForEach-Object -Process { @{ name = $_.Name; kind = $_.Kind; container = $_.Container } })

# The same with the keys as candidates: taken out of their containers, which then are gone.
$keys = New-Object -TypeName WebfarmKeySet
foreach ($name in $task.candidates) {
    $keys.Add($name, [WebfarmKeyContainer]::PrivateBlob($name))
    [WebfarmKeyContainer]::Delete($name)
}
$results.without = ConvertTo-Plain ([WebfarmProtection]::Prove($file, $null))
$results.candidates = ConvertTo-Plain ([WebfarmProtection]::Prove($file, $keys))
foreach ($name in $task.candidates) {
    $null = [WebfarmKeyContainer]::ImportPrivate($name, $keys.Get($name), $true)
}

# Portable copy, new keys, one value, a no-op edit and two edits.
$clean = [WebfarmConfiguration]::Load($task.clean)
$portable = [WebfarmProtection]::MakePortable($clean, $null)
[System.IO.File]::WriteAllBytes($task.portable, $portable.Bytes)
$results.conversions = @($portable.Conversions | ForEach-Object -Process { @{ path = $_.Path; from = $_.FromProvider; to = $_.ToProvider } })
$copy = [WebfarmConfiguration]::Parse($portable.Bytes, 'portable')
$again = [WebfarmConfiguration]::Parse([WebfarmProtection]::MakePortable($clean, $null).Bytes, 'portable')
$results.same_content = [WebfarmProtection]::SameContent($copy, $null, $again, $null)
$results.same_bytes = $copy.Sha256 -eq $again.Sha256

$new = New-Object -TypeName WebfarmKeySet
foreach ($name in $task.candidates) {
    $new.Add($name, [WebfarmKeyContainer]::Generate(2048))
}
$reencrypted = [WebfarmProtection]::Reencrypt($copy, $new)
[System.IO.File]::WriteAllBytes($task.reencrypted, $reencrypted.Bytes)
$results.reencrypted = @($reencrypted.Values)
$results.lost = @($reencrypted.Lost)
$after = [WebfarmConfiguration]::Parse($reencrypted.Bytes, 'reencrypted')
$results.old_keys_on_new_file = ConvertTo-Plain ([WebfarmProtection]::Prove($after, $null))
$results.same_content_new_keys = [WebfarmProtection]::SameContent($copy, $null, $after, $new)
foreach ($name in $task.new_containers.PSObject.Properties) {
    $null = [WebfarmKeyContainer]::ImportPrivate($name.Value, $new.Get($name.Name), $true)
}

$changed = [WebfarmProtection]::SetValue($copy, $null, $task.set.path, $task.set.provider, $task.set.text)
[System.IO.File]::WriteAllBytes($task.changed, $changed)
$changedFile = [WebfarmConfiguration]::Parse($changed, 'changed')
$results.set_again_is_null = $null -eq [WebfarmProtection]::SetValue($changedFile, $null, $task.set.path, $task.set.provider, $task.set.text)
$results.same_after_change = [WebfarmProtection]::SameContent($copy, $null, $changedFile, $null)

$edits = New-Object -TypeName 'System.Collections.Generic.Dictionary[string,string]'
$results.no_op = @{}
foreach ($path in $task.corpus) {
    try {
        $one = [WebfarmConfiguration]::Load($path)
        $bytes = [WebfarmConfiguration]::Replace($one, $edits)
        $equal = [System.Linq.Enumerable]::SequenceEqual([byte[]]$bytes, [byte[]][System.IO.File]::ReadAllBytes($path))
        $results.no_op[$path] = if ($equal) { 'same' } else { 'DIFFERENT' }
    }
    catch {
        $results.no_op[$path] = $_.Exception.GetBaseException().GetType().Name + ': ' + $_.Exception.GetBaseException().Message
    }
}
$results.refused = @{}
foreach ($path in $task.refused) {
    try {
        $null = [WebfarmConfiguration]::Load($path)
        $results.refused[$path] = 'accepted'
    }
    catch {
        $results.refused[$path] = $_.Exception.GetBaseException().GetType().Name + ': ' + $_.Exception.GetBaseException().Message
    }
}
foreach ($edit in $task.edits.PSObject.Properties) {
    $edits[$edit.Name] = $edit.Value
}
[System.IO.File]::WriteAllBytes($task.edited, [WebfarmConfiguration]::Replace($clean, $edits))

$keys.Dispose()
$new.Dispose()
ConvertTo-Json -InputObject $results -Depth 6
