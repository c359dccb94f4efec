# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# What the modules that change keys or configuration have in common: look, compare, prove, and only then hand over to the
# transaction. They call these functions in this order: New, Open, Read, Confirm, Invoke, and Close in any case.

#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._History
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._Dependent
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Fit
#AnsibleRequires -PowerShell ..module_utils._Journal
#AnsibleRequires -PowerShell ..module_utils._KeyAccess
#AnsibleRequires -PowerShell ..module_utils._KeyPlan
#AnsibleRequires -PowerShell ..module_utils._LogonTest
#AnsibleRequires -PowerShell ..module_utils._Service
#AnsibleRequires -PowerShell ..module_utils._Transaction

# IIS writes applicationHost.config.tmp while it saves; one this old is a left-over.
$script:leftoverSeconds = 60

Function New-WebfarmChange {
    <#
    .SYNOPSIS
    Returns the dictionary that the other functions share.

    .PARAMETER Parameter
    The parameters of the module.

    .PARAMETER CheckMode
    Nothing is written.

    .PARAMETER Repair
    The live applicationHost.config may be malformed, or missing: it is replaced all the same.
    #>
    [CmdletBinding()]
    [System.Diagnostics.CodeAnalysis.SuppressMessageAttribute('PSUseShouldProcessForStateChangingFunctions', '', Justification = 'Makes an object only')]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Parameter,

        [Parameter(Mandatory = $true)]
        [bool]
        $CheckMode,

        [Parameter()]
        [switch]
        $Repair
    )

    return @{
        Parameter = $Parameter
        CheckMode = $CheckMode
        Repair = [bool]$Repair
        Placeholder = ''
        Unreadable = $false
        Applying = $Parameter._phase -eq 'apply'
        Warning = New-Object -TypeName System.Collections.Generic.List[string]
        Result = [ordered]@{}
        Diff = $null
        Run = $null
        Transport = [string]$Parameter._transport
        KeySet = $null
        Plan = @()
        Import = @()
        File = $null
        Live = $null
        Candidate = $null
        Override = $null
        Dependent = @()
        Accepted = @{}
        Pending = @()
        SameContent = $true
    }
}

Function Open-WebfarmChange {
    <#
    .SYNOPSIS
    Takes the host for this run and settles what an interrupted one left. In check mode it only looks.

    .PARAMETER Change
    From New-WebfarmChange.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    if ($Change.Parameter.ContainsKey('_phase') -and -not $Change.Parameter._phase) {
        throw 'This module runs through its action plugin. Call it by its full name as a task of a play, not by its file.'
    }
    if ($Change.Parameter.undo_expiry_hours -lt 1 -or $Change.Parameter.undo_expiry_hours -gt 8760) {
        throw "undo_expiry_hours is $($Change.Parameter.undo_expiry_hours); give 1 to 8760 hours."
    }
    $backups = $Change.Parameter['prior_backups']
    if ($null -ne $backups -and ($backups -lt 0 -or $backups -gt 1000)) {
        throw "prior_backups is $backups; give 1 to 1000 backups, or 0 for none."
    }
    $minutes = $Change.Parameter['deadman_minutes']
    if ($null -ne $minutes -and ($minutes -lt 0 -or $minutes -gt 1440)) {
        throw "deadman_minutes is $minutes; give 1 to 1440 minutes, or 0 for no scheduled task."
    }
    if ($Change.CheckMode) {
        $journal = Get-WebfarmJournal
        if ($null -ne $journal) {
            $Change.Warning.Add("A run on this host was interrupted (phase $($journal.phase), journal $(Get-WebfarmJournalPath)). " +
                'A run without check mode settles it first; what is reported here is the state as it is.')
        }
        return
    }
    $Change.Run = Enter-WebfarmRun
    $settled = $Change.Run.Settled
    if ($null -ne $settled) {
        foreach ($text in $settled.warnings) {
            $Change.Warning.Add($text)
        }
        $settled.Remove('warnings')
        $Change.Result.settled = $settled
        $Change.Result.changed = $settled.outcome -ne 'nothing'
        $Change.Warning.Add($settled.message)
    }
}

