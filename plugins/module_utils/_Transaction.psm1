# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# Keys and configuration of a server change together or not at all.
# How far a run has come is in its journal; see _Journal.psm1.

#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -CSharpUtil ..module_utils._ProtectedFolder
#AnsibleRequires -PowerShell ..module_utils._BackupFolder
#AnsibleRequires -PowerShell ..module_utils._Deadman
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Journal
#AnsibleRequires -PowerShell ..module_utils._KeyPlan
#AnsibleRequires -PowerShell ..module_utils._Service

$script:mutexName = 'Global\webfarm.iis'
$script:lockSeconds = 15

Function Enter-WebfarmRun {
    <#
    .SYNOPSIS
    Makes this the only run on the host, settles what an interrupted one left, and removes what has expired.

    .DESCRIPTION
    Returns a dictionary with Lock, Settled ($null or what was done) and Cleaned. Pass it to Exit-WebfarmRun in a finally
    block. Not for check mode: it writes.
    #>
    [CmdletBinding()]
    param ()

    $mutex = $null
    $mine = $false
    $end = [DateTime]::UtcNow.AddSeconds($script:lockSeconds)
    while ($null -eq $mutex) {
        try {
            $mutex = New-Object -TypeName System.Threading.Mutex -ArgumentList $false, $script:mutexName
            $mine = $mutex.WaitOne($script:lockSeconds * 1000)
        }
        catch {
            $reason = $_.Exception.GetBaseException()
            if ($reason -is [System.Threading.AbandonedMutexException]) {
                # Its owner was killed. The journal tells what it did.
                $mine = $true
            }
            elseif ($reason -isnot [System.UnauthorizedAccessException]) {
                throw "The lock $script:mutexName cannot be taken: $(Get-WebfarmErrorText -ErrorRecord $_)"
            }
            elseif ([DateTime]::UtcNow -ge $end) {
                break
            }
            else {
                # A lock that SYSTEM made, for the scheduled task, opens for nobody else; it is there only while SYSTEM holds it.
                Start-Sleep -Milliseconds 500
            }
        }
    }
    if (-not $mine) {
        if ($null -ne $mutex) {
            $mutex.Dispose()
        }
        throw "Another run changes keys or configuration of this host (lock $script:mutexName). Wait until it has ended, and run again."
    }
    $run = @{
        Lock = $mutex
        Settled = $null
        Cleaned = @()
    }
    try {
        $run.Settled = Resolve-WebfarmJournal
        # Also what is left of a run that died just before or just behind its journal.
        Clear-WebfarmDeadman
        $run.Cleaned = @(Clear-WebfarmTransport) + @(Clear-WebfarmUndoSet)
        try {
            Clear-WebfarmBackupLeftover
        }
        catch {
            # Whoever makes a backup meets it again.
            Write-Verbose -Message "A half-filled backup stays: $_"
        }
    }
    catch {
        Exit-WebfarmRun -Run $run
        throw
    }
    return $run
}

Function Exit-WebfarmRun {
    <#
    .SYNOPSIS
    Gives the host free for the next run.

    .PARAMETER Run
    From Enter-WebfarmRun; may be $null.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [AllowNull()]
        [object]
        $Run
    )

    if ($null -ne $Run -and $null -ne $Run.Lock) {
        Remove-WebfarmEmptyFolder
        $Run.Lock.ReleaseMutex()
        $Run.Lock.Dispose()
        $Run.Lock = $null
    }
}

Function Invoke-WebfarmSettling {
    <#
    .SYNOPSIS
    What the scheduled task does. Returns the exit code of its process: 0 when the host is in order and the task is gone.
    #>
    [CmdletBinding()]
    [OutputType([int])]
    param ()

    $run = $null
    try {
        $run = Enter-WebfarmRun
        return 0
    }
    catch {
        # Nobody reads it now; whoever starts the task by hand does. It is started again.
        [Console]::Error.WriteLine((Get-WebfarmErrorText -ErrorRecord $_))
        return 1
    }
    finally {
        Exit-WebfarmRun -Run $run
    }
}

