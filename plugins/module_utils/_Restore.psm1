# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# What restoring from a backup and from the history have in common: which snapshot, how it differs, what else comes back with it.

#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._History
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -PowerShell ..module_utils._Backup
#AnsibleRequires -PowerShell ..module_utils._BackupFolder
#AnsibleRequires -PowerShell ..module_utils._Change
#AnsibleRequires -PowerShell ..module_utils._Dependent
#AnsibleRequires -PowerShell ..module_utils._Difference
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._KeyPlan
#AnsibleRequires -PowerShell ..module_utils._ServerFacts
#AnsibleRequires -PowerShell ..module_utils._Service

# So many snapshots go to the controller, when it has to find the one that an older key set opens.
$script:candidates = 10

Function Invoke-WebfarmBackupTask {
    <#
    .SYNOPSIS
    Makes, verifies, or deletes a backup, and applies retention. Fills in the result of the change.

    .PARAMETER Change
    From New-WebfarmChange, opened.

    .PARAMETER State
    present, verified or absent.

    .PARAMETER Name
    The name of the backup; without one the newest that holds what the server holds now.

    .PARAMETER Force
    Make one also where the newest holds what the server holds now.

    .PARAMETER Keep
    As for Get-WebfarmExpiredBackup.

    .PARAMETER KeepDays
    As for Get-WebfarmExpiredBackup.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change,

        [Parameter(Mandatory = $true)]
        [ValidateSet('absent', 'present', 'verified')]
        [string]
        $State,

        [Parameter()]
        [string]
        $Name,

        [Parameter()]
        [bool]
        $Force,

        [Parameter()]
        [int]
        $Keep,

        [Parameter()]
        [int]
        $KeepDays
    )

    $result = $Change.Result
    $result.deleted = @()
    if ($State -ne 'present' -and -not $Name) {
        throw "name: say which backup; state=$State needs it."
    }
    if ($Name) {
        Assert-WebfarmBackupName -Name $Name
    }
    if ($State -eq 'absent') {
        $there = [System.IO.Directory]::Exists([System.IO.Path]::Combine((Get-WebfarmBackupFolder), $Name))
        if ($there) {
            $result.deleted = @($Name)
            $result.changed = $true
            if (-not $Change.CheckMode) {
                Remove-WebfarmBackup -Name $Name
            }
        }
        Set-WebfarmBackupDiff -Change $Change -Before @($result.deleted) -After @()
        return
    }
    $Change.Accepted = ConvertTo-WebfarmAcceptance -List $Change.Parameter.accept_undecryptable
    if ($State -eq 'verified') {
        $files = @(Read-WebfarmBackup -Name $Name)
        $result.backup = Get-WebfarmBackupFact -Name $Name
        Assert-WebfarmBackupProven -Change $Change -File $files -What "The backup '$Name'"
        if ($result.backup.intact -eq $false -or -not $result.backup.complete) {
            throw "The backup '$Name' cannot be relied on: $($result.backup.message) Restore another, and delete this one."
        }
        return
    }
    Assert-WebfarmNotRedirected -Advice 'Back up the share that holds the effective file; a local backup would hold what IIS does not read.'
    $source = @(Get-WebfarmBackupSource)
    Assert-WebfarmBackupProven -Change $Change -File $source -What 'The present configuration'
    $text = Format-WebfarmBackupFile -File @(ConvertTo-WebfarmBackupFile -File $source)
    $facts = @(Get-WebfarmBackupFact)
    $same = @($facts | Where-Object -FilterScript { (Format-WebfarmBackupFile -File $_.files) -eq $text })
    $before = @($facts | ForEach-Object -Process { $_.name })
    $found = $null
    if ($Name) {
        $found = $facts | Where-Object -FilterScript { $_.name -eq $Name } | Select-Object -First 1
        if ($null -ne $found -and ($found.intact -eq $false -or -not $found.complete)) {
            throw "The backup '$Name' exists and cannot be relied on: $($found.message) Delete it, or choose another name."
        }
    }
    elseif (-not $Force) {
        # Those of transactions expire by a rule of their own.
        $newest = $facts | Where-Object -FilterScript { $_.origin -ne 'transaction' } | Select-Object -First 1
        $found = $same | Where-Object -FilterScript { $_.name -eq $newest.name } | Select-Object -First 1
    }
    if ($null -eq $found) {
        $result.changed = $true
        if ($Change.CheckMode) {
            $shown = $Name
            if (-not $shown) {
                $shown = [DateTime]::Now.ToString('yyyyMMddTHHmmss', [System.Globalization.CultureInfo]::InvariantCulture)
            }
            $found = [ordered]@{
                name = $shown
                planned = $true
                created = ConvertTo-WebfarmTimeText -Time ([DateTime]::UtcNow)
                files = @(ConvertTo-WebfarmBackupFile -File $source)
                proven = $true
            }
        }
        else {
            $found = New-WebfarmBackup -Name $Name
            if (-not $found.proven -and $Change.Accepted.Count -eq 0) {
                throw "The backup '$($found.name)' was made and does not prove: $($found.message)"
            }
        }
        $facts = @($found) + $facts
    }
    $result.backup = $found
    if ($Keep -gt 0 -or $KeepDays -gt 0) {
        $result.deleted = @(Get-WebfarmExpiredBackup -Fact $facts -Keep $Keep -KeepDays $KeepDays | Where-Object -FilterScript { $_ -ne $found.name })
        foreach ($old in $result.deleted) {
            $result.changed = $true
            if (-not $Change.CheckMode) {
                Remove-WebfarmBackup -Name $old
            }
        }
    }
    $after = @($facts | ForEach-Object -Process { $_.name } | Where-Object -FilterScript { $result.deleted -notcontains $_ })
    Set-WebfarmBackupDiff -Change $Change -Before $before -After $after
}