Function Read-WebfarmChangeFile {
    <#
    .SYNOPSIS
    Reads the live applicationHost.config, and the candidate where there is one.

    .PARAMETER Change
    From New-WebfarmChange.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $given = $Change.Parameter
    $Change.Accepted = ConvertTo-WebfarmAcceptance -List $given.accept_undecryptable
    Assert-WebfarmUrl -Url $given['verify_urls']
    $path = [System.IO.Path]::Combine((Get-WebfarmConfigurationFolder), 'applicationHost.config')
    try {
        $Change.Live = [WebfarmConfiguration]::Load($path)
    }
    catch {
        if (-not $Change.Repair) {
            throw "The present configuration cannot be used: $(Get-WebfarmSentence -ErrorRecord $_) Nothing was changed. " +
            'Repair it first, with webfarm.iis.history_restore or webfarm.iis.config_backup.'
        }
        if (-not $Change.Unreadable) {
            $Change.Warning.Add("The present configuration cannot be used and is replaced: $(Get-WebfarmSentence -ErrorRecord $_)")
        }
        $Change.Unreadable = $true
        $Change.Live = Get-WebfarmUnreadableFile -Change $Change -Path $path
    }
    if ($Change.CheckMode -and $Change.Repair -and -not [System.IO.File]::Exists($path)) {
        return (Read-WebfarmChangeCandidate -Change $Change -Path $path)
    }
    if ([System.IO.File]::GetAttributes($path) -band [System.IO.FileAttributes]::ReadOnly) {
        throw "$path is read-only. Nothing was changed. Find out who set that, remove it (attrib -r), and run again."
    }
    $hash = $Change.Live.Sha256
    if ($Change.Applying -and $given['_expected_sha256'] -and $given._expected_sha256 -ne $hash) {
        throw "$path was changed by something else after it had been looked at. Nothing was changed. Run again."
    }
    Read-WebfarmChangeCandidate -Change $Change -Path $path
}

Function Get-WebfarmUnreadableFile {
    <#
    .SYNOPSIS
    Returns the live file that cannot be read as a configuration, as something that can be replaced and put back.

    .DESCRIPTION
    Where there is none, an empty configuration takes its place for the time of the change; Close-WebfarmChange removes it when nothing else did.

    .PARAMETER Change
    From New-WebfarmChange.

    .PARAMETER Path
    Its path.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change,

        [Parameter(Mandatory = $true)]
        [string]
        $Path
    )

    $name = [System.IO.Path]::GetFileName($Path)
    if ([System.IO.File]::Exists($Path)) {
        return [WebfarmHistory]::Unreadable([System.IO.File]::ReadAllBytes($Path), $name)
    }
    $nothing = [WebfarmConfiguration]::Parse([System.Text.Encoding]::ASCII.GetBytes('<configuration />'), $name)
    if (-not $Change.CheckMode) {
        [WebfarmConfiguration]::WriteFile($Path, $nothing.Bytes, [NullString]::Value, [NullString]::Value)
        $Change.Placeholder = $Path
    }
    return $nothing
}

Function Read-WebfarmChangeCandidate {
    <#
    .SYNOPSIS
    Reads the candidate, where there is one.

    .PARAMETER Change
    From New-WebfarmChange, with the live file.

    .PARAMETER Path
    The path of the live file.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change,

        [Parameter(Mandatory = $true)]
        [string]
        $Path
    )

    $given = $Change.Parameter
    if (-not $given['src']) {
        return
    }
    try {
        if ($given.remote_src) {
            $Change.Candidate = [WebfarmConfiguration]::Load($given.src)
        }
        else {
            if (-not $given._content) {
                throw 'the action plugin sent no content'
            }
            $bytes = ConvertFrom-WebfarmPackedText -Text $given._content -Name 'src'
            $Change.Candidate = [WebfarmConfiguration]::Parse($bytes, [System.IO.Path]::GetFileName($given.src))
        }
    }
    catch {
        throw "src cannot be used: $(Get-WebfarmSentence -ErrorRecord $_) Nothing was changed."
    }
    Set-WebfarmOverride -Change $Change
    $Change.File = @{
        path = $Path
        before = $Change.Live.Bytes
        before_sha256 = $Change.Live.Sha256
        after = $Change.Candidate.Bytes
        after_sha256 = $Change.Candidate.Sha256
        backup = ''
    }
    Set-WebfarmBackup -Change $Change
}

Function Set-WebfarmOverride {
    <#
    .SYNOPSIS
    Puts the values of this server into the candidate. Where the controller has done it already nothing changes any more.

    .PARAMETER Change
    From New-WebfarmChange, with the candidate read.
    #>
    [CmdletBinding()]
    [System.Diagnostics.CodeAnalysis.SuppressMessageAttribute('PSUseShouldProcessForStateChangingFunctions', '', Justification = 'Fills an object only')]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $given = $Change.Parameter['overrides']
    if ($null -eq $given -or $given.Count -eq 0) {
        return
    }
    $values = New-Object -TypeName 'System.Collections.Generic.Dictionary[string,string]'
    foreach ($path in $given.Keys) {
        $value = $given[$path]
        if ($null -eq $value -or $value -is [System.Collections.IDictionary] -or $value -is [System.Collections.IList]) {
            throw "overrides: $($path): give a text, a number or true and false. Nothing was changed."
        }
        if ($value -is [bool]) {
            $value = ([string]$value).ToLowerInvariant()
        }
        $values.Add($path, [string]::Format([System.Globalization.CultureInfo]::InvariantCulture, '{0}', $value))
    }
    try {
        $bytes = [WebfarmOverride]::Apply($Change.Candidate, $values)
        if (-not [object]::ReferenceEquals($bytes, $Change.Candidate.Bytes)) {
            $Change.Candidate = [WebfarmConfiguration]::Parse($bytes, $Change.Candidate.Name)
        }
    }
    catch {
        throw "$(Get-WebfarmSentence -ErrorRecord $_) Nothing was changed."
    }
    $Change.Override = $values
}