Function Remove-WebfarmEmptyFolder {
    <#
    .SYNOPSIS
    Removes the folders of this collection that hold nothing, so that a run that changed nothing leaves nothing.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param ()

    $root = Get-WebfarmStateFolder
    foreach ($folder in [System.IO.Path]::Combine($root, 'transport'), [System.IO.Path]::Combine($root, 'undo'), $root) {
        if ([System.IO.Directory]::Exists($folder) -and [System.IO.Directory]::GetFileSystemEntries($folder).Count -eq 0 -and
            $PSCmdlet.ShouldProcess($folder, 'delete empty folder')) {
            try {
                [System.IO.Directory]::Delete($folder)
            }
            catch {
                Write-Verbose -Message "$folder stays: $_"
            }
        }
    }
}

Function Assert-WebfarmQuiet {
    <#
    .SYNOPSIS
    Throws where a consumer runs again, or where keys or file are not the ones that were looked at.

    .PARAMETER Plan
    The entries of Get-WebfarmKeyPlan that change.

    .PARAMETER File
    As for Invoke-WebfarmTransaction.

    .PARAMETER State
    The recorded state of the services; $null where services are not touched.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [object[]]
        $Plan = @(),

        [Parameter()]
        [object[]]
        $File = @(),

        [Parameter()]
        [AllowNull()]
        [object]
        $State
    )

    if ($null -ne $State) {
        $running = @(Get-WebfarmRunningConsumer -Name @($State.services | ForEach-Object -Process { $_.name }))
        if ($running.Count -gt 0) {
            throw "$($running -join ', ') runs again although it was stopped: something on this host starts it (monitoring, a scheduled task, recovery)."
        }
    }
    foreach ($entry in $Plan) {
        $info = [WebfarmKeyContainer]::Inspect($entry.container, 'cryptoapi')
        if ($info.State -ne $entry.before.state -or $info.Fingerprint -ne $entry.before.fingerprint) {
            throw "The key container $($entry.container) was changed by something else in the meantime."
        }
    }
    foreach ($item in $File) {
        $now = Read-WebfarmContent -Item $item
        if ($null -eq $now -or [WebfarmKeyContainer]::Sha256($now) -ne $item.before_sha256) {
            throw "$($item.path) was changed by something else in the meantime."
        }
    }
}

Function Import-WebfarmKey {
    <#
    .SYNOPSIS
    Puts the new private keys into their containers, deletes what is to be deleted, sets access lists, and reads everything back.

    .PARAMETER Plan
    The entries of Get-WebfarmKeyPlan that change.

    .PARAMETER KeySet
    The opened keys.

    .PARAMETER Steps
    A list that receives what was done.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter()]
        [object[]]
        $Plan = @(),

        [Parameter(Mandatory = $true)]
        [object]
        $KeySet,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Steps
    )

    $done = @{ imported = @(); deleted = @(); access = @() }
    foreach ($entry in $Plan) {
        $name = $entry.container
        if (-not $PSCmdlet.ShouldProcess($name, 'change key')) {
            continue
        }
        if ($entry.after.state -eq 'missing') {
            [WebfarmKeyContainer]::Delete($name)
            $done.deleted += $name
        }
        else {
            if ($entry.key_changes) {
                if ($entry.before.state -eq 'damaged') {
                    # Nothing can be put into it; its file is in the undo set.
                    Remove-WebfarmDamagedKey -Entry $entry
                }
                $null = [WebfarmKeyContainer]::ImportPrivate($name, $KeySet.Get($name), $entry.after.exportable)
                $done.imported += $name
            }
            # The security descriptor belongs to the container and should have stayed.
            $wanted = $entry.new_sddl
            if (-not $wanted -and [WebfarmKeyContainer]::GetSddl($name) -ne $entry.sddl) {
                $wanted = $entry.sddl
            }
            if ($wanted) {
                [WebfarmKeyContainer]::SetSddl($name, $wanted)
                if (-not $entry.key_changes) {
                    $done.access += $name
                }
            }
        }
        $info = [WebfarmKeyContainer]::Inspect($name, 'cryptoapi')
        if ($info.State -ne $entry.after.state -or $info.Fingerprint -ne $entry.after.fingerprint) {
            throw "$name is $($info.State) with the fingerprint $($info.Fingerprint) after the change, expected $($entry.after.fingerprint)."
        }
        if ($info.State -eq 'present' -and [bool]$info.Exportable -ne $entry.after.exportable) {
            throw "The key in $name is exportable: $($info.Exportable), wanted is $($entry.after.exportable)."
        }
    }
    if ($done.imported.Count -gt 0) {
        $Steps.Add("Imported the private keys of $($done.imported -join ', ').")
    }
    if ($done.deleted.Count -gt 0) {
        $Steps.Add("Deleted the key containers $($done.deleted -join ', ').")
    }
    if ($done.access.Count -gt 0) {
        $Steps.Add("Changed the access lists of $($done.access -join ', ').")
    }
}