Function Set-WebfarmBackupDiff {
    <#
    .SYNOPSIS
    Describes what becomes of the backups, for diff mode: their names.

    .PARAMETER Change
    From New-WebfarmChange.

    .PARAMETER Before
    Names of the backups before.

    .PARAMETER After
    Names of the backups after.
    #>
    [CmdletBinding()]
    [System.Diagnostics.CodeAnalysis.SuppressMessageAttribute('PSUseShouldProcessForStateChangingFunctions', '', Justification = 'Fills an object only')]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change,

        [Parameter()]
        [AllowEmptyCollection()]
        [string[]]
        $Before = @(),

        [Parameter()]
        [AllowEmptyCollection()]
        [string[]]
        $After = @()
    )

    $Change.Diff = @{
        before = [ordered]@{ backups = @($Before | Sort-Object) }
        after = [ordered]@{ backups = @($After | Sort-Object) }
    }
}

Function Assert-WebfarmBackupProven {
    <#
    .SYNOPSIS
    Throws unless every session key and value of these files opens with the keys of this machine, or is accepted.

    .PARAMETER Change
    From New-WebfarmChange; its result receives the values.

    .PARAMETER File
    Dictionaries with name and content.

    .PARAMETER What
    What the message calls them.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [object[]]
        $File,

        [Parameter(Mandatory = $true)]
        [string]
        $What
    )

    try {
        $proof = Get-WebfarmBackupProof -File $File -Accepted $Change.Accepted
    }
    catch {
        throw "$What cannot be used: $(Get-WebfarmSentence -ErrorRecord $_) Nothing was changed."
    }
    $Change.Result.protected_values = @($proof.ProtectedValues)
    foreach ($path in $proof.Unneeded) {
        $Change.Warning.Add("accept_undecryptable: $path decrypts, or is not there.")
    }
    $problems = @($proof.Problems)
    if ($problems.Count -gt 0) {
        throw "$What does not prove: $($problems.Count) session keys and protected values do not open with the keys of this server. " +
        "$(Format-WebfarmProblem -Problem $problems) Nothing was changed. What is known to be broken can be listed with a reason in accept_undecryptable."
    }
}

