# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs inside a lab host: many cases of the transaction in one process, printed as JSON. A crash is simulated by leaving the
# transaction at a chosen point with nothing undone: journal, keys, file and services are then what a killed process leaves.
# test_transaction_target.py judges the results.

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
$results = [ordered]@{}

Function Import-Library {
    foreach ($library in $task.modules) {
        Import-Module -Name $library -Force -Scope Global
    }
}

Function Get-Now {
    $services = [ordered]@{}
    foreach ($name in 'AppHostSvc', 'WAS', 'W3SVC', 'FTPSVC', 'WMSVC') {
        $services[$name] = [WebfarmService]::Query($name).Status
    }
    $keys = [ordered]@{}
    foreach ($entry in $task.keys) {
        $info = [WebfarmKeyContainer]::Inspect($entry.container, 'cryptoapi')
        $keys[$entry.container] = "$($info.State) $($info.Fingerprint) $($info.Exportable) $($info.Sddl)"
    }
    @{
        keys = $keys
        file = [WebfarmKeyContainer]::Sha256([System.IO.File]::ReadAllBytes($path))
        others = @(
            foreach ($item in Get-Dependent) {
                "$($item.name) $($item.before_sha256)"
            }
        )
        services = $services
        journal = [System.IO.File]::Exists("$state\journal.json")
        undo_sets = @(if (Test-Path -LiteralPath "$state\undo") { Get-ChildItem -LiteralPath "$state\undo" | ForEach-Object -Process { $_.Name } }).Count
    }
}

Function Get-Dependent {
    $folder = [WebfarmConfiguration]::Folder()
    New-WebfarmContentItem -Path "$folder\administration.config" -Name administration.config
    New-WebfarmContentItem -Path "$folder\redirection.config" -Name redirection.config
    New-WebfarmContentItem -Path 'C:\inetpub\wwwroot\app\web.config' -Name web.config
    New-WebfarmContentItem -Path 'HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\IIS\CentralCertProvider' -Store registry -Name registry
}

Function Get-Option {
    @{
        stop_timeout = 20
        start_timeout = 20
        warm_up = $true
        verify_urls = @()
        undo_expiry_hours = 1
        without_undo = $false
        prior_backups = 2
        check = $script:check
        accepted = @{}
    }
}

Function Invoke-Change {
    $set = New-Object -TypeName WebfarmKeySet
    try {
        foreach ($entry in $task.keys) {
            $set.Add($entry.container, [WebfarmKeyContainer]::PrivateBlob($entry.source))
        }
        $plan = @(Get-WebfarmKeyPlan -Planned $task.keys -WmsvcInstalled | Where-Object -FilterScript { $_.changed })
        $before = [WebfarmConfiguration]::Load($path)
        $after = [WebfarmConfiguration]::Load($task.candidate)
        $file = @{
            path = $path
            before = $before.Bytes
            before_sha256 = $before.Sha256
            after = $after.Bytes
            after_sha256 = $after.Sha256
            backup = ''
        }
        $lost = New-Object -TypeName System.Collections.Generic.List[object]
        $warning = New-Object -TypeName System.Collections.Generic.List[string]
        $query = @{
            KeySet = $set
            Changing = @($plan | ForEach-Object -Process { $_.container })
            Before = $before
            After = $after
            Exclude = 'applicationHost.config'
            Warning = $warning
        }
        $found = Get-WebfarmDependent @query
        $script:reencrypted = @(
            foreach ($item in $found.Item) {
                Update-WebfarmContentItem -Item $item -KeySet $set -Before $before -After $after -Lost $lost
            }
        )
        $script:lost = $lost.ToArray()
        Invoke-WebfarmTransaction -Plan $plan -KeySet $set -File (@($file) + $found.Item.ToArray()) -InService -Option (Get-Option)
    }
    finally {
        $set.Dispose()
    }
}

Function Invoke-Deletion {
    # Containers are deleted, one exportable and one not; the run dies behind that.
    $set = New-Object -TypeName WebfarmKeySet
    $plan = @(
        foreach ($name in $task.deleted) {
            (Get-WebfarmOwnKeyPlan -Parameter @{ container = $name; state = 'absent' } -KeySet $set).Entry
        }
    )
    Invoke-WebfarmTransaction -Plan $plan -KeySet $set -Option (Get-Option)
}

Function Get-Container {
    @(
        foreach ($name in $task.deleted) {
            $info = [WebfarmKeyContainer]::Inspect($name, 'cryptoapi')
            "$name $($info.State) $($info.Fingerprint) $($info.Exportable) $($info.Sddl)"
        }
    )
}