Function Remove-WebfarmDamagedKey {
    <#
    .SYNOPSIS
    Clears a container that cannot be opened, so that a key can be put into a new one of its name.

    .PARAMETER Entry
    From the plan; its key file is in the undo set.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Entry
    )

    if (-not $PSCmdlet.ShouldProcess($Entry.container, 'delete')) {
        return
    }
    try {
        [WebfarmKeyContainer]::Delete($Entry.container)
    }
    catch {
        if (-not $Entry.file_path -or -not [System.IO.File]::Exists($Entry.file_path)) {
            throw
        }
        [System.IO.File]::Delete($Entry.file_path)
    }
}

Function Undo-WebfarmChange {
    <#
    .SYNOPSIS
    Puts keys and file back together and brings what ran back. Returns what did not succeed; nothing when all is as it was.

    .DESCRIPTION
    A pool or site that does not come back although keys, file and services are the old ones is no failure of the undo: it is
    added to Attention.

    .PARAMETER Journal
    The journal.

    .PARAMETER Kept
    What is still in memory.

    .PARAMETER Written
    Keys or file may have been written; otherwise services are started only.

    .PARAMETER Warning
    A list that receives warnings.

    .PARAMETER Attention
    A list that receives what is not healthy afterwards.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Journal,

        [Parameter()]
        [hashtable]
        $Kept = @{},

        [Parameter()]
        [bool]
        $Written,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Attention
    )

    if (-not $PSCmdlet.ShouldProcess('keys, file and services', 'undo')) {
        return
    }
    # A journal that cannot be written any more (the disk is full) is no reason to leave the host as it is.
    $attempt = {
        param ($What, $Action)
        try {
            & $Action
        }
        catch {
            "${What}: $(Get-WebfarmErrorText -ErrorRecord $_)"
        }
    }
    if ($Written) {
        try {
            Save-WebfarmJournal -Journal $Journal -Phase undoing
        }
        catch {
            $Warning.Add("The journal could not be written while undoing: $(Get-WebfarmErrorText -ErrorRecord $_)")
        }
        $problems = @()
        if ($Journal.in_service) {
            $problems = @(& $attempt 'stopping the services again' {
                    Stop-WebfarmConsumer -State $Journal.state -TimeoutSeconds $Journal.option.stop_timeout
                })
        }
        if ($problems.Count -gt 0) {
            # What still runs must not see keys and file change one after the other.
            return $problems
        }
        # Each key and file is tried whatever became of the one before.
        $problems = @(
            foreach ($saved in $Journal.keys) {
                & $attempt "the key $($saved.container)" { Restore-WebfarmKey -Saved $saved -Journal $Journal -Kept $Kept -Warning $Warning }
            }
            foreach ($saved in $Journal.files) {
                & $attempt $saved.path { Restore-WebfarmFile -Saved $saved -Journal $Journal -Kept $Kept -Warning $Warning }
            }
        )
        if ($problems.Count -gt 0) {
            if ($Journal.in_service) {
                $problems += 'the services stay stopped, because keys and file do not belong together'
            }
            return $problems
        }
        try {
            Save-WebfarmJournal -Journal $Journal -Phase undone
        }
        catch {
            $Warning.Add("The journal could not be written while undoing: $(Get-WebfarmErrorText -ErrorRecord $_)")
        }
    }
    if ($Journal.in_service) {
        $since = [DateTime]::UtcNow
        & $attempt 'starting the services' {
            $null = Start-WebfarmConsumer -State $Journal.state -TimeoutSeconds $Journal.option.start_timeout
            foreach ($trouble in Restore-WebfarmRuntime -State $Journal.state) {
                $Warning.Add($trouble)
            }
        }
        try {
            $health = @{
                State = $Journal.state
                Path = Get-WebfarmEffectivePath
                WarmUp = $false
                Since = $since
                TimeoutSeconds = $Journal.option.start_timeout
                Warning = $Warning
            }
            foreach ($trouble in Get-WebfarmHealthProblem @health) {
                $Attention.Add($trouble)
            }
        }
        catch {
            $Attention.Add((Get-WebfarmErrorText -ErrorRecord $_))
        }
    }
    & $attempt 'the start types of the services' { Restore-WebfarmStartType -StartType $Journal.start_types }
}