Function Set-WebfarmBackup {
    <#
    .SYNOPSIS
    Names the copy of the old applicationHost.config where one is wanted.

    .PARAMETER Change
    From New-WebfarmChange.
    #>
    [CmdletBinding()]
    [System.Diagnostics.CodeAnalysis.SuppressMessageAttribute('PSUseShouldProcessForStateChangingFunctions', '', Justification = 'Fills an object only')]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    if ($Change.Parameter['backup']) {
        $stamp = [DateTime]::UtcNow.ToString('yyyyMMdd-HHmmss', [System.Globalization.CultureInfo]::InvariantCulture)
        $Change.File.backup = "$($Change.File.path).$stamp.bak"
    }
}

Function Assert-WebfarmUrl {
    <#
    .SYNOPSIS
    Throws for a URL in verify_urls that cannot be asked.

    .PARAMETER Url
    The option verify_urls.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [AllowNull()]
        [object[]]
        $Url = @()
    )

    foreach ($item in $Url) {
        $uri = $null
        $good = [Uri]::TryCreate($item.url, [UriKind]::Absolute, [ref]$uri)
        if (-not $good -or @('http', 'https') -notcontains $uri.Scheme) {
            throw "verify_urls: '$($item.url)' is not an http or https URL. Nothing was changed."
        }
        if (@($item.status).Count -eq 0) {
            throw "verify_urls: '$($item.url)' has an empty list of status codes. Nothing was changed."
        }
    }
}

Function Read-WebfarmChangeKey {
    <#
    .SYNOPSIS
    Compares the planned keys with those of the host, and opens the ones that arrived.

    .PARAMETER Change
    From New-WebfarmChange.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $given = $Change.Parameter
    $query = @{
        Planned = @($given._planned)
        Exportable = $given.exportable
        WmsvcInstalled = Test-WebfarmServiceInstalled -Name WMSVC
    }
    $Change.Plan = @(Get-WebfarmKeyPlan @query)
    $Change.Import = @($Change.Plan | Where-Object -FilterScript { $_.changed })
    foreach ($entry in $Change.Import) {
        if ($entry.dropped_sids.Count -gt 0) {
            $Change.Warning.Add("Entries of the source's access list for $($entry.container) were left out here: $($entry.dropped_sids -join '; ').")
        }
    }
    $Change.Result.key_containers = @(
        foreach ($entry in $Change.Plan) {
            [ordered]@{
                container = $entry.container
                store = $entry.store
                before = $entry.before
                after = $entry.after
                changed = $entry.changed
                dropped_sids = $entry.dropped_sids
            }
        }
    )
    if ($Change.Applying) {
        try {
            $Change.KeySet = Open-WebfarmSealedKey -Plan $Change.Plan -Sealed ([string]$given._sealed) -Transport $Change.Transport
        }
        catch {
            throw "$(Get-WebfarmSentence -ErrorRecord $_) Nothing was changed."
        }
        Remove-WebfarmChangeTransport -Change $Change
    }
    elseif ($Change.Import.Count -eq 0) {
        $Change.KeySet = New-Object -TypeName WebfarmKeySet
    }
    else {
        $Change.Pending = @($Change.Import | ForEach-Object -Process { $_.container })
    }
}

Function Remove-WebfarmChangeTransport {
    <#
    .SYNOPSIS
    Deletes the transport container as soon as it is not needed any more.

    .PARAMETER Change
    From New-WebfarmChange.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    if ($Change.Transport -and $PSCmdlet.ShouldProcess($Change.Transport, 'delete')) {
        $name = $Change.Transport
        $Change.Transport = ''
        Remove-WebfarmTransport -Name $name
    }
}