Function Invoke-Crash {
    param ($Point, $Change = 'Invoke-Change')
    & (Get-Module -Name _Transaction) {
        param ($Point)
        $script:crash = $Point
        $script:realSave = ${function:Save-WebfarmJournal}
        $script:realImport = ${function:Import-WebfarmKey}
        ${function:script:Save-WebfarmJournal} = {
            param ($Journal, $Phase)
            if ($script:crash -eq "before $Phase") {
                throw 'crash'
            }
            & $script:realSave -Journal $Journal -Phase $Phase
            if ($script:crash -eq $Phase) {
                throw 'crash'
            }
        }
        ${function:script:Import-WebfarmKey} = {
            param ($Plan, $KeySet, $Steps)
            if ($script:crash -eq 'between keys') {
                & $script:realImport -Plan $Plan[0] -KeySet $KeySet -Steps $Steps
                throw 'crash'
            }
            & $script:realImport -Plan $Plan -KeySet $KeySet -Steps $Steps
        }
        $script:realWrite = ${function:Write-WebfarmContent}
        ${function:script:Write-WebfarmContent} = {
            param ($Item, $Content)
            if ($script:crash -eq 'between files' -and $Item.name -eq 'redirection.config') {
                throw 'crash'
            }
            & $script:realWrite -Item $Item -Content $Content
        }
        ${function:script:Undo-WebfarmChange} = { throw 'crash' }
        ${function:script:Complete-WebfarmFailure} = { throw 'crash' }
    } $Point
    try {
        $null = & $Change
        'the transaction ended'
    }
    catch {
        $_.Exception.GetBaseException().Message
    }
    Import-Library
}

Function Invoke-Settle {
    try {
        $run = Enter-WebfarmRun
        Exit-WebfarmRun -Run $run
        if ($null -eq $run.Settled) {
            return @{ outcome = 'none' }
        }
        $run.Settled
    }
    catch {
        @{ outcome = 'error'; message = $_.Exception.GetBaseException().Message }
    }
}

Import-Library
$results.start = Get-Now

foreach ($point in $task.crashes) {
    $case = [ordered]@{ said = Invoke-Crash -Point $point }
    $case.left = Get-Now
    if ($point -eq 'between keys') {
        # Whoever died while undoing left this.
        $text = [System.IO.File]::ReadAllText("$state\journal.json")
        [System.IO.File]::WriteAllText("$state\journal.json", $text.Replace('"writing"', '"undoing"'))
    }
    if ($point -eq 'written') {
        # Somebody saved the configuration in the meantime: it opens with the new keys, so the run is completed.
        [System.IO.File]::AppendAllText($path, '<!-- edited -->')
    }
    if ($point -eq 'before written') {
        [System.IO.File]::AppendAllText($path, '<!-- edited -->')
    }
    $case.settled = Invoke-Settle
    $case.now = Get-Now
    $case.found = @(if (Test-Path -LiteralPath "$state\undo") {
            Get-ChildItem -LiteralPath "$state\undo" -Recurse -Filter '*found*' | ForEach-Object -Process { $_.Name }
        })
    $case.again = Invoke-Settle
    $results[$point] = $case
    if ($case.settled.outcome -eq 'completed') {
        # Back to the old state by hand: the next case starts from there.
        $undo = Get-ChildItem -LiteralPath "$state\undo" | Select-Object -First 1
        $journal = ConvertFrom-Json -InputObject ([System.IO.File]::ReadAllText("$($undo.FullName)\undo.json"))
        $journal.phase = 'undoing'
        $journal.state = Get-WebfarmRunState
        [System.IO.File]::WriteAllText("$state\journal.json", (ConvertTo-Json -InputObject $journal -Depth 8))
        $null = Invoke-Settle
    }
    if (Test-Path -LiteralPath "$state\undo") {
        Remove-Item -LiteralPath "$state\undo" -Recurse
    }
}
$results.middle = Get-Now

$results.deletion = [ordered]@{ before = Get-Container }
$results.deletion.said = Invoke-Crash -Point 'before written' -Change Invoke-Deletion
$results.deletion.left = Get-Container
$results.deletion.settled = Invoke-Settle
$results.deletion.now = Get-Container
$results.deletion.outcome = (Invoke-Deletion).Outcome
$results.deletion.gone = Get-Container
Remove-Item -LiteralPath "$state\undo" -Recurse

