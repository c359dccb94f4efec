# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs inside a lab host: shared configuration is enabled with a fault before, in, and behind the writes of the cmdlet, printed as JSON.
# The writes are found in the code, see injection.ps1. test_shared_config.py judges the results.

param (
    [string]
    $Job
)

$ErrorActionPreference = 'Stop'
$task = Get-Content -LiteralPath $Job -Raw | ConvertFrom-Json
Import-Module -Name $task.add_type
Add-CSharpType -References @($task.sources | ForEach-Object -Process { [System.IO.File]::ReadAllText($_) })
. ([System.IO.Path]::Combine([System.IO.Path]::GetDirectoryName($PSCommandPath), 'injection.ps1'))
$config = [WebfarmConfiguration]::Folder()
$state = 'C:\ProgramData\webfarm.iis'
$work = 'C:\lab\shared-steps'

foreach ($library in $task.modules) {
    $name = [System.IO.Path]::GetFileNameWithoutExtension($library)
    if ($task.instrumented -contains $name) {
        $library = Copy-Library -Source $library -Folder $work
    }
    Import-Module -Name $library -Force -Scope Global
}

Function Get-Now {
    $services = [ordered]@{}
    foreach ($name in 'AppHostSvc', 'WAS', 'W3SVC', 'FTPSVC', 'WMSVC') {
        $service = [WebfarmService]::Query($name)
        $services[$name] = "$($service.Status) $($service.StartType)"
    }
    $parts = [ordered]@{}
    foreach ($name in 'iisWasKey', 'iisConfigurationKey', 'NetFrameworkConfigurationKey') {
        $info = [WebfarmKeyContainer]::Inspect($name, 'cryptoapi')
        $parts[$name] = "$($info.State) $($info.Fingerprint) $($info.Sddl)"
    }
    foreach ($name in 'iisCngWasKey', 'iisCngConfigurationKey') {
        $parts[$name] = [WebfarmKeyContainer]::Sha256([System.IO.File]::ReadAllBytes([WebfarmKeyContainer]::Inspect($name, 'cng').FilePath))
    }
    foreach ($name in 'redirection.config', 'applicationHost.config', 'administration.config') {
        $parts[$name] = [WebfarmKeyContainer]::Sha256([System.IO.File]::ReadAllBytes("$config\$name"))
    }
    @{
        parts = $parts
        services = $services
        journal = [System.IO.File]::Exists("$state\journal.json")
        state = @(if ([System.IO.Directory]::Exists($state)) { Get-ChildItem -LiteralPath $state -File | ForEach-Object -Process { $_.Name } })
        found = @(
            if ([System.IO.Directory]::Exists("$state\undo")) {
                Get-ChildItem -LiteralPath "$state\undo" -Recurse -Filter '*.found-*' | ForEach-Object -Process { $_.Name }
            }
        )
        beside = @([System.IO.Directory]::GetFiles($config) | ForEach-Object -Process { [System.IO.Path]::GetFileName($_) } | Sort-Object)
    }
}

Function Invoke-Settle {
    try {
        $run = Enter-WebfarmRun
        Exit-WebfarmRun -Run $run
        if ($null -eq $run.Settled) { @{ outcome = 'none'; warnings = @() } } else { $run.Settled }
    }
    catch {
        @{ outcome = "error: $($_.Exception.GetBaseException().Message)"; warnings = @() }
    }
}

Function Invoke-Enable {
    # Answers what became of it.
    $change = New-WebfarmChange -CheckMode $false -Parameter @{
        start_services = 'as_before'
        start_timeout = 20
        stop_timeout = 20
        warm_up = $true
        verify_urls = @()
        undo_expiry_hours = 1
        without_undo = $false
        deadman_minutes = 0
        prior_backups = 0
        logon_test = $false
    }
    $plan = @(Get-WebfarmSharedKey)
    $remote = Read-WebfarmSharedFolder -Path $task.path -WithKey $true
    $parameter = @{ PhysicalPath = $task.path; KeyEncryptionPassword = [WebfarmLogon]::Secure($task.secret) }
    $action = {
        param ($Steps)
        Enable-WebfarmShared -Parameter $parameter -Plan $plan -Remote $remote
        $Steps.Add('Enabled.')
    }
    $said = ''
    try {
        Invoke-WebfarmSharedTransaction -Change $change -Plan $plan -Action $action
    }
    catch {
        $said = $_.Exception.GetBaseException().Message
    }
    $outcome = 'killed'
    if (-not $global:Steps.Dead) {
        $outcome = $change.Result.transaction.outcome
    }
    @{ outcome = $outcome; message = $said; warnings = $change.Warning.ToArray() }
}

Function Remove-Trace {
    foreach ($path in "$state\undo", "$config\localKeys.backup") {
        # A file that somebody still looks at goes a moment later.
        for ($i = 0; $i -lt 20 -and (Test-Path -LiteralPath $path); $i++) {
            Start-Sleep -Milliseconds (100 * $i)
            Remove-Item -LiteralPath $path -Recurse -ErrorAction SilentlyContinue
        }
    }
}

$results = [ordered]@{ start = Get-Now }

# Undisturbed, for the steps; then back to the old state, by a journal that does not know which key the cmdlet made.
$global:Steps.Trace = New-Object -TypeName System.Collections.Generic.List[string]
$results.enabled = Invoke-Enable
$trace = $global:Steps.Trace.ToArray()
$results.trace = $trace
$results.new = Get-Now
$undo = Get-ChildItem -LiteralPath "$state\undo" | Select-Object -First 1
$journal = ConvertFrom-Json -InputObject ([System.IO.File]::ReadAllText("$($undo.FullName)\undo.json"))
$journal.phase = 'undoing'
$journal.state = Get-WebfarmRunState
$global:Steps = @{ Count = 0; At = 0; Kind = ''; Dead = $false; Trace = $null; Hit = '' }
[System.IO.File]::WriteAllText("$state\journal.json", (ConvertTo-Json -InputObject $journal -Depth 8))
$results.back = Invoke-Settle
$results.reset = Get-Now
Remove-Trace

$results.cases = @(
    foreach ($case in $task.cases) {
        # The step with this name: the first, or the one that many behind it.
        $at = [array]::IndexOf($trace, $case.step) + 1 + $case.behind
        $global:Steps = @{ Count = 0; At = $at; Kind = $case.kind; Dead = $false; Trace = $null; Hit = '' }
        $done = Invoke-Enable
        $done.kind = $case.kind
        $done.step = $global:Steps.Hit
        $global:Steps = @{ Count = 0; At = 0; Kind = ''; Dead = $false; Trace = $null; Hit = '' }
        $done.left = Get-Now
        $done.settled = Invoke-Settle
        $done.now = Get-Now
        $done
        Remove-Trace
    }
)
ConvertTo-Json -InputObject $results -Depth 8 -Compress