Function Restore-WebfarmBackup {
    <#
    .SYNOPSIS
    Restores a backup of this server, or what came from the controller, through the transaction.

    .PARAMETER Change
    From New-WebfarmChange with Repair, opened. Its parameters say what is restored: name, or src with _content and _administration.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $given = $Change.Parameter
    $administration = $null
    $Change.OwnPast = $true
    if ($given.name) {
        $files = @(Read-WebfarmBackup -Name $given.name)
        $Change.Result.backup = Get-WebfarmBackupFact -Name $given.name -Decrypt none
        if (-not $Change.Result.backup.complete) {
            throw "The backup '$($given.name)' cannot be restored: $($Change.Result.backup.message) Nothing was changed."
        }
        $administration = ($files | Where-Object -FilterScript { $_.name -eq 'administration.config' }).content
        $given.src = [System.IO.Path]::Combine((Get-WebfarmBackupFolder), $given.name, 'applicationHost.config')
        $given.remote_src = $true
        Test-WebfarmRestoredRedirection -File $files
    }
    else {
        $given.src = 'applicationHost.config'
        $given.remote_src = $false
        $Change.OwnPast = "$($given._machine_guid)" -eq [WebfarmKeyContainer]::MachineGuid()
        if ($given._administration) {
            $administration = ConvertFrom-WebfarmPackedText -Text $given._administration -Name 'administration.config'
        }
    }
    Read-WebfarmChangeFile -Change $Change
    Read-WebfarmChangeKey -Change $Change
    Confirm-WebfarmChange -Change $Change
    if ($null -ne $administration) {
        Add-WebfarmRestoredFile -Change $Change -Name 'administration.config' -Content $administration
    }
    $Change.Result.differences = @(Get-WebfarmDifference -Before $Change.Live -After $Change.Candidate)
    if ($Change.CheckMode -and $Change.Pending.Count -gt 0) {
        # The controller proves it with the keys that are not here yet.
        $Change.Result._content = ConvertTo-WebfarmPackedText -Content $Change.Candidate.Bytes
    }
    Invoke-WebfarmChange -Change $Change -InService
    if (-not $Change.CheckMode -and $Change.Result._final -and -not $Change.Result['changed']) {
        Assert-WebfarmServing -Change $Change
    }
}

Function Assert-WebfarmServing {
    <#
    .SYNOPSIS
    Throws where nothing was to be restored and the server does not serve as it is asked to. Nothing is started or stopped.

    .DESCRIPTION
    The transaction asks this after a change. Who names URLs, or wants what starts with Windows to run, wants to know it without one as well.

    .PARAMETER Change
    From New-WebfarmChange, with the result of a change that had nothing to do.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $given = $Change.Parameter
    $urls = @($given.verify_urls | Where-Object -FilterScript { $null -ne $_ })
    if ($given.start_services -ne 'automatic' -and $urls.Count -eq 0) {
        return
    }
    $since = [DateTime]::UtcNow
    $state = Get-WebfarmRunState
    if ($given.start_services -eq 'automatic') {
        $state = Get-WebfarmWantedState -State $state
    }
    $query = @{
        State = $state
        Path = $Change.File.path
        WarmUp = $given.warm_up
        Url = $urls
        TimeoutSeconds = $given.start_timeout
        Since = $since
        Warning = $Change.Warning
    }
    $problems = @(Get-WebfarmHealthProblem @query)
    if ($urls.Count -gt 0 -and -not (Test-WebfarmRunning -State $state -Name 'W3SVC')) {
        $problems += 'the service W3SVC does not run, so that no URL of verify_urls can answer'
    }
    $Change.Result.health = @($problems | ForEach-Object -Process { $_.TrimEnd('.') })
    if ($problems.Count -gt 0) {
        throw "Keys and configuration are as they should be, so nothing was restored, and the server does not serve: $($Change.Result.health -join '; '). " +
        'Nothing was changed. Start what is stopped (Start-Service W3SVC), or find the cause with webfarm.iis.diagnose.'
    }
}

Function Test-WebfarmRestoredRedirection {
    <#
    .SYNOPSIS
    Throws for a backup whose redirection.config is active: what it holds is not what IIS read then.

    .PARAMETER File
    Dictionaries with name and content.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object[]]
        $File
    )

    $redirection = $File | Where-Object -FilterScript { $_.name -eq 'redirection.config' }
    if ($null -ne $redirection -and [WebfarmConfiguration]::Redirection([System.IO.Path]::GetDirectoryName($redirection.path)).Enabled) {
        throw 'The backup was made while shared configuration was active: its applicationHost.config is not what IIS read then. ' +
        'Nothing was changed. Restore the shared files instead.'
    }
}