Function Assert-WebfarmNotRunning {
    <#
    .SYNOPSIS
    Throws when keys are to be replaced while their consumers run, by a module that does not stop them.

    .PARAMETER Change
    From New-WebfarmChange.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    if ($Change.Import.Count -gt 0) {
        $running = @(Get-WebfarmRunningConsumer -Name 'WAS', 'W3SVC', 'WMSVC', 'FTPSVC')
        if ($running.Count -gt 0) {
            throw "Keys are not replaced while $($running -join ', ') run: they hold the old ones open. Nothing was changed. " +
            'Change keys and configuration of a server in service together with webfarm.iis.config, or stop the services, or set allow_running.'
        }
    }
}

Function Confirm-WebfarmChange {
    <#
    .SYNOPSIS
    Throws unless everything that can be proven now is proven: values, readers, and what else depends on the keys.

    .PARAMETER Change
    From New-WebfarmChange.

    .PARAMETER RenewSession
    Make new session keys for the changing keys even where dependents are not to be touched.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change,

        [Parameter()]
        [switch]
        $RenewSession
    )

    $needed = @()
    if ($null -ne $Change.Candidate) {
        $needed = Confirm-WebfarmCandidate -Change $Change
        if ($Change.Parameter.ContainsKey('accept_unfit') -or $Change['OwnPast']) {
            $fit = @{
                Candidate = $Change.Candidate
                Present = $Change.Live
                Changes = $Change.Import.Count -gt 0 -or $Change.File.before_sha256 -ne $Change.File.after_sha256
                OwnPast = [bool]$Change['OwnPast']
                Accepted = $Change.Parameter['accept_unfit']
                Result = $Change.Result
                Warning = $Change.Warning
            }
            Confirm-WebfarmFit @fit
        }
    }
    $readers = @{
        Container = $needed
        Plan = @($Change.Plan | Where-Object -FilterScript { $_.after.state -ne 'missing' })
        Warning = $Change.Warning
        WmsvcInstalled = Test-WebfarmServiceInstalled -Name WMSVC
    }
    $problems = @(Get-WebfarmReaderProblem @readers)
    if ($problems.Count -gt 0) {
        throw "Not everyone who must read the keys could: $($problems -join ' ') Nothing was changed."
    }
    Confirm-WebfarmDependent -Change $Change -RenewSession:$RenewSession
}

Function Confirm-WebfarmDependent {
    <#
    .SYNOPSIS
    Finds what the old keys open and the change does not carry along. Throws, or prepares it to be encrypted anew.

    .PARAMETER Change
    From New-WebfarmChange.

    .PARAMETER RenewSession
    Make new session keys for the changing keys even where dependents are not to be touched.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change,

        [Parameter()]
        [switch]
        $RenewSession
    )

    $result = $Change.Result
    $result.dependent_values = @()
    $result.dependent_files = @()
    $result.reencrypted = @()
    $result.lost = @()
    $changing = @($Change.Import | Where-Object -FilterScript { $_.before.fingerprint -ne $_.after.fingerprint })
    $removed = @($changing | Where-Object -FilterScript { $_.after.state -eq 'missing' } | ForEach-Object -Process { $_.container })
    $anew = $Change.Parameter.dependents -eq 'reencrypt'
    if ($changing.Count -eq 0 -and ($null -eq $Change.Candidate -or $Change.SameContent)) {
        return
    }
    $query = @{
        KeySet = $Change.KeySet
        Changing = @($changing | ForEach-Object -Process { $_.container })
        Blind = @($Change.Pending) + $removed
        Before = $Change.Live
        After = $Change.Live
        Warning = $Change.Warning
    }
    if ($null -eq $query.KeySet) {
        $query.KeySet = New-Object -TypeName WebfarmKeySet
    }
    if ($null -ne $Change.Candidate) {
        $query.After = $Change.Candidate
        $query.Exclude = 'applicationHost.config'
    }
    $found = Get-WebfarmDependent @query
    foreach ($fact in $found.Session) {
        # Without its key a provider is of no use, also where it protects nothing at present.
        if ($removed -contains $fact.container -and $fact.verdict -eq 'ok') {
            $found.Broken.Add($fact)
        }
    }
    $result.dependent_values = @($found.Broken.ToArray()) + @($found.Section.ToArray())
    $lost = New-Object -TypeName System.Collections.Generic.List[object]
    $lost.AddRange($found.Lost)
    if ($anew -and $removed.Count -eq 0) {
        $broken = @()
    }
    else {
        $broken = @($found.Broken | Where-Object -FilterScript { -not $Change.Accepted.ContainsKey($_.path) })
    }
    if ($broken.Count -gt 0) {
        $way = 'Set dependents to reencrypt to have them encrypted anew in the same transaction, or list those that will be entered again ' +
        'in accept_undecryptable with the reason.'
        if ($removed.Count -gt 0) {
            $way = 'Remove them, or let them use another provider; or list those that are to be given up in accept_undecryptable with the reason.'
        }
        throw "$($broken.Count) protected values that open now would not open after the change: $(Format-WebfarmDependent -Fact $broken). " +
        "Nothing was changed. $way"
    }
    $sections = @($found.Section | Where-Object -FilterScript { -not $Change.Accepted.ContainsKey($_.path) })
    if ($sections.Count -gt 0) {
        throw "$($sections.Count) sections that ASP.NET encrypted depend on the key: $(Format-WebfarmDependent -Fact $sections). Nothing was changed. " +
        'Decrypt them with aspnet_regiis -pd before and encrypt them after the change, or list them in accept_undecryptable with the reason.'
    }
    $update = @()
    if ($removed.Count -eq 0 -and ($anew -or $RenewSession)) {
        $update = $found.Item.ToArray()
    }
    if ($Change.Pending.Count -eq 0) {
        Update-WebfarmDependent -Change $Change -Item $update -After $query.After -Lost $lost
    }
    else {
        if ($anew) {
            $result.reencrypted = $found.Broken.ToArray()
        }
        $result.dependent_files = @(
            foreach ($item in $update) {
                [ordered]@{ path = $item.path; before = $item.before_sha256; after = $null; changed = $true }
            }
        )
        if ($found.Unknown.Count -gt 0) {
            $list = Format-WebfarmDependent -Fact $found.Unknown
            $Change.Warning.Add("$($found.Unknown.Count) protected values do not open with the present keys: $list. " +
                'Whether the new keys open them shows when these are there; otherwise they have to be entered again.')
        }
    }
    Confirm-WebfarmLost -Change $Change -Lost $lost.ToArray() -Strict ($anew -or $RenewSession)
    if (-not $anew -and -not $RenewSession) {
        foreach ($fact in $found.Session) {
            if ($fact.verdict -eq 'ok') {
                $Change.Warning.Add("The session key of $($fact.provider) in $($fact.file) will not open with the new key of $($fact.container). " +
                    'No value needs it now, but IIS cannot encrypt new ones with it. Set dependents to reencrypt to give it a new one.')
            }
        }
    }
}