Function Confirm-WebfarmWritten {
    <#
    .SYNOPSIS
    Throws unless every protected value of what was written opens with the keys that are now in their containers.

    .PARAMETER File
    As for Invoke-WebfarmTransaction, or the entries of the journal.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [object[]]
        $File = @()
    )

    $main = $null
    $bad = @(
        foreach ($item in $File) {
            $content = Read-WebfarmContent -Item $item
            if ($null -eq $content) {
                throw "$($item.path) is not there any more."
            }
            if ($item.store -eq 'key') {
                continue
            }
            $configuration = [WebfarmConfiguration]::Parse($content, $item.path.Substring($item.path.LastIndexOf('\') + 1))
            if ($item.store -eq 'file') {
                if ($null -eq $main) {
                    $main = [WebfarmConfiguration]::Load([System.IO.Path]::Combine((Get-WebfarmConfigurationFolder), 'applicationHost.config'))
                }
                $configuration = $configuration.Under($main)
            }
            foreach ($verdict in [WebfarmProtection]::Prove($configuration, $null)) {
                if ($verdict.Verdict -ne 'ok' -and @($item.accepted) -cnotcontains $verdict.Path) {
                    ConvertTo-WebfarmValueFact -Verdict $verdict
                }
            }
        }
    )
    if ($bad.Count -gt 0) {
        throw "With the keys in their containers $($bad.Count) protected values do not open: $(Format-WebfarmProblem -Problem $bad)"
    }
}

Function Start-WebfarmChanged {
    <#
    .SYNOPSIS
    Starts what ran, restores the runtime state, and throws when the server is not healthy.

    .PARAMETER Journal
    The journal.

    .PARAMETER Steps
    A list that receives what was done.

    .PARAMETER Warning
    A list that receives warnings.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Journal,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Steps,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    if (-not $PSCmdlet.ShouldProcess('services', 'start')) {
        return
    }
    $wanted = $Journal.state
    if ($Journal.option.start_services -eq 'automatic') {
        $wanted = Get-WebfarmWantedState -State $Journal.state
    }
    $since = [DateTime]::UtcNow
    $started = @(Start-WebfarmConsumer -State $wanted -TimeoutSeconds $Journal.option.start_timeout)
    if ($started.Count -eq 0) {
        $Steps.Add('No service of IIS had been running, none was started; health was not checked.')
        return
    }
    foreach ($trouble in Restore-WebfarmRuntime -State $wanted) {
        $Warning.Add($trouble)
    }
    $Steps.Add("Started $($started -join ', ').")
    $health = @{
        State = $wanted
        Path = Get-WebfarmEffectivePath
        WarmUp = $Journal.option.warm_up
        Since = $since
        Url = @($Journal.option.verify_urls)
        TimeoutSeconds = $Journal.option.start_timeout
        Warning = $Warning
    }
    $problems = @(Get-WebfarmHealthProblem @health)
    if ($problems.Count -gt 0) {
        throw "The server is not healthy: $($problems -join '; ')."
    }
    $Steps.Add('Health check passed.')
}

Function Resolve-WebfarmJournal {
    <#
    .SYNOPSIS
    Settles what an interrupted run left: completes it where everything was written and holds, undoes it otherwise.

    .DESCRIPTION
    Returns $null when there was nothing, else a dictionary with id, phase, outcome (nothing, completed, undone), message and
    warnings. Throws when the host could not be brought into order; the journal then stays.
    #>
    [CmdletBinding()]
    param ()

    $journal = Get-WebfarmJournal
    if ($null -eq $journal) {
        # Of one whose first writing was interrupted half a file may be left.
        Remove-WebfarmJournal
        return $null
    }
    $phase = $journal.phase
    $warnings = New-Object -TypeName System.Collections.Generic.List[string]
    $steps = New-Object -TypeName System.Collections.Generic.List[string]
    $settled = [ordered]@{
        id = $journal.id
        phase = $phase
        outcome = 'undone'
        message = ''
        warnings = @()
    }
    $reason = 'not everything had been written'
    if (@('written', 'starting') -contains $phase) {
        try {
            foreach ($saved in $journal.keys) {
                if ([WebfarmKeyContainer]::Inspect($saved.container, 'cryptoapi').Fingerprint -ne $saved.after.fingerprint) {
                    throw "the key $($saved.container) is not the one that had been written"
                }
            }
            Confirm-WebfarmWritten -File @($journal.files)
            if ($journal.in_service) {
                Start-WebfarmChanged -Journal $journal -Steps $steps -Warning $warnings
            }
            Restore-WebfarmStartType -StartType $journal.start_types
            $settled.outcome = 'completed'
            $settled.message = 'An interrupted run had written keys and configuration; they were proven and what ran was started.'
        }
        catch {
            $reason = Get-WebfarmErrorText -ErrorRecord $_
        }
    }
    if ($settled.outcome -ne 'completed') {
        $problems = @()
        if ($phase -eq 'prepared') {
            $settled.outcome = 'nothing'
            $settled.message = 'An interrupted run had not changed anything yet.'
        }
        else {
            $written = @('stopping', 'undone') -notcontains $phase
            $problems = @(Undo-WebfarmChange -Journal $journal -Written $written -Warning $warnings -Attention $warnings)
            $settled.message = "An interrupted run was undone ($reason): keys and configuration are the old ones, what ran was started."
            if (-not $written) {
                $settled.message = 'An interrupted run had stopped services and left keys and configuration as they were; what ran was started.'
            }
        }
        if ($problems.Count -gt 0) {
            throw "A run on this host was interrupted (journal $(Get-WebfarmJournalPath), phase $phase), and undoing it did not succeed: " +
            "$($problems -join '; '). The old keys and the old file lie in $($journal.undo_folder). Remove the cause and run again; " +
            'or bring the host into order by hand and delete the journal.'
        }
        Remove-WebfarmFolder -Path $journal.undo_folder
    }
    Remove-WebfarmTemporary -Journal $journal
    Complete-WebfarmJournal -Warning $warnings
    $settled.warnings = $warnings.ToArray()
    return $settled
}

Function Move-WebfarmLeftover {
    <#
    .SYNOPSIS
    Moves a left-over applicationHost.config.tmp away, into the undo set. It would keep WAS from starting.

    .PARAMETER Path
    The path of applicationHost.config.

    .PARAMETER Folder
    Where it goes; empty: it is renamed in place.

    .PARAMETER Steps
    A list that receives what was done.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Path,

        [Parameter()]
        [AllowEmptyString()]
        [string]
        $Folder,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Steps
    )

    $leftover = "$Path.tmp"
    if (-not [System.IO.File]::Exists($leftover) -or -not $PSCmdlet.ShouldProcess($leftover, 'move away')) {
        return
    }
    $target = "$Path.tmp.left-over-$(Get-WebfarmUnixTime)"
    if ($Folder) {
        $target = [System.IO.Path]::Combine($Folder, 'applicationHost.config.tmp')
    }
    [System.IO.File]::Move($leftover, $target)
    $Steps.Add("Moved a left-over $leftover, which keeps WAS from starting, to $target.")
}

Function Write-WebfarmChange {
    <#
    .SYNOPSIS
    Writes keys and files; from here on a failure needs the undo set.

    .PARAMETER Run
    From New-WebfarmUndoSet.

    .PARAMETER Plan
    The entries of Get-WebfarmKeyPlan that change.

    .PARAMETER KeySet
    The opened keys.

    .PARAMETER File
    As for Invoke-WebfarmTransaction.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Run,

        [Parameter()]
        [object[]]
        $Plan = @(),

        [Parameter(Mandatory = $true)]
        [object]
        $KeySet,

        [Parameter()]
        [object[]]
        $File = @()
    )

    if (-not $PSCmdlet.ShouldProcess('keys and files', 'write')) {
        return
    }
    Save-WebfarmJournal -Journal $Run.Journal -Phase writing
    if ($Plan.Count -gt 0) {
        Import-WebfarmKey -Plan $Plan -KeySet $KeySet -Steps $Run.Steps
    }
    foreach ($item in $File) {
        if ($item.path -like '*\applicationHost.config') {
            Move-WebfarmLeftover -Path $item.path -Folder $Run.Journal.undo_folder -Steps $Run.Steps
        }
        if ($item.after_sha256 -ne $item.before_sha256) {
            if ($item.backup) {
                [System.IO.File]::Copy($item.path, $item.backup)
            }
            Write-WebfarmContent -Item $item -Content $item.after
            $Run.Steps.Add("Wrote $($item.path).")
        }
    }
    Save-WebfarmJournal -Journal $Run.Journal -Phase written
    if ($File.Count -gt 0) {
        Confirm-WebfarmWritten -File $File
        $Run.Steps.Add('Proved every protected value with the keys in their containers.')
    }
}