Function Add-WebfarmRestoredFile {
    <#
    .SYNOPSIS
    Adds administration.config to a change that restores applicationHost.config, proven like it.

    .DESCRIPTION
    Call it after Confirm-WebfarmChange. What is the same already, apart from how it is encrypted, is left alone.

    .PARAMETER Change
    From New-WebfarmChange.

    .PARAMETER Name
    The name of the file.

    .PARAMETER Content
    Its bytes.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change,

        [Parameter(Mandatory = $true)]
        [string]
        $Name,

        [Parameter(Mandatory = $true)]
        [byte[]]
        $Content
    )

    $path = [System.IO.Path]::Combine((Get-WebfarmConfigurationFolder), $Name)
    $item = New-WebfarmContentItem -Path $path -Name $Name
    if ($null -eq $item) {
        $Change.Warning.Add("$path does not exist on this server, so $Name is not restored.")
        return
    }
    if ($item.before_sha256 -eq [WebfarmKeyContainer]::Sha256($Content)) {
        return
    }
    try {
        $file = [WebfarmConfiguration]::Parse($Content, $Name).Under($Change.Candidate)
    }
    catch {
        throw "$(Get-WebfarmSentence -ErrorRecord $_) Nothing was changed."
    }
    if ($Change.Pending.Count -eq 0) {
        $bad = @(
            foreach ($verdict in [WebfarmProtection]::Prove($file, $Change.KeySet)) {
                if ($verdict.Verdict -ne 'ok' -and -not $Change.Accepted.ContainsKey($verdict.Path)) {
                    ConvertTo-WebfarmValueFact -Verdict $verdict
                }
            }
        )
        if ($bad.Count -gt 0) {
            throw "$Name was refused: $($bad.Count) protected values could not be opened on this host. $(Format-WebfarmProblem -Problem $bad) " +
            'Nothing was changed.'
        }
    }
    $item.after = $Content
    $item.after_sha256 = [WebfarmKeyContainer]::Sha256($Content)
    $Change.Dependent = @($Change.Dependent | Where-Object -FilterScript { $_.path -ne $path }) + @($item)
    $Change.Result.dependent_files = @($Change.Result.dependent_files | Where-Object -FilterScript { $_.path -ne $path }) + @(
        [ordered]@{
            path = $path
            before = $item.before_sha256
            after = $item.after_sha256
            changed = $true
        }
    )
}

Function Select-WebfarmSnapshot {
    <#
    .SYNOPSIS
    Returns the snapshot that is asked for. Throws, with what there is, when there is none.

    .PARAMETER History
    From Get-WebfarmHistoryFact.

    .PARAMETER Number
    Its number.

    .PARAMETER Time
    A time: the newest snapshot that is not younger.

    .PARAMETER Present
    SHA-256 of the present file, which is no candidate for the last one that proves.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $History,

        [Parameter()]
        [AllowNull()]
        [object]
        $Number,

        [Parameter()]
        [string]
        $Time,

        [Parameter()]
        [string]
        $Present
    )

    if ($History.message -and @($History.snapshots).Count -eq 0) {
        throw "$($History.message) configHistory in applicationHost.config names it; AppHostSvc does not create a folder of one's own choice."
    }
    $known = @($History.snapshots | Where-Object -FilterScript { $_.sha256 })
    $list = @($known | Select-Object -First 10 | ForEach-Object -Process { "$($_.number) ($($_.created))" }) -join ', '
    if (-not $list) {
        $list = 'none'
    }
    if ($null -ne $Number) {
        $found = $known | Where-Object -FilterScript { $_.number -eq $Number } | Select-Object -First 1
        if ($null -eq $found) {
            throw "number: there is no snapshot $Number in $($History.path). There are: $list."
        }
        return $found
    }
    if ($Time) {
        $moment = [DateTime]::MinValue
        $style = [System.Globalization.DateTimeStyles]'AssumeUniversal, AdjustToUniversal'
        if (-not [DateTime]::TryParse($Time, [System.Globalization.CultureInfo]::InvariantCulture, $style, [ref]$moment)) {
            throw "time: '$Time' is not a time such as 2026-11-20T07:32:00Z. Without an offset it is taken as UTC."
        }
        $limit = ConvertTo-WebfarmTimeText -Time $moment
        $found = $known | Where-Object -FilterScript { [string]::CompareOrdinal($_.created, $limit) -le 0 } |
            Sort-Object -Property { $_.created }, { $_.number } -Descending | Select-Object -First 1
        if ($null -eq $found) {
            throw "time: no snapshot in $($History.path) is as old as $limit. There are: $list."
        }
        return $found
    }
    $found = $known | Where-Object -FilterScript { $_.proven -and $_.sha256 -ne $Present } | Select-Object -First 1
    if ($null -eq $found) {
        $found = $known | Where-Object -FilterScript { $_.proven } | Select-Object -First 1
    }
    if ($null -eq $found) {
        throw "select: no snapshot in $($History.path) opens with the keys of this server. There are: $list. " +
        'Name one by number together with the bundle that held its keys, restore a backup, or import the lost keys first.'
    }
    return $found
}