# The backup before: which are made, which are kept.
$root = Get-WebfarmBackupFolder
Remove-Item -LiteralPath $root, "$state\backups" -Recurse
Function Get-Backup {
    @(Get-ChildItem -LiteralPath $root -Directory | ForEach-Object -Process { $_.Name } | Sort-Object)
}
$warning = New-Object -TypeName System.Collections.Generic.List[string]
$results.backups = @(
    foreach ($id in '1-00000001', '1-00000002') {
        # The second time nothing has changed since the first.
        Save-WebfarmPriorBackup -Id $id -Keep 2 -Warning $warning
    }
    # A file of the first is gone: it vouches for nothing.
    Remove-Item -LiteralPath "$root\$(@(Get-Backup)[0])\administration.config"
    Start-Sleep -Seconds 1
    Save-WebfarmPriorBackup -Id '1-00000003' -Keep 2 -Warning $warning
    # Now another key is in a container that the files name.
    $held = [WebfarmKeyContainer]::PrivateBlob('iisConfigurationKey')
    $other = [WebfarmKeyContainer]::PrivateBlob(@($task.keys | Where-Object -FilterScript { $_.container -eq 'iisConfigurationKey' })[0].source)
    $null = [WebfarmKeyContainer]::ImportPrivate('iisConfigurationKey', $other, $true)
    Start-Sleep -Seconds 1
    Save-WebfarmPriorBackup -Id '1-00000004' -Keep 2 -Warning $warning
    $null = [WebfarmKeyContainer]::ImportPrivate('iisConfigurationKey', $held, $true)
)
# Of the same name, but nobody recorded that a transaction made it; and one that somebody copied with its record.
foreach ($other in 'webfarm-20200101T000000Z-00000000', 'mine') {
    Copy-Item -LiteralPath "$root\$($results.backups[2])" -Destination "$root\$other" -Recurse
}
Copy-Item -LiteralPath "$state\backups\$($results.backups[2]).json" -Destination "$state\backups\mine.json"
$results.all_backups = @(Get-Backup)
Limit-WebfarmPriorBackup -Keep 0 -Warning $warning
$results.none_deleted = @(Get-Backup)
Limit-WebfarmPriorBackup -Keep 2 -Warning $warning
$results.kept_backups = @(Get-Backup)
$results.records = @(Get-ChildItem -LiteralPath "$state\backups" | ForEach-Object -Process { $_.BaseName } | Sort-Object)
$results.no_backup = @(
    "none wanted: $(Save-WebfarmPriorBackup -Id '1-00000005' -Keep 0 -Warning $warning)"
    "no configuration: $(Save-WebfarmPriorBackup -Id '1-00000006' -Keep 2 -Unreadable -Warning $warning)"
) + $warning.ToArray()
Remove-Item -LiteralPath $root, "$state\backups" -Recurse

# Accounts of pools: the lab has none, so that the answers of Windows are recorded ones. What is tried, and how often, is real.
& (Get-Module -Name _LogonTest) {
    $script:tried = New-Object -TypeName System.Collections.Generic.List[object]
    ${function:script:Invoke-WebfarmLogon} = {
        param ($Account, $Password)
        $text = [System.Runtime.InteropServices.Marshal]::SecureStringToBSTR($Password)
        try {
            $bytes = [System.Text.Encoding]::Unicode.GetBytes([System.Runtime.InteropServices.Marshal]::PtrToStringBSTR($text))
            $script:tried.Add(@{ account = $Account; password = [WebfarmKeyContainer]::Sha256($bytes) })
        }
        finally {
            [System.Runtime.InteropServices.Marshal]::ZeroFreeBSTR($text)
        }
        switch -Wildcard ($Account) {
            '*svc-local' { 1326 }
            '*svc-orders' { 1326 }
            '*svc-away' { 1311 }
            '*svc-batch' { 1385 }
            default { 0 }
        }
    }
}
$text = [System.IO.File]::ReadAllText($path)
$pool = [regex]::Match($text, '(?s)<add name="Local">.*?</add>').Value
$others = @(
    foreach ($user in 'farm\SVC-LOCAL', 'FARM\svc-still', 'FARM\svc-away', 'FARM\svc-batch') {
        $pool.Replace('"Local"', "'$($user.Substring(5))'").Replace('FARM\svc-local', $user)
    }
    foreach ($user in '.\web', "$([Environment]::MachineName)\WEB", 'FARM\managed$') {
        $secret = if ($user -like '*$') { '' } else { ' password="Clear-1"' }
        "<add name='$user'><processModel identityType='SpecificUser' userName='$user'$secret /></add>"
    }
)
$file = [WebfarmConfiguration]::Parse([System.Text.Encoding]::UTF8.GetBytes($text.Replace($pool, $pool + ($others -join ''))), 'x')
$warning = New-Object -TypeName System.Collections.Generic.List[string]
$results.logon = [ordered]@{
    problems = @(Get-WebfarmLogonProblem -File $file -Pool @(@{ name = 'svc-still'; state = 'Stopped' }) -Warning $warning)
    warnings = $warning.ToArray()
    tried = & (Get-Module -Name _LogonTest) { $script:tried.ToArray(); $script:tried.Clear() }
}
$script:check = Get-WebfarmLogonCheck -Parameter @{ logon_test = $true }
$report = Invoke-Change
$script:check = Get-WebfarmLogonCheck -Parameter @{ logon_test = $false }
$results.refused_logon = [ordered]@{
    outcome = $report.Outcome
    message = $report.Message
    tried = & (Get-Module -Name _LogonTest) { $script:tried.ToArray() }
    now = Get-Now
    unasked = $null -eq $script:check
}
if (Test-Path -LiteralPath "$state\undo") {
    Remove-Item -LiteralPath "$state\undo" -Recurse
}

