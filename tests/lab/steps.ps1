# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs inside a lab host: the transaction with a fault at every one of its steps, printed as JSON.
#
# The steps are not listed here. They are found in the code, see injection.ps1.
#
# A dropped connection ends the process, which is killed, or lets it go on unseen. Then whoever has lost it calls again, at whatever step:
# that is played at every step of the run that nothing else disturbs.
# test_transaction_steps.py judges the results.

param (
    [string]
    $Job
)

$ErrorActionPreference = 'Stop'
$task = Get-Content -LiteralPath $Job -Raw | ConvertFrom-Json
Import-Module -Name $task.add_type
Add-CSharpType -References @($task.sources | ForEach-Object -Process { [System.IO.File]::ReadAllText($_) })
$path = [System.IO.Path]::Combine([WebfarmConfiguration]::Folder(), 'applicationHost.config')
$state = 'C:\ProgramData\webfarm.iis'
$tasks = "$([Environment]::SystemDirectory)\Tasks"

. ([System.IO.Path]::Combine([System.IO.Path]::GetDirectoryName($PSCommandPath), 'injection.ps1'))

$libraries = @(
    foreach ($library in $task.modules) {
        $name = [System.IO.Path]::GetFileNameWithoutExtension($library)
        if ($task.instrumented -contains $name) { Copy-Library -Source $library -Folder C:\lab\steps } else { $library }
    }
)
foreach ($library in $libraries) {
    Import-Module -Name $library -Force -Scope Global
}

Function Get-Now {
    # What there is. Brief: without what runs in the services, which takes a program of its own to ask.
    param ([switch]$Brief)
    $services = [ordered]@{}
    $starts = [ordered]@{}
    foreach ($name in 'AppHostSvc', 'WAS', 'W3SVC', 'FTPSVC', 'WMSVC') {
        $service = [WebfarmService]::Query($name)
        $services[$name] = $service.Status
        $starts[$name] = $service.StartType
    }
    $parts = [ordered]@{}
    foreach ($entry in $task.keys) {
        $info = [WebfarmKeyContainer]::Inspect($entry.container, 'cryptoapi')
        $parts[$entry.container] = "$($info.State) $($info.Fingerprint) $($info.Exportable) $($info.Sddl)"
    }
    foreach ($item in $script:files) {
        $content = Read-WebfarmContent -Item $item
        $parts[$item.path] = if ($null -eq $content) { 'missing' } else { [WebfarmKeyContainer]::Sha256($content) }
    }
    $folder = [WebfarmConfiguration]::Folder()
    @{
        parts = $parts
        services = $services
        starts = $starts
        pools = @(if (-not $Brief -and $services.WAS -eq 'running') { Get-WebfarmRuntimeObject -Kind apppool | ForEach-Object -Process { "$($_.name) $($_.state)" } })
        sites = @(if (-not $Brief -and $services.W3SVC -eq 'running') { Get-WebfarmRuntimeObject -Kind site | ForEach-Object -Process { "$($_.name) $($_.state)" } })
        journal = [System.IO.File]::Exists("$state\journal.json")
        task = @([System.IO.Directory]::GetFiles($tasks))
        state = @(if ([System.IO.Directory]::Exists($state)) { Get-ChildItem -LiteralPath $state -File | ForEach-Object -Process { $_.Name } })
        undo_sets = @(if ([System.IO.Directory]::Exists("$state\undo")) { [System.IO.Directory]::GetDirectories("$state\undo") }).Count
        backups = @(Get-BackupEntry)
        beside = @([System.IO.Directory]::GetFiles($folder) | ForEach-Object -Process { [System.IO.Path]::GetFileName($_) } | Sort-Object)
    }
}

Function Get-BackupEntry {
    # Backups, records, and whatever else is left beside them: the end of each path.
    foreach ($place in [System.IO.Path]::GetDirectoryName([WebfarmConfiguration]::Folder()), "$state\backups") {
        foreach ($found in @(Get-ChildItem -LiteralPath $place -Recurse -Filter 'webfarm-*' -ErrorAction SilentlyContinue)) {
            if ($found.FullName -notlike '*\config\*') {
                $found.FullName.Substring([System.IO.Path]::GetDirectoryName($place).Length)
            }
        }
    }
}