Function Update-WebfarmDependent {
    <#
    .SYNOPSIS
    Encrypts what depends on the keys anew, in memory, and adds it to the change.

    .PARAMETER Change
    From New-WebfarmChange.

    .PARAMETER Item
    What is to be encrypted anew.

    .PARAMETER After
    applicationHost.config as it will be, unless it is among the items.

    .PARAMETER Lost
    A list that receives the values that nothing opens.
    #>
    [CmdletBinding()]
    [System.Diagnostics.CodeAnalysis.SuppressMessageAttribute('PSUseShouldProcessForStateChangingFunctions', '', Justification = 'Fills an object only')]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change,

        [Parameter()]
        [object[]]
        $Item = @(),

        [Parameter(Mandatory = $true)]
        [object]
        $After,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[object]]
        $Lost
    )

    $more = New-Object -TypeName System.Collections.Generic.List[object]
    $after = $After
    $Change.Result.reencrypted = @(
        # applicationHost.config comes first: the others take providers from it.
        foreach ($one in $Item) {
            Update-WebfarmContentItem -Item $one -KeySet $Change.KeySet -Before $Change.Live -After $after -Lost $more
            if ($one.name -eq 'applicationHost.config') {
                $after = $one.after_file
            }
        }
    )
    $known = @($Lost | ForEach-Object -Process { "$($_.file) $($_.path)" })
    foreach ($fact in $more) {
        if ($known -cnotcontains "$($fact.file) $($fact.path)") {
            $Lost.Add($fact)
        }
    }
    $Change.Dependent = @($Item | Where-Object -FilterScript { $_.after_sha256 -ne $_.before_sha256 })
    $Change.Result.dependent_files = @(
        foreach ($one in $Change.Dependent) {
            [ordered]@{
                path = $one.path
                before = $one.before_sha256
                after = $one.after_sha256
                changed = $true
            }
        }
    )
}

Function Confirm-WebfarmLost {
    <#
    .SYNOPSIS
    Reports the values that neither the old nor the new keys open. Throws for those that are not accepted.

    .PARAMETER Change
    From New-WebfarmChange.

    .PARAMETER Lost
    The values.

    .PARAMETER Strict
    The files they are in are written: what opened them once would be gone. Otherwise they are left as they are, and it is a warning.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change,

        [Parameter()]
        [object[]]
        $Lost = @(),

        [Parameter(Mandatory = $true)]
        [bool]
        $Strict
    )

    $Change.Result.lost = $Lost
    $open = @($Lost | Where-Object -FilterScript { -not $Change.Accepted.ContainsKey($_.path) })
    if ($Strict -and $open.Count -gt 0) {
        throw "$($open.Count) protected values open neither with the present keys nor with the new ones: $(Format-WebfarmDependent -Fact $open). " +
        'Nothing was changed. They have to be entered again after the change: list them in accept_undecryptable with the reason, ' +
        'or bring back the key that opens them first.'
    }
    foreach ($fact in $open) {
        $Change.Warning.Add("$(Format-WebfarmDependent -Fact $fact) opens neither with the present key nor with the new one.")
    }
}