Function Invoke-WebfarmTransaction {
    <#
    .SYNOPSIS
    Changes keys and configuration together, or leaves the host as it was.

    .DESCRIPTION
    The caller holds the lock (Enter-WebfarmRun) and has proven the candidate with the candidate keys. Returns a dictionary:
    Outcome (committed, none, rolled_back, rollback_failed), Message, Steps, Warnings, Id, Backup (the name of the backup of the state
    before; it stays whatever becomes of the change), UndoFolder, UndoExpires, Before and After (the state of services, pools and sites).

    .PARAMETER Plan
    The entries of Get-WebfarmKeyPlan that change.

    .PARAMETER KeySet
    The opened keys.

    .PARAMETER File
    What changes besides the keys, each a dictionary with path, before and after (bytes), before_sha256 and after_sha256; where it
    matters also backup (a path), store (file, registry for the Centralized Certificate Store, key for the file of a CNG key that an
    Action may change) and accepted (attribute paths
    that need not open afterwards, besides those in Option.accepted).

    .PARAMETER InService
    Stop consumers before, start them and check their health afterwards.

    .PARAMETER Action
    Something else that changes keys and files, in place of KeySet and File.after: it gets a list for its steps, fills in what the
    entries of Plan hold afterwards, and throws where it did not succeed.

    .PARAMETER Option
    stop_timeout, start_timeout, start_services, warm_up, verify_urls, undo_expiry_hours, without_undo, repair (the live file may
    be malformed), check (called with the state before and a list for warnings when all is written and proven, before anything is
    started; says what is wrong), unreadable (it is), prior_backups (as Keep of Save-WebfarmPriorBackup), accepted, deadman_minutes and settler (the
    script of the scheduled task, as the controller sent it; empty: no task).
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter()]
        [object[]]
        $Plan = @(),

        [Parameter(Mandatory = $true)]
        [object]
        $KeySet,

        [Parameter()]
        [AllowNull()]
        [object[]]
        $File = @(),

        [Parameter()]
        [switch]
        $InService,

        [Parameter()]
        [AllowNull()]
        [scriptblock]
        $Action,

        [Parameter(Mandatory = $true)]
        [hashtable]
        $Option
    )

    $warnings = New-Object -TypeName System.Collections.Generic.List[string]
    $report = [ordered]@{
        Outcome = 'none'
        Message = ''
        Steps = @()
        Warnings = @()
        Id = ''
        Backup = ''
        UndoFolder = ''
        UndoExpires = 0
        Before = [ordered]@{ services = @(); pools = @(); sites = @() }
        After = [ordered]@{ services = @(); pools = @(); sites = @() }
    }
    if (-not $PSCmdlet.ShouldProcess('keys and configuration', 'change')) {
        return $report
    }
    $File = @(
        foreach ($item in $File) {
            if ($null -ne $item) {
                $whole = @{ store = 'file'; backup = ''; accepted = @() }
                foreach ($name in $item.Keys) {
                    $whole[$name] = $item[$name]
                }
                $whole.accepted = @($whole.accepted) + @($Option.accepted.Keys)
                $whole
            }
        }
    )
    $run = New-WebfarmUndoSet -Plan $Plan -File $File -Option $Option -InService $InService -Warning $warnings
    $journal = $run.Journal
    $touched = $false
    $written = $false
    $report.Id = $journal.id
    try {
        $state = $null
        if ($InService) {
            $state = Get-WebfarmRunState -Repair:([bool]$Option['repair'])
            Assert-WebfarmRestartable -State $state
            $journal.state = $state
            $report.Before = $state
        }
        $prior = @{
            Id = $journal.id
            Keep = [int]$Option['prior_backups']
            Unreadable = [bool]$Option['unreadable']
            Warning = $warnings
        }
        $report.Backup = [string](Save-WebfarmPriorBackup @prior)
        $journal.start_types = @(Get-WebfarmStartType)
        Register-WebfarmDeadman -Journal $journal -Option $Option -Warning $warnings
        Save-WebfarmJournal -Journal $journal -Phase stopping
        $touched = $true
        Set-WebfarmManualStart -StartType $journal.start_types
        if ($InService) {
            Stop-WebfarmConsumer -State $state -TimeoutSeconds $Option.stop_timeout
            $stopped = @($state.services | Where-Object -FilterScript { $_.status -ne 'stopped' } | ForEach-Object -Process { $_.name })
            if ($stopped.Count -gt 0) {
                $run.Steps.Add("Stopped $($stopped -join ', ').")
            }
        }
        Assert-WebfarmQuiet -Plan $Plan -File $File -State $state
        $touched = $true
        $written = $true
        if ($null -ne $Action) {
            Save-WebfarmJournal -Journal $journal -Phase writing
            & $Action $run.Steps
        }
        else {
            Write-WebfarmChange -Run $run -Plan $Plan -KeySet $KeySet -File $File
        }
        if ($InService -and $null -ne $Option['check']) {
            $problems = @(& $Option['check'] $state $warnings)
            if ($problems.Count -gt 0) {
                throw "The server would not be healthy: $($problems -join '; ')."
            }
        }
        Save-WebfarmJournal -Journal $journal -Phase starting
        if ($InService) {
            Start-WebfarmChanged -Journal $journal -Steps $run.Steps -Warning $warnings
        }
        Restore-WebfarmStartType -StartType $journal.start_types
        Complete-WebfarmJournal -Warning $warnings
        $report.Outcome = 'committed'
        $report.UndoFolder = $journal.undo_folder
        $report.UndoExpires = $journal.expires
        Limit-WebfarmPriorBackup -Keep $prior.Keep -Warning $warnings
    }
    catch {
        $reason = Get-WebfarmSentence -ErrorRecord $_
        $problems = @()
        if ($touched) {
            $undo = @{
                Journal = $journal
                Kept = $run.Kept
                Written = $written
                Warning = $warnings
                Attention = $run.Attention
            }
            $problems = @(Undo-WebfarmChange @undo)
        }
        foreach ($item in $File) {
            if ($problems.Count -eq 0 -and $item.backup) {
                # It is what the live file is again.
                [System.IO.File]::Delete($item.backup)
            }
        }
        $failure = @{
            Report = $report
            Run = $run
            Reason = $reason
            Problem = $problems
            Touched = $touched
            Written = $written
            Warning = $warnings
        }
        Complete-WebfarmFailure @failure
    }
    $report.Steps = $run.Steps.ToArray()
    if ($InService) {
        $report.After = Get-WebfarmStateNow -State $report.Before -Warning $warnings
    }
    $report.Warnings = $warnings.ToArray()
    return $report
}