$set = New-Object -TypeName WebfarmKeySet
foreach ($entry in $task.keys) {
    $set.Add($entry.container, [WebfarmKeyContainer]::PrivateBlob($entry.source))
}
$plan = @(Get-WebfarmKeyPlan -Planned $task.keys -WmsvcInstalled | Where-Object -FilterScript { $_.changed })
$before = [WebfarmConfiguration]::Load($path)
$after = [WebfarmConfiguration]::Load($task.candidate)
$query = @{
    KeySet = $set
    Changing = @($plan | ForEach-Object -Process { $_.container })
    Before = $before
    After = $after
    Exclude = 'applicationHost.config'
    Warning = New-Object -TypeName System.Collections.Generic.List[string]
}
$found = Get-WebfarmDependent @query
$lost = New-Object -TypeName System.Collections.Generic.List[object]
foreach ($item in $found.Item) {
    $null = Update-WebfarmContentItem -Item $item -KeySet $set -Before $before -After $after -Lost $lost
}
$script:files = @(@{
        path = $path
        store = 'file'
        before = $before.Bytes
        before_sha256 = $before.Sha256
        after = $after.Bytes
        after_sha256 = $after.Sha256
    }) + $found.Item.ToArray()
$option = @{
    stop_timeout = 20
    start_timeout = 20
    start_services = 'as_before'
    warm_up = $false
    verify_urls = @()
    undo_expiry_hours = 1
    without_undo = $false
    deadman_minutes = 60
    prior_backups = 3
    settler = $task.settler
    accepted = @{}
}

Function Invoke-Case {
    # One transaction with a fault at one step. Answers what it said, and what it left.
    param ($At, $Kind)
    $global:Steps = @{ Count = 0; At = $At; Kind = $Kind; Dead = $false; Trace = $null; Hit = '' }
    $case = [ordered]@{ kind = $Kind; step = ''; outcome = 'killed'; message = '' }
    try {
        $report = Invoke-WebfarmTransaction -Plan $plan -KeySet $set -File $files -InService -Option $option
        if (-not $global:Steps.Dead) {
            $case.outcome = $report.Outcome
            $case.message = $report.Message
        }
    }
    catch {
        $case.message = $_.Exception.GetBaseException().Message
        if (-not $global:Steps.Dead) {
            $case.outcome = 'refused'
        }
    }
    $case.step = $global:Steps.Hit
    $global:Steps = @{ Count = 0; At = 0; Kind = ''; Dead = $false; Trace = $null; Hit = '' }
    $case.left = Get-Now -Brief
    $case
}

Function Invoke-Settle {
    try {
        $run = Enter-WebfarmRun
        Exit-WebfarmRun -Run $run
        if ($null -eq $run.Settled) { 'none' } else { $run.Settled.outcome }
    }
    catch {
        "error: $($_.Exception.GetBaseException().Message)"
    }
}

Function Invoke-Task {
    # What the Task Scheduler does: it starts the program of the definition.
    $definition = New-Object -TypeName System.Xml.XmlDocument
    $definition.Load("$tasks\webfarm.iis-settle")
    $start = New-Object -TypeName System.Diagnostics.ProcessStartInfo
    $start.FileName = $definition.GetElementsByTagName('Command').Item(0).InnerText
    $start.Arguments = $definition.GetElementsByTagName('Arguments').Item(0).InnerText
    $start.UseShellExecute = $false
    $process = [System.Diagnostics.Process]::Start($start)
    $process.WaitForExit()
    "task $($process.ExitCode)"
}

Function Reset-Host {
    # Back to the old state by hand, where the new one was kept. Without a backup the next transaction makes its own.
    foreach ($place in "$(Get-WebfarmBackupFolder)", "$state\backups") {
        if (Test-Path -LiteralPath $place) {
            Remove-Item -LiteralPath $place -Recurse
        }
    }
    if (Test-Path -LiteralPath "$state\undo") {
        $now = Get-Now -Brief
        if ($now.undo_sets -eq 1 -and $now.parts[$path] -ne $before.Sha256) {
            $undo = Get-ChildItem -LiteralPath "$state\undo" | Select-Object -First 1
            $journal = ConvertFrom-Json -InputObject ([System.IO.File]::ReadAllText("$($undo.FullName)\undo.json"))
            $journal.phase = 'undoing'
            $journal.in_service = $true
            $journal.state = Get-WebfarmRunState
            [System.IO.File]::WriteAllText("$state\journal.json", (ConvertTo-Json -InputObject $journal -Depth 8))
            $null = Invoke-Settle
        }
        if (Test-Path -LiteralPath "$state\undo") {
            Remove-Item -LiteralPath "$state\undo" -Recurse
        }
    }
}