Function Confirm-WebfarmCandidate {
    <#
    .SYNOPSIS
    Proves the candidate with the keys that the host will hold; returns the containers that it needs.

    .PARAMETER Change
    From New-WebfarmChange.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $query = @{
        File = $Change.Candidate
        KeySet = $Change.KeySet
        Pending = $Change.Pending
        Accepted = $Change.Accepted
        Warning = $Change.Warning
    }
    $proof = Get-WebfarmCandidateProof @query
    $Change.Result.protected_values = $proof.Values.ToArray()
    $Change.Result.proof = [ordered]@{
        method = 'target'
        proven = $proof.Proven
        total = $proof.Values.Count
        accepted = $proof.Accepted
    }
    $Change.Result._pending = $proof.Pending.ToArray()
    $inUse = @($proof.Values | Where-Object -FilterScript { $_.accepted -or $_.verdict -eq 'pending' } | ForEach-Object -Process { $_.path })
    $here = @($proof.Values | ForEach-Object -Process { $_.path })
    foreach ($listed in $Change.Accepted.Keys) {
        # Where keys change, the path may mean a value of another file.
        if ($inUse -cnotcontains $listed -and ($here -ccontains $listed -or $Change.Import.Count -eq 0)) {
            $Change.Warning.Add("accept_undecryptable: $listed decrypts, or is not in $($Change.Candidate.Name).")
        }
    }
    $Change.SameContent = $false
    if ($Change.Import.Count -eq 0) {
        $Change.SameContent = [WebfarmProtection]::SameContent($Change.Live, $null, $Change.Candidate, $null)
        if ($Change.SameContent) {
            # The same secrets in other words are no reason to stop a server.
            $Change.File.after = $Change.File.before
            $Change.File.after_sha256 = $Change.File.before_sha256
        }
    }
    $Change.Result.configuration_file = [ordered]@{
        path = $Change.File.path
        before = $Change.File.before_sha256
        after = $Change.File.after_sha256
        changed = $Change.File.before_sha256 -ne $Change.File.after_sha256
    }
    if ($proof.Problems.Count -gt 0) {
        $portable = ''
        if (@($proof.Problems | Where-Object -FilterScript { $_.kind -eq 'cng' }).Count -gt 0) {
            $portable = 'CNG keys do not leave their server: on the server that wrote these values, webfarm.iis.config_rewrap with cng=portable ' +
            'makes a candidate that needs none. '
        }
        throw "$($Change.Candidate.Name) was refused: $($proof.Problems.Count) of $($proof.Values.Count) protected values could not be opened on this host. " +
        "$(Format-WebfarmProblem -Problem $proof.Problems.ToArray()) ${portable}Nothing was changed."
    }
    return $proof.Needed.ToArray()
}

Function Confirm-WebfarmOwnFile {
    <#
    .SYNOPSIS
    Where the server keeps its own configuration: reports its values and what becomes of the file.

    .PARAMETER Change
    From New-WebfarmChange, after Confirm-WebfarmChange.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $item = $Change.Dependent | Where-Object -FilterScript { $_.name -eq 'applicationHost.config' }
    $file = $Change.Live
    $after = $Change.Live.Sha256
    $path = [System.IO.Path]::Combine((Get-WebfarmConfigurationFolder), 'applicationHost.config')
    $planned = @($Change.Result.dependent_files | Where-Object -FilterScript { $_.path -eq $path })
    if ($null -ne $item) {
        $Change.File = $item
        Set-WebfarmBackup -Change $Change
        $file = $item.after_file
        $after = $item.after_sha256
    }
    elseif ($planned.Count -gt 0) {
        $after = $null
    }
    $query = @{
        File = $file
        KeySet = $Change.KeySet
        Pending = $Change.Pending
        Accepted = $Change.Accepted
        Warning = New-Object -TypeName System.Collections.Generic.List[string]
    }
    $proof = Get-WebfarmCandidateProof @query
    $Change.Result.protected_values = $proof.Values.ToArray()
    $Change.Result.proof = [ordered]@{
        method = 'target'
        proven = $proof.Proven
        total = $proof.Values.Count
        accepted = $proof.Accepted
    }
    $Change.Result.configuration_file = [ordered]@{
        path = $path
        before = $Change.Live.Sha256
        after = $after
        changed = $Change.Live.Sha256 -ne $after
    }
    if ($proof.Problems.Count -gt 0) {
        $Change.Warning.Add("$($proof.Problems.Count) protected values of the server's own configuration do not open, whatever keys change: " +
            (Format-WebfarmProblem -Problem $proof.Problems.ToArray()))
    }
}