Function Complete-WebfarmFailure {
    <#
    .SYNOPSIS
    Writes what went wrong, what was done, how the host is left, and what to do next.

    .PARAMETER Report
    The report of Invoke-WebfarmTransaction; filled in.

    .PARAMETER Run
    From New-WebfarmUndoSet.

    .PARAMETER Reason
    What failed.

    .PARAMETER Problem
    What the undo could not bring back.

    .PARAMETER Touched
    Something was stopped or written.

    .PARAMETER Written
    Keys or file may have been written.

    .PARAMETER Warning
    A list that receives warnings.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Report,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning,

        [Parameter(Mandatory = $true)]
        [hashtable]
        $Run,

        [Parameter(Mandatory = $true)]
        [string]
        $Reason,

        [Parameter()]
        [string[]]
        $Problem = @(),

        [Parameter()]
        [bool]
        $Touched,

        [Parameter()]
        [bool]
        $Written
    )

    $done = if ($Run.Steps.Count -gt 0) { $Run.Steps -join ' ' } else { 'nothing before the failure.' }
    $folder = $Run.Journal.undo_folder
    if ($Problem.Count -gt 0) {
        $Report.Outcome = 'rollback_failed'
        $Report.UndoFolder = $folder
        $Report.UndoExpires = $Run.Journal.expires
        $back = 'Keys and file were not touched, but not everything runs again'
        if ($Written) {
            $back = 'Putting keys and file back did not succeed completely'
        }
        $trouble = @($Problem | ForEach-Object -Process { $_.TrimEnd('.') }) -join '; '
        $who = 'the next run settles the journal first'
        if ($Run.Journal.due) {
            $due = [DateTimeOffset]::FromUnixTimeSeconds($Run.Journal.due).UtcDateTime
            $who += ", and a scheduled task of the host tries to from $(ConvertTo-WebfarmTimeText -Time $due) on"
        }
        $Report.Message = "$Reason Done: $done State: this host needs attention. ${back}: $trouble. The old keys and the old file lie in '$folder'. " +
        "Next: remove the cause and run again, $who; or repair by hand and delete $(Get-WebfarmJournalPath)."
        $Run.Steps.Add('Undo was incomplete.')
        return
    }
    Complete-WebfarmJournal -Warning $Warning
    Remove-WebfarmFolder -Path $folder
    if (-not $Touched) {
        $Report.Message = "$Reason State: nothing was changed and nothing was stopped. Next: remove the cause and run again."
        return
    }
    $Report.Outcome = 'rolled_back'
    $back = 'keys and file were not touched'
    if ($Written) {
        $back = 'keys and file were put back together and are the old ones'
    }
    $running = ''
    if ($Run.Journal.in_service) {
        $running = '; the services that ran are running'
        if ($Run.Attention.Count -gt 0) {
            $running += ", but $($Run.Attention -join '; '); that may have been so before, unnoticed until the restart"
        }
    }
    $Run.Steps.Add("Rolled back: $back$running.")
    $Report.Message = "$Reason Done: $done State: $back$running. Next: remove the cause and run again."
}