Function Select-Step {
    # The steps at which a fault of this kind differs from the others. Of a row of equal ones (four services stop) the first is
    # enough, of a killed process also the second: between two of them.
    param ($Trace, $Kind)
    $row = 0
    for ($at = 1; $at -le $Trace.Count; $at++) {
        $label = $Trace[$at - 1]
        $row = if ($at -gt 1 -and $Trace[$at - 2] -eq $label) { $row + 1 } else { 0 }
        $writes = $label -like '*.Write*'
        $taken = switch ($Kind) {
            'before' { $row -lt 2 -or $label -like 'Write-WebfarmContent *' }
            # Any other step that was done is the one before the next.
            'during' { $writes -and ($row -eq 0 -or $label -like 'Write-WebfarmContent *') }
            'once' { $row -eq 0 }
            # What undoing does as well.
            'stays' { $row -eq 0 -and $label -match 'WebfarmService\.|WebfarmKeyContainer\.|^Write-WebfarmContent ' }
            'full' { $writes -and $row -eq 0 }
        }
        if ($taken) {
            $at
        }
    }
}

$results = [ordered]@{ start = Get-Now }

# The steps, as the code goes through them; at each of them another process asks for the host.
$other = [PowerShell]::Create()
$null = $other.AddScript({
        param ($Libraries)
        foreach ($library in $Libraries) {
            Import-Module -Name $library -Force -Scope Global
        }
        & (Get-Module -Name _Transaction) { $script:lockSeconds = 0 }
    }).AddArgument(@($task.modules)).Invoke()
$asked = New-Object -TypeName System.Collections.Generic.List[string]
$global:Steps.Meanwhile = {
    $other.Commands.Clear()
    $null = $other.AddScript({
            try {
                $run = Enter-WebfarmRun
                Exit-WebfarmRun -Run $run
                'entered'
            }
            catch {
                $_.Exception.GetBaseException().Message
            }
        })
    # On a thread of its own, as in a process of its own: the lock knows threads.
    $busy = $other.BeginInvoke()
    $asked.Add([string]$other.EndInvoke($busy)[0])
}
$global:Steps.Trace = New-Object -TypeName System.Collections.Generic.List[string]
$global:Steps.Count = 0
$run = Enter-WebfarmRun
$report = Invoke-WebfarmTransaction -Plan $plan -KeySet $set -File $files -InService -Option $option
$global:Steps.Meanwhile = $null
$results.trace = $global:Steps.Trace.ToArray()
$global:Steps.Trace = $null
Exit-WebfarmRun -Run $run
$results.asked = $asked.ToArray()
$other.Dispose()
$results.outcome = $report.Outcome
$results.message = $report.Message
$results.new = Get-Now
Reset-Host
$results.reset = Get-Now

$results.cases = @(
    foreach ($kind in $task.kinds) {
        foreach ($at in Select-Step -Trace $results.trace -Kind $kind) {
            $case = Invoke-Case -At $at -Kind $kind
            $case.at = $at
            $case.healed = 'none'
            if ($case.left.state.Count -gt 0 -or $case.left.task.Count -gt 0 -or $case.outcome -eq 'killed') {
                # The task needs a process of its own: it heals where that differs most.
                if ($kind -eq 'before' -and $case.left.task.Count -gt 0 -and $case.step -match '^(Save-WebfarmJournal|Write-WebfarmContent) ' -and
                    $results.trace[$at - 2] -ne $case.step) {
                    $case.healed = Invoke-Task
                }
                else {
                    $case.healed = Invoke-Settle
                }
            }
            $case.now = Get-Now
            # Whoever waits can see how far it is.
            [System.IO.File]::AppendAllText('C:\lab\steps\progress.txt', "$kind $at $($case.step) $($case.outcome) $($case.healed) $($case.message)`r`n")
            $case
            Reset-Host
        }
    }
)
$set.Dispose()
ConvertTo-Json -InputObject $results -Depth 8 -Compress