# A journal that cannot be read stops everything.
$null = Invoke-Crash -Point stopping
$text = [System.IO.File]::ReadAllText("$state\journal.json")
[System.IO.File]::WriteAllText("$state\journal.json", $text.Substring(0, 100))
$results.damaged_journal = Invoke-Settle
[System.IO.File]::WriteAllText("$state\journal.json", $text)
$results.repaired_journal = Invoke-Settle

# One run at a time.
& (Get-Module -Name _Transaction) { $script:lockSeconds = 1 }
$other = [PowerShell]::Create()
$null = $other.AddScript('$m = New-Object System.Threading.Mutex $false, "Global\webfarm.iis"; $null = $m.WaitOne(); Start-Sleep -Seconds 3; $m.ReleaseMutex()')
$busy = $other.BeginInvoke()
Start-Sleep -Milliseconds 700
$results.locked = Invoke-Settle
$null = $other.EndInvoke($busy)
$results.unlocked = Invoke-Settle

# Transport containers.
$transport = New-WebfarmTransport
$results.transport = [WebfarmKeyContainer]::Inspect($transport.container, 'cryptoapi').State
$results.young = @(Clear-WebfarmTransport).Count
[System.IO.File]::SetLastWriteTimeUtc("$state\transport\$($transport.container)", [DateTime]::UtcNow.AddHours(-2))
$results.old = @(Clear-WebfarmTransport).Count
$results.transport_after = [WebfarmKeyContainer]::Inspect($transport.container, 'cryptoapi').State
$results.wrong_name = try { Remove-WebfarmTransport -Name iisWasKey; 'deleted' } catch { $_.Exception.Message }

# Access lists of new containers.
$results.access = @(
    foreach ($case in $task.access) {
        $made = Get-WebfarmNewKeyAccess -Container $case.container -Sddl $case.sddl -WmsvcInstalled:$case.wmsvc
        @{ sddl = $made.sddl; dropped = $made.dropped }
    }
)

# Access lists as they are wanted.
$results.wanted = @(
    foreach ($case in $task.wanted) {
        try {
            $wanted = Get-WebfarmWantedAccess -Container $case.container -Sddl $case.sddl -Access $case.access
            if (-not $wanted) {
                'unchanged'
            }
            else {
                $again = Get-WebfarmWantedAccess -Container $case.container -Sddl $wanted -Access $case.access
                if ($again) { "not stable: $wanted, then $again" } else { $wanted }
            }
        }
        catch {
            $_.Exception.Message
        }
    }
)
$results.accounts = @(
    foreach ($name in $task.accounts) {
        try { Resolve-WebfarmAccount -Account $name } catch { $_.Exception.Message }
    }
)
$results.regeneration = [ordered]@{}
foreach ($word in 'never', 'fail', 'partial_idempotence', 'full_idempotence', 'always') {
    $results.regeneration[$word] = @(
        Get-WebfarmRegeneration -Regenerate $word -State missing -Conform $false
        Get-WebfarmRegeneration -Regenerate $word -State damaged -Conform $false
        Get-WebfarmRegeneration -Regenerate $word -State present -Conform $false
        Get-WebfarmRegeneration -Regenerate $word -State present -Conform $true
    )
}
$results.reencrypted = @($reencrypted | ForEach-Object -Process { "$($_.file) $($_.path)" })
$results.lost = @($lost)

# What a process must be.
$results.host = @(
    foreach ($fact in @{ System64 = $true; Process64 = $false; Elevated = $true; User = 'x' },
        @{ System64 = $true; Process64 = $true; Elevated = $false; User = 'WEB\joe' }, @{ System64 = $true; Process64 = $true; Elevated = $true; User = 'x' }) {
        try { Assert-WebfarmHost -Fact $fact; 'good' } catch { $_.Exception.Message }
    }
)
ConvertTo-Json -InputObject $results -Depth 8