Function Set-WebfarmChangeDiff {
    <#
    .SYNOPSIS
    Describes the change for diff mode: fingerprints, hashes and attribute paths, never a value.

    .PARAMETER Change
    From New-WebfarmChange.
    #>
    [CmdletBinding()]
    [System.Diagnostics.CodeAnalysis.SuppressMessageAttribute('PSUseShouldProcessForStateChangingFunctions', '', Justification = 'Fills an object only')]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $before = [ordered]@{ key_containers = [ordered]@{} }
    $after = [ordered]@{ key_containers = [ordered]@{} }
    foreach ($entry in $Change.Plan) {
        $before.key_containers[$entry.container] = [string]$entry.before.fingerprint
        $after.key_containers[$entry.container] = [string]$entry.after.fingerprint
    }
    foreach ($shown in $Change.Result.key_containers) {
        if ($shown['generated'] -and -not $shown.after.fingerprint) {
            $after.key_containers[$shown.container] = 'a new key'
        }
    }
    if ($null -ne $Change.Candidate) {
        $new = $Change.Candidate
        if ($Change.SameContent) {
            $new = $Change.Live
        }
        $before.configuration_file = [ordered]@{
            sha256 = $Change.Live.Sha256
            protected_values = @($Change.Live.Values | ForEach-Object -Process { "$($_.Path) [$($_.Provider)]" })
        }
        $after.configuration_file = [ordered]@{
            sha256 = $new.Sha256
            protected_values = @($new.Values | ForEach-Object -Process { "$($_.Path) [$($_.Provider)]" })
        }
    }
    if ($null -ne $Change.Override) {
        # Set-WebfarmOverride refuses what is encrypted or meant to be, so that these values are no secrets.
        $before.overrides = [ordered]@{}
        $after.overrides = [ordered]@{}
        foreach ($path in $Change.Override.Keys) {
            $old = [WebfarmOverride]::Value($Change.Live, $path)
            if ("$old".StartsWith('[enc:')) {
                $old = '(protected)'
            }
            $before.overrides[$path] = $old
            $after.overrides[$path] = $Change.Override[$path]
        }
    }
    if ($Change.Result['dependent_files']) {
        $before.dependent_files = [ordered]@{}
        $after.dependent_files = [ordered]@{}
        foreach ($file in $Change.Result.dependent_files) {
            $before.dependent_files[$file.path] = [string]$file.before
            $after.dependent_files[$file.path] = [string]$file.after
        }
        $after.reencrypted = @($Change.Result.reencrypted | ForEach-Object -Process { "$($_.file): $($_.path)" })
    }
    $Change.Diff = @{
        before = $before
        after = $after
    }
}

Function Invoke-WebfarmChange {
    <#
    .SYNOPSIS
    Does what is to be done: nothing, ask for the keys, or the transaction. Fills in the result; throws when it was not done.

    .PARAMETER Change
    From New-WebfarmChange.

    .PARAMETER InService
    Stop, start and check the services around the change.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change,

        [Parameter()]
        [switch]
        $InService
    )

    Set-WebfarmChangeDiff -Change $Change
    $result = $Change.Result
    $fileChanges = $null -ne $Change.File -and $Change.File.before_sha256 -ne $Change.File.after_sha256
    $changes = $fileChanges -or $Change.Import.Count -gt 0 -or $Change.Dependent.Count -gt 0
    $result._import = @($Change.Pending)
    $result._final = $true
    if ($null -ne $Change.Live) {
        $result._expected_sha256 = $Change.Live.Sha256
    }
    if ($Change.CheckMode) {
        if ($changes) {
            $result.changed = $true
        }
        $result._final = $null -eq $result['_pending'] -or $result._pending.Count -eq 0
        return
    }
    if (-not $changes) {
        Move-WebfarmOldLeftover -Change $Change
        return
    }
    if ($Change.Pending.Count -gt 0) {
        $result._final = $false
        $result._transport = New-WebfarmTransport
        $result.changed = $true
        return
    }
    $given = $Change.Parameter
    $option = @{
        stop_timeout = $given['stop_timeout']
        start_timeout = $given['start_timeout']
        start_services = $given['start_services']
        warm_up = $given['warm_up']
        verify_urls = @($given['verify_urls'])
        deadman_minutes = $given['deadman_minutes']
        settler = $given['_settler']
        undo_expiry_hours = $given.undo_expiry_hours
        without_undo = $given.without_undo
        repair = $Change.Repair
        unreadable = $Change.Unreadable
        prior_backups = $given['prior_backups']
        accepted = $Change.Accepted
        check = Get-WebfarmLogonCheck -Parameter $given
    }
    $files = @($Change.Dependent)
    if ($null -ne $Change.Candidate) {
        $files = @($Change.File) + $files
    }
    $report = Invoke-WebfarmTransaction -Plan $Change.Import -KeySet $Change.KeySet -File $files -InService:$InService -Option $option
    Add-WebfarmReport -Change $Change -Report $report -InService $InService
    if ($report.Outcome -ne 'committed') {
        throw $report.Message
    }
}