Function Register-WebfarmDeadman {
    <#
    .SYNOPSIS
    Lets a scheduled task of the host settle this run if it does not come back.

    .PARAMETER Journal
    The journal; it receives the time.

    .PARAMETER Option
    The options of the transaction.

    .PARAMETER Warning
    A list that receives warnings.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Journal,

        [Parameter(Mandatory = $true)]
        [hashtable]
        $Option,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    # Without an undo set there is no journal, and nothing that a task could do.
    if (-not $Option.deadman_minutes -or -not $Journal.undo_folder -or -not $PSCmdlet.ShouldProcess('scheduled task', 'register')) {
        return
    }
    if (-not $Option.settler) {
        $Warning.Add('No scheduled task stands by: the controller sent no script for it. An interrupted run is settled by the next one.')
        return
    }
    $due = Set-WebfarmDeadman -Settler $Option.settler -Minutes $Option.deadman_minutes
    $Journal.due = ([DateTimeOffset]$due).ToUnixTimeSeconds()
}

Function Complete-WebfarmJournal {
    <#
    .SYNOPSIS
    Ends a run: the journal goes, then the scheduled task.

    .PARAMETER Warning
    A list that receives warnings.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    Remove-WebfarmJournal
    try {
        Clear-WebfarmDeadman
    }
    catch {
        # It finds no journal when it runs, and removes itself.
        $Warning.Add("The scheduled task could not be removed; it does nothing and removes itself: $(Get-WebfarmErrorText -ErrorRecord $_)")
    }
}