Function Get-WebfarmRestoreSource {
    <#
    .SYNOPSIS
    Finds the snapshot that is asked for. Returns a dictionary: History, Snapshot, and where it needs older keys Candidate and Reason.

    .DESCRIPTION
    Candidate holds number and content of snapshots that do not open with the keys of this machine, for the controller to wrap them again.

    .PARAMETER Change
    From New-WebfarmChange with Repair, with the live file.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $given = $Change.Parameter
    $decrypt = 'none'
    if ($given.select) {
        $decrypt = 'all'
    }
    $file = $Change.Live
    if ($Change.Unreadable) {
        $file = $null
    }
    $history = Get-WebfarmHistoryFact -File $file -Decrypt $decrypt
    $source = @{
        History = $history
        Snapshot = $null
        Candidate = @()
        Reason = ''
    }
    $number = $given.number
    if ($null -ne $given._number) {
        $number = $given._number
    }
    $time = ''
    if ($null -eq $given._number) {
        $time = [string]$given.time
    }
    $query = @{
        History = $history
        Number = $number
        Time = $time
        Present = $Change.Live.Sha256
    }
    try {
        $source.Snapshot = Select-WebfarmSnapshot @query
    }
    catch {
        $known = @($history.snapshots | Where-Object -FilterScript { $_.sha256 })
        if (-not $given.select -or -not $given.bundle -or $known.Count -eq 0) {
            throw
        }
        $source.Reason = Get-WebfarmSentence -ErrorRecord $_
        $source.Candidate = @(ConvertTo-WebfarmCandidate -Snapshot @($known | Select-Object -First $script:candidates))
        return $source
    }
    if ($given.bundle -and -not $given._content) {
        try {
            $file = [WebfarmConfiguration]::Load($source.Snapshot.path)
        }
        catch {
            throw "Snapshot $($source.Snapshot.number) cannot be restored: $(Get-WebfarmSentence -ErrorRecord $_) Nothing was changed."
        }
        $proof = Get-WebfarmProof -File @($file) -Accepted $Change.Accepted
        if (@($proof.Problems).Count -gt 0) {
            $source.Reason = Format-WebfarmProblem -Problem $proof.Problems -Limit 3 -WithoutAdvice
            $source.Candidate = @(ConvertTo-WebfarmCandidate -Snapshot @($source.Snapshot))
        }
    }
    return $source
}

Function ConvertTo-WebfarmCandidate {
    <#
    .SYNOPSIS
    Packs snapshots for the way to the controller.

    .PARAMETER Snapshot
    Entries of the history.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object[]]
        $Snapshot
    )

    foreach ($one in $Snapshot) {
        @{
            number = $one.number
            content = ConvertTo-WebfarmPackedText -Content ([System.IO.File]::ReadAllBytes($one.path))
        }
    }
}

Function Get-WebfarmPublicKey {
    <#
    .SYNOPSIS
    Returns the public keys that the providers of the present configuration and of IIS itself use, as blobs, by container.
    #>
    [CmdletBinding()]
    param ()

    $found = @{}
    foreach ($name in 'iisWasKey', 'iisConfigurationKey', 'NetFrameworkConfigurationKey') {
        if ([WebfarmKeyContainer]::Inspect($name, 'cryptoapi').State -eq 'present') {
            $found[$name] = [System.Convert]::ToBase64String([WebfarmKeyContainer]::PublicBlob($name))
        }
    }
    return $found
}