Function Move-WebfarmOldLeftover {
    <#
    .SYNOPSIS
    Where nothing else changes: moves an old applicationHost.config.tmp out of the way of WAS.

    .PARAMETER Change
    From New-WebfarmChange.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    if ($null -eq $Change.File) {
        return
    }
    $leftover = "$($Change.File.path).tmp"
    if ([System.IO.File]::Exists($leftover) -and
        ([DateTime]::UtcNow - [System.IO.File]::GetLastWriteTimeUtc($leftover)).TotalSeconds -gt $script:leftoverSeconds) {
        $steps = New-Object -TypeName System.Collections.Generic.List[string]
        Move-WebfarmLeftover -Path $Change.File.path -Steps $steps
        $Change.Result.steps = $steps.ToArray()
        $Change.Result.changed = $true
    }
}

Function Add-WebfarmReport {
    <#
    .SYNOPSIS
    Copies the report of the transaction into the result.

    .PARAMETER Change
    From New-WebfarmChange.

    .PARAMETER Report
    From Invoke-WebfarmTransaction.

    .PARAMETER InService
    Services were part of it.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change,

        [Parameter(Mandatory = $true)]
        [object]
        $Report,

        [Parameter()]
        [bool]
        $InService
    )

    $result = $Change.Result
    $backup = $null
    if ($Report.Backup) {
        $backup = $Report.Backup
    }
    $expires = $null
    if ($Report.UndoFolder) {
        $expires = ConvertTo-WebfarmTimeText -Time ([DateTimeOffset]::FromUnixTimeSeconds($Report.UndoExpires).UtcDateTime)
    }
    $result.transaction = [ordered]@{
        id = $Report.Id
        outcome = $Report.Outcome
        backup = $backup
        undo_folder = $Report.UndoFolder
        undo_expires = $expires
    }
    $result.steps = $Report.Steps
    if ($InService) {
        $result.services = @(ConvertTo-WebfarmChangeList -Before $Report.Before.services -After $Report.After.services -Property status)
        $result.app_pools = @(ConvertTo-WebfarmChangeList -Before $Report.Before.pools -After $Report.After.pools -Property state)
        $result.sites = @(ConvertTo-WebfarmChangeList -Before $Report.Before.sites -After $Report.After.sites -Property state)
    }
    foreach ($text in $Report.Warnings) {
        $Change.Warning.Add($text)
    }
    if ($null -ne $Change.File -and $Change.File.backup -and [System.IO.File]::Exists($Change.File.backup)) {
        $result.backup_file = $Change.File.backup
    }
    if (@('committed', 'rollback_failed') -contains $Report.Outcome) {
        $result.changed = $true
    }
}

Function Close-WebfarmChange {
    <#
    .SYNOPSIS
    Zeroes the keys, deletes the transport container, gives the host free. Never throws.

    .PARAMETER Change
    From New-WebfarmChange.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    if ($null -ne $Change.KeySet) {
        $Change.KeySet.Dispose()
    }
    if ($Change.Placeholder -and [System.IO.File]::Exists($Change.Placeholder) -and $null -ne $Change.Live -and
        [WebfarmKeyContainer]::Sha256([System.IO.File]::ReadAllBytes($Change.Placeholder)) -eq $Change.Live.Sha256) {
        [System.IO.File]::Delete($Change.Placeholder)
    }
    if ($Change.Applying) {
        try {
            Remove-WebfarmChangeTransport -Change $Change
        }
        catch {
            $Change.Warning.Add("$(Get-WebfarmErrorText -ErrorRecord $_) A later run deletes it.")
        }
    }
    Exit-WebfarmRun -Run $Change.Run
}

Export-ModuleMember -Function @(
    'Add-WebfarmReport'
    'Assert-WebfarmNotRunning'
    'Close-WebfarmChange'
    'Confirm-WebfarmChange'
    'Confirm-WebfarmOwnFile'
    'Invoke-WebfarmChange'
    'New-WebfarmChange'
    'Open-WebfarmChange'
    'Read-WebfarmChangeFile'
    'Read-WebfarmChangeKey'
)
