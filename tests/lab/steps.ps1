# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs inside a lab host: the transaction with a fault at every one of its steps, printed as JSON.
#
# The steps are not listed here. They are found in the code: in a copy of the libraries every call that changes something (a file, a
# key container, a service, a registry value, a scheduled task, a pool) is put into Invoke-Step, which counts, and fails where it is
# told to. A killed process is one whose calls all fail from there on: it changes nothing any more, whatever its handlers try.
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

$global:Steps = @{ Count = 0; At = 0; Kind = ''; Dead = $false; Trace = $null; Hit = '' }

Function global:Invoke-Step {
    param ($Function, $Name, $Operation)
    $steps = $global:Steps
    $steps.Count++
    $label = "$Function $Name"
    if ($null -ne $steps.Trace) {
        $steps.Trace.Add($label)
    }
    if ($steps.Dead) {
        throw 'crash'
    }
    if ($steps.Count -eq $steps.At) {
        $steps.Hit = $label
    }
    $now = $steps.Count -eq $steps.At
    if ($now -and $steps.Kind -eq 'before') {
        $steps.Dead = $true
        throw 'crash'
    }
    if ($now -and $steps.Kind -eq 'during') {
        $steps.Dead = $true
        if ($Name -like '*File.WriteFile' -or $Name -like '*Folder.WriteFile' -or $Name -like '*WebfarmConfiguration.WriteFile') {
            # Half of the new content lies beside the file.
            $target = & $Operation 'target'
            $beside = if ($Name -like '*Folder.WriteFile') { "$target.new" } else { "$target.0123abcd.webfarm" }
            [System.IO.File]::WriteAllText($beside, '{ half')
        }
        else {
            # It was done, or the service was asked, and nobody waited for it.
            $null = & $Operation
        }
        throw 'crash'
    }
    $persists = $steps.Kind -eq 'stays' -and $steps.Count -ge $steps.At -and $label -eq $steps.Hit
    $full = $steps.Kind -eq 'full' -and $steps.Count -ge $steps.At -and $Name -like '*.Write*'
    if (($now -and $steps.Kind -eq 'once') -or $persists -or $full) {
        if ($Name -like 'WebfarmService.*') {
            throw (New-Object -TypeName System.ComponentModel.Win32Exception -ArgumentList 1053)
        }
        if ($Name -like 'WebfarmKeyContainer.*') {
            throw (New-Object -TypeName System.Security.Cryptography.CryptographicException -ArgumentList 'Access is denied.')
        }
        $text = if ($full) { 'There is not enough space on the disk.' } else { 'The file is being used by another process.' }
        throw (New-Object -TypeName System.IO.IOException -ArgumentList $text)
    }
    & $Operation
}

Function Get-Changing {
    # The calls that change something, with the function that they stand in.
    param ($Tree)
    $changes = '^(Write|Delete|Import|Set|Start$|Stop$|Copy|Move|Ensure$)'
    $commands = 'Set-ItemProperty', 'Invoke-WebfarmTaskCommand'
    $Tree.FindAll({
            param ($Node)
            if ($Node -is [System.Management.Automation.Language.InvokeMemberExpressionAst]) {
                return $Node.Static -and $Node.Expression.Extent.Text -match '^\[(Webfarm|System\.IO\.(File|Directory)\])' -and
                    $Node.Member.Extent.Text -match $changes
            }
            $Node -is [System.Management.Automation.Language.CommandAst] -and ($commands -contains $Node.GetCommandName() -or
                ($Node.GetCommandName() -eq 'Invoke-WebfarmAppcmd' -and $Node.Extent.Text -notmatch "'list'"))
        }, $true)
}

Function Copy-Library {
    # The library with its changing calls inside Invoke-Step. Answers where the copy lies.
    param ($Source)
    $text = [System.IO.File]::ReadAllText($Source)
    $tree = [System.Management.Automation.Language.Parser]::ParseInput($text, [ref]$null, [ref]$null)
    foreach ($call in @(Get-Changing -Tree $tree | Sort-Object -Property { $_.Extent.StartOffset } -Descending)) {
        $function = $call.Parent
        while ($null -ne $function -and $function -isnot [System.Management.Automation.Language.FunctionDefinitionAst]) {
            $function = $function.Parent
        }
        $body = $call.Extent.Text
        $name = $call.Extent.Text
        $first = '$null'
        if ($call -is [System.Management.Automation.Language.CommandAst]) {
            $name = $call.GetCommandName()
        }
        else {
            $name = "$($call.Expression.Extent.Text.Trim('[', ']')).$($call.Member.Extent.Text)"
            $first = "($($call.Arguments[0].Extent.Text))"
        }
        $name = $name.Replace('System.IO.', '')
        $step = "(Invoke-Step -Function '$($function.Name)' -Name '$name' -Operation { param (`$What) if (`$What) { $first } else { $body } })"
        $text = $text.Remove($call.Extent.StartOffset, $body.Length).Insert($call.Extent.StartOffset, $step)
    }
    $copy = "C:\lab\steps\$([System.IO.Path]::GetFileName($Source))"
    [System.IO.File]::WriteAllText($copy, $text)
    $copy
}

$libraries = @(
    foreach ($library in $task.modules) {
        $name = [System.IO.Path]::GetFileNameWithoutExtension($library)
        if ($task.instrumented -contains $name) { Copy-Library -Source $library } else { $library }
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
        beside = @([System.IO.Directory]::GetFiles($folder) | ForEach-Object -Process { [System.IO.Path]::GetFileName($_) } | Sort-Object)
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
    # Back to the old state by hand, where the new one was kept.
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

# The steps, as the code goes through them.
$global:Steps.Trace = New-Object -TypeName System.Collections.Generic.List[string]
$global:Steps.Count = 0
$report = Invoke-WebfarmTransaction -Plan $plan -KeySet $set -File $files -InService -Option $option
$results.trace = $global:Steps.Trace.ToArray()
$global:Steps.Trace = $null
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