Function Get-WebfarmStateNow {
    <#
    .SYNOPSIS
    Reads the state of services, pools and sites for the result; never fails.

    .PARAMETER State
    The state before.

    .PARAMETER Warning
    A list that receives warnings.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $State,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    try {
        return Get-WebfarmRunState -AsIs
    }
    catch {
        $Warning.Add("The state of the services could not be read at the end: $(Get-WebfarmErrorText -ErrorRecord $_)")
        return $State
    }
}

Function ConvertTo-WebfarmChangeList {
    <#
    .SYNOPSIS
    Pairs two states as name, before, after.

    .PARAMETER Before
    Dictionaries with name and the property.

    .PARAMETER After
    The same, later.

    .PARAMETER Property
    status or state.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [object[]]
        $Before = @(),

        [Parameter()]
        [object[]]
        $After = @(),

        [Parameter(Mandatory = $true)]
        [string]
        $Property
    )

    $pairs = [ordered]@{}
    foreach ($item in $Before) {
        $pairs[$item.name] = [ordered]@{ name = $item.name; before = $item.$Property; after = $null }
    }
    foreach ($item in $After) {
        if (-not $pairs.Contains($item.name)) {
            $pairs[$item.name] = [ordered]@{ name = $item.name; before = $null; after = $null }
        }
        $pairs[$item.name].after = $item.$Property
    }
    $pairs.Values
}

Export-ModuleMember -Function @(
    'ConvertTo-WebfarmChangeList'
    'Enter-WebfarmRun'
    'Exit-WebfarmRun'
    'Invoke-WebfarmSettling'
    'Invoke-WebfarmTransaction'
    'Move-WebfarmLeftover'
)