Function Restore-WebfarmSnapshot {
    <#
    .SYNOPSIS
    Restores a snapshot of the history through the transaction, or asks the controller to wrap it for the present keys first.

    .PARAMETER Change
    From New-WebfarmChange with Repair, opened.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $given = $Change.Parameter
    $given.src = ''
    $given.remote_src = $false
    Read-WebfarmChangeFile -Change $Change
    $source = Get-WebfarmRestoreSource -Change $Change
    if ($source.Candidate.Count -gt 0) {
        $Change.Result._candidates = $source.Candidate
        $Change.Result._public = Get-WebfarmPublicKey
        $Change.Result._reason = $source.Reason
        return
    }
    $snapshot = $source.Snapshot
    $Change.OwnPast = $true
    $Change.Result.snapshot = [ordered]@{
        number = $snapshot.number
        name = $snapshot.name
        path = $snapshot.path
        created = $snapshot.created
        sha256 = $snapshot.sha256
        rewrapped = [bool]$given._content
    }
    $given.src = $snapshot.path
    $given.remote_src = -not $given._content
    Read-WebfarmChangeFile -Change $Change
    Read-WebfarmChangeKey -Change $Change
    Confirm-WebfarmChange -Change $Change
    $Change.Result.differences = @(Get-WebfarmDifference -Before $Change.Live -After $Change.Candidate)
    Invoke-WebfarmChange -Change $Change -InService
}

Function Set-WebfarmHistory {
    <#
    .SYNOPSIS
    Changes the settings of the configuration history, every other byte of the file stays. No service is stopped: AppHostSvc takes them up.

    .PARAMETER Change
    From New-WebfarmChange, opened.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $given = $Change.Parameter
    $wanted = New-Object -TypeName 'System.Collections.Generic.Dictionary[string,string]'
    if ($null -ne $given.enabled) {
        $wanted.Add('enabled', ([string]$given.enabled).ToLowerInvariant())
    }
    if ($null -ne $given.max_histories) {
        if ($given.max_histories -lt 1) {
            throw "max_histories is $($given.max_histories); give at least 1. enabled=false turns the history off."
        }
        $wanted.Add('maxHistories', [string]$given.max_histories)
    }
    if ($given.period) {
        $span = [TimeSpan]::Zero
        if ($given.period -notmatch '^\d{1,3}:\d{2}:\d{2}$' -or -not [TimeSpan]::TryParse($given.period, [ref]$span) -or $span.TotalSeconds -lt 10) {
            throw "period: '$($given.period)' is not a time span such as 00:02:00, 10 seconds at least."
        }
        $wanted.Add('period', $given.period)
    }
    if ($given.path) {
        $folder = [System.Environment]::ExpandEnvironmentVariables($given.path)
        if (-not [System.IO.Path]::IsPathRooted($folder) -or -not [System.IO.Directory]::Exists($folder)) {
            throw "path: there is no folder '$folder'. AppHostSvc does not create it: make it first, readable by SYSTEM and Administrators."
        }
        $wanted.Add('path', $given.path)
    }
    $given.src = ''
    $given.remote_src = $false
    Read-WebfarmChangeFile -Change $Change
    $present = [WebfarmHistory]::Settings($Change.Live)
    foreach ($name in @($wanted.Keys)) {
        if ($present[$name] -eq $wanted[$name]) {
            $null = $wanted.Remove($name)
        }
    }
    if ($wanted.Count -gt 0 -and $PSCmdlet.ShouldProcess('configHistory', 'set')) {
        $bytes = [WebfarmHistory]::Set($Change.Live, $wanted)
        $given.src = 'applicationHost.config'
        $given._content = ConvertTo-WebfarmPackedText -Content $bytes
        Read-WebfarmChangeFile -Change $Change
        $Change.Result.differences = @(Get-WebfarmDifference -Before $Change.Live -After $Change.Candidate)
    }
    Read-WebfarmChangeKey -Change $Change
    if ($null -ne $Change.Candidate) {
        Confirm-WebfarmChange -Change $Change
    }
    Invoke-WebfarmChange -Change $Change
}

Export-ModuleMember -Function @(
    'Add-WebfarmRestoredFile'
    'Invoke-WebfarmBackupTask'
    'Restore-WebfarmBackup'
    'Restore-WebfarmSnapshot'
    'Select-WebfarmSnapshot'
    'Set-WebfarmHistory'
)
