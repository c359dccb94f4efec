# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# The CNG keys of IIS are made by its setup alone (iissetup.exe /install SharedLibraries), which makes what is missing and leaves what is
# there. So the old key file goes aside under another name, with its access list, until the new key has been tried; everything else that
# setup might touch (CryptoAPI keys, configuration files) is in the undo set. Not verified on Windows.

#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._BackupFolder
#AnsibleRequires -PowerShell ..module_utils._Dependent
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Journal
#AnsibleRequires -PowerShell ..module_utils._KeyPlan
#AnsibleRequires -PowerShell ..module_utils._OwnKey
#AnsibleRequires -PowerShell ..module_utils._Service

$script:cngContainers = @('iisCngWasKey', 'iisCngConfigurationKey')
$script:aside = '.webfarm-old'

Function Assert-WebfarmKeyMethod {
    <#
    .SYNOPSIS
    Throws where the options do not fit the way in which the key is made.

    .PARAMETER Parameter
    The parameters of the module.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Parameter
    )

    if ($Parameter.method -ne 'iis_setup') {
        return
    }
    if ($script:cngContainers -notcontains $Parameter.container) {
        throw "method: IIS's own setup is for $($script:cngContainers -join ' and ') only. Leave method out for $($Parameter.container)."
    }
    if ($Parameter.state -eq 'absent') {
        throw "state: $($Parameter.container) is a key of IIS itself and is not deleted here."
    }
    foreach ($name in 'access', 'exportable', 'size') {
        if ($null -ne $Parameter.$name) {
            throw "${name}: IIS's own setup decides that for $($Parameter.container). Leave it out with method=iis_setup."
        }
    }
}

Function Get-WebfarmCngKeyPath {
    <#
    .SYNOPSIS
    Returns the path that the file of a CNG key has by the naming rule.

    .PARAMETER Fact
    From Get-WebfarmContainerFact.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Fact
    )

    return [System.IO.Path]::Combine([WebfarmKeyContainer]::Folder('cng'), $Fact.file_expected)
}

Function Restore-WebfarmCngKeyFile {
    <#
    .SYNOPSIS
    Puts a key file that went aside back under its name, in place of one that setup may have made. Returns whether there was one.

    .PARAMETER Path
    The path of the key file.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    [OutputType([bool])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Path
    )

    $old = "$Path$script:aside"
    if (-not [System.IO.File]::Exists($old) -or -not $PSCmdlet.ShouldProcess($Path, 'put the old key file back')) {
        return $false
    }
    if ([System.IO.File]::Exists($Path)) {
        [System.IO.File]::Delete($Path)
    }
    # Within one folder, so that the access list stays.
    [System.IO.File]::Move($old, $Path)
    return $true
}

Function Invoke-WebfarmIisSetup {
    <#
    .SYNOPSIS
    Runs IIS's own setup for the shared libraries. Throws when it cannot be run, does not end, or fails.

    .PARAMETER TimeoutSeconds
    When to give up.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [int]
        $TimeoutSeconds
    )

    $program = Get-WebfarmIisSetupPath
    $start = New-Object -TypeName System.Diagnostics.ProcessStartInfo
    $start.FileName = $program
    $start.Arguments = '/install SharedLibraries'
    $start.UseShellExecute = $false
    $start.CreateNoWindow = $true
    $process = [System.Diagnostics.Process]::Start($start)
    try {
        if (-not $process.WaitForExit($TimeoutSeconds * 1000)) {
            $process.Kill()
            $null = $process.WaitForExit(10000)
            throw "$program did not end within $TimeoutSeconds seconds (stop_timeout) and was ended. See %windir%\iis.log."
        }
        if ($process.ExitCode -ne 0) {
            throw "$program ended with $($process.ExitCode). See %windir%\iis.log."
        }
    }
    finally {
        $process.Dispose()
    }
}

Function Get-WebfarmIisSetupPath {
    <#
    .SYNOPSIS
    Returns the path of IIS's setup; throws when it is not there.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param ()

    $program = [System.IO.Path]::Combine([Environment]::SystemDirectory, 'inetsrv', 'iissetup.exe')
    if (-not [System.IO.File]::Exists($program)) {
        throw "$program does not exist. It belongs to IIS (Web-Server); nothing was changed."
    }
    return $program
}

Function Test-WebfarmCngKey {
    <#
    .SYNOPSIS
    Throws unless a text that is encrypted with a CNG key opens again. Nothing is written.

    .PARAMETER Container
    The name of the key.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container
    )

    $text = '<configuration><configProtectedData><providers><add name="Probe" type="Microsoft.ApplicationHost.CngProtectedConfigurationProvider" ' +
    "keyContainerName=""$Container"" useMachineContainer=""true"" /></providers></configProtectedData><probe password=""[enc:Probe::enc]"" /></configuration>"
    $file = [WebfarmConfiguration]::Parse([System.Text.Encoding]::UTF8.GetBytes($text), 'probe')
    $bytes = [WebfarmProtection]::SetValue($file, $null, 'probe/@password', 'Probe', [Guid]::NewGuid().ToString())
    foreach ($verdict in [WebfarmProtection]::Prove([WebfarmConfiguration]::Parse($bytes, 'probe'), $null)) {
        if ($verdict.Verdict -ne 'ok') {
            throw "What the new key $Container encrypts does not open again ($($verdict.Verdict)): $($verdict.ErrorMessage)"
        }
    }
}

Function Read-WebfarmCngSetup {
    <#
    .SYNOPSIS
    Decides whether setup is to make the key, and throws where that may not be done. Returns the fact of the key as it is, and Generate.

    .PARAMETER Change
    From New-WebfarmChange, after Read-WebfarmChangeFile.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $given = $Change.Parameter
    $name = $given.container
    $null = Get-WebfarmIisSetupPath
    $fact = Get-WebfarmContainerFact -Container $name -Store cng
    $path = Get-WebfarmCngKeyPath -Fact $fact
    if ([System.IO.File]::Exists("$path$script:aside")) {
        if ($Change.CheckMode) {
            $Change.Warning.Add("An interrupted run left the old key of $name aside. A run without check mode puts it back first.")
        }
        else {
            $null = Restore-WebfarmCngKeyFile -Path $path
            $Change.Result.changed = $true
            $Change.Warning.Add("An interrupted run had left the old key of $name aside; it was put back.")
            $fact = Get-WebfarmContainerFact -Container $name -Store cng
        }
    }
    if ($fact.state -eq 'denied') {
        throw "The key $name is denied: $($fact.message) $($fact.fix) Nothing was changed."
    }
    $decision = Get-WebfarmRegeneration -Regenerate $given.regenerate -State $fact.state -Conform $true
    if ($decision -eq 'fail') {
        throw "The key $name cannot be read: $($fact.message) $($fact.cause) Nothing was changed. " +
        'To replace it by a new one, set regenerate to full_idempotence.'
    }
    $plan = @{ Fact = $fact; Path = $path; Generate = $decision -eq 'generate'; CryptoApi = @() }
    if (-not $plan.Generate) {
        return $plan
    }
    foreach ($other in 'iisWasKey', 'iisConfigurationKey') {
        $info = [WebfarmKeyContainer]::Inspect($other, 'cryptoapi')
        if ($info.State -ne 'present') {
            throw "$other is $($info.State), and IIS's setup would make that key as well, without session keys that fit. Nothing was changed. " +
            "Bring or make $other first (key_import, config or this module)."
        }
        $state = ConvertTo-WebfarmKeyState -Info $info
        # Kept in the undo set: setup is not expected to touch it.
        $plan.CryptoApi += [ordered]@{
            container = $other
            store = 'cryptoapi'
            before = $state
            after = $state
            changed = $true
            key_changes = $true
            created = $false
            sddl = [string]$info.Sddl
            new_sddl = ''
            file_path = [string]$info.FilePath
        }
    }
    Confirm-WebfarmCngUnused -Change $Change
    return $plan
}

Function Confirm-WebfarmCngUnused {
    <#
    .SYNOPSIS
    Throws where a value of this host needs the present CNG key, or is lost and not accepted. Fills in dependent_values and lost.

    .PARAMETER Change
    From New-WebfarmChange.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $name = $Change.Parameter.container
    $query = @{
        KeySet = New-Object -TypeName WebfarmKeySet
        Changing = @($name)
        Blind = @($name)
        Before = $Change.Live
        After = $Change.Live
        Warning = $Change.Warning
    }
    $found = Get-WebfarmDependent @query
    $Change.Result.dependent_values = $found.Broken.ToArray()
    $Change.Result.lost = $found.Unknown.ToArray()
    if ($found.Broken.Count -gt 0) {
        throw "$($found.Broken.Count) protected values open with the present $($name): $(Format-WebfarmDependent -Fact $found.Broken.ToArray()). " +
        'Nothing was changed. A key that setup makes is not there before, so that they cannot be carried along: make the configuration portable ' +
        '(config_rewrap with cng=portable, then config), or set them under another provider (secret).'
    }
    $open = @($found.Unknown | Where-Object -FilterScript { -not $Change.Accepted.ContainsKey($_.path) })
    if ($open.Count -gt 0) {
        throw "$($open.Count) protected values under $name do not open, and will not with a new key: $(Format-WebfarmDependent -Fact $open). " +
        'Nothing was changed. They have to be entered again after the change: list them in accept_undecryptable with the reason, ' +
        'or bring back the key file that opens them.'
    }
}

Function New-WebfarmCngUndoSet {
    <#
    .SYNOPSIS
    Keeps the CryptoAPI keys and the three configuration files, as a transaction does, so that any later run puts them back after a crash.

    .PARAMETER Change
    From New-WebfarmChange.

    .PARAMETER Plan
    From Read-WebfarmCngSetup.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change,

        [Parameter(Mandatory = $true)]
        [hashtable]
        $Plan
    )

    if (-not $PSCmdlet.ShouldProcess($Plan.Path, 'make undo set')) {
        return
    }
    $given = $Change.Parameter
    $folder = Get-WebfarmConfigurationFolder
    $undo = @{
        Plan = $Plan.CryptoApi
        File = @(
            foreach ($name in 'applicationHost.config', 'administration.config', 'redirection.config') {
                New-WebfarmContentItem -Path ([System.IO.Path]::Combine($folder, $name)) -Name $name
            }
        )
        # Without a way back, setup is not run.
        Option = @{
            stop_timeout = $given.stop_timeout
            start_timeout = $given.start_timeout
            start_services = $given.start_services
            warm_up = $given.warm_up
            verify_urls = @()
            undo_expiry_hours = $given.undo_expiry_hours
            without_undo = $false
        }
        Warning = $Change.Warning
    }
    return New-WebfarmUndoSet @undo
}

Function Undo-WebfarmCngSetup {
    <#
    .SYNOPSIS
    Puts back what was before setup ran. Returns what did not succeed.

    .PARAMETER Plan
    From Read-WebfarmCngSetup.

    .PARAMETER Run
    From New-WebfarmCngUndoSet.

    .PARAMETER Warning
    A list that receives warnings.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Plan,

        [Parameter(Mandatory = $true)]
        [hashtable]
        $Run,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    if (-not $PSCmdlet.ShouldProcess($Plan.Path, 'undo')) {
        return
    }
    try {
        if (-not (Restore-WebfarmCngKeyFile -Path $Plan.Path) -and $Plan.Fact.state -eq 'missing' -and [System.IO.File]::Exists($Plan.Path)) {
            [System.IO.File]::Delete($Plan.Path)
        }
    }
    catch {
        "$($Plan.Path): $(Get-WebfarmErrorText -ErrorRecord $_)"
    }
    foreach ($saved in $Run.Journal.keys) {
        try {
            Restore-WebfarmKey -Saved $saved -Journal $Run.Journal -Kept $Run.Kept -Warning $Warning
        }
        catch {
            "the key $($saved.container): $(Get-WebfarmErrorText -ErrorRecord $_)"
        }
    }
    foreach ($saved in $Run.Journal.files) {
        try {
            Restore-WebfarmFile -Saved $saved -Journal $Run.Journal -Kept $Run.Kept -Warning $Warning
        }
        catch {
            "$($saved.path): $(Get-WebfarmErrorText -ErrorRecord $_)"
        }
    }
}

Function Invoke-WebfarmCngSetup {
    <#
    .SYNOPSIS
    Lets IIS's own setup make a CNG key, or leaves the host as it was. Fills in the result of the change; throws when it was not done.

    .PARAMETER Change
    From New-WebfarmChange, after Read-WebfarmChangeFile.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change
    )

    $result = $Change.Result
    $name = $Change.Parameter.container
    $plan = Read-WebfarmCngSetup -Change $Change
    $before = [ordered]@{ state = $plan.Fact.state; fingerprint = $null; bits = $null; exportable = $null }
    $after = $before
    if ($plan.Generate) {
        $after = [ordered]@{ state = 'present'; fingerprint = $null; bits = $null; exportable = $null }
    }
    $result.key_containers = @(
        [ordered]@{
            container = $plan.Fact.container
            store = 'cng'
            before = $before
            after = $after
            changed = $plan.Generate
            generated = $plan.Generate
        }
    )
    $word = if ($plan.Generate) { 'a new key' } else { $before.state }
    $Change.Diff = @{
        before = [ordered]@{ key_containers = [ordered]@{ $plan.Fact.container = $before.state } }
        after = [ordered]@{ key_containers = [ordered]@{ $plan.Fact.container = $word } }
    }
    if (-not $plan.Generate) {
        return
    }
    if ($Change.CheckMode) {
        $result.changed = $true
        return
    }
    $run = New-WebfarmCngUndoSet -Change $Change -Plan $plan
    $journal = $run.Journal
    $keep = [int]$Change.Parameter.prior_backups
    try {
        $backup = Save-WebfarmPriorBackup -Id $journal.id -Keep $keep -Warning $Change.Warning
    }
    catch {
        Remove-WebfarmJournal
        Remove-WebfarmFolder -Path $journal.undo_folder
        throw "$(Get-WebfarmSentence -ErrorRecord $_) Nothing was changed."
    }
    $result.transaction = [ordered]@{
        id = $journal.id
        outcome = 'committed'
        backup = $backup
        undo_folder = $journal.undo_folder
        undo_expires = ConvertTo-WebfarmTimeText -Time ([DateTimeOffset]::FromUnixTimeSeconds($journal.expires).UtcDateTime)
    }
    try {
        $state = Get-WebfarmRunState
        Save-WebfarmJournal -Journal $journal -Phase writing
        if ([System.IO.File]::Exists($plan.Path)) {
            [System.IO.File]::Move($plan.Path, "$($plan.Path)$script:aside")
        }
        Invoke-WebfarmIisSetup -TimeoutSeconds $Change.Parameter.stop_timeout
        $run.Steps.Add('Ran iissetup.exe /install SharedLibraries.')
        $made = Get-WebfarmContainerFact -Container $name -Store cng
        if ($made.state -ne 'present') {
            throw "IIS's setup ended without an error, and $name is $($made.state)."
        }
        if ($plan.Fact.sddl -and $made.sddl -ne $plan.Fact.sddl) {
            [WebfarmKeyContainer]::SetFileSddl($plan.Path, $plan.Fact.sddl)
            $run.Steps.Add("Gave $name the access list of the old key.")
        }
        Test-WebfarmCngKey -Container $name
        $run.Steps.Add("Tried the new key $name.")
        foreach ($entry in $plan.CryptoApi) {
            $info = [WebfarmKeyContainer]::Inspect($entry.container, 'cryptoapi')
            if ($info.Fingerprint -ne $entry.before.fingerprint) {
                throw "IIS's setup replaced the key $($entry.container) as well."
            }
        }
        foreach ($saved in $journal.files) {
            if ([WebfarmKeyContainer]::Sha256((Read-WebfarmContent -Item $saved)) -ne $saved.before_sha256) {
                Restore-WebfarmFile -Saved $saved -Journal $journal -Kept $run.Kept -Warning $Change.Warning
                $run.Steps.Add("IIS's setup had changed $($saved.path); the file of before was put back.")
            }
        }
        # Setup is not expected to stop anything; what ran shall run.
        $null = Start-WebfarmConsumer -State $state -TimeoutSeconds $Change.Parameter.start_timeout
    }
    catch {
        $reason = Get-WebfarmSentence -ErrorRecord $_
        $problems = @(Undo-WebfarmCngSetup -Plan $plan -Run $run -Warning $Change.Warning)
        $result.steps = $run.Steps.ToArray()
        $result.transaction.outcome = 'rolled_back'
        if ($problems.Count -gt 0) {
            $result.transaction.outcome = 'rollback_failed'
            $result.changed = $true
            throw "$reason Putting everything back did not succeed: $($problems -join '; '). The old state lies in $($journal.undo_folder) " +
            "and beside the key file ($($plan.Path)$script:aside)."
        }
        Remove-WebfarmJournal
        throw "$reason Everything was put back."
    }
    # The new key has been tried. Files of the history may need the old one: it stays in the undo set for its time.
    if ([System.IO.File]::Exists("$($plan.Path)$script:aside")) {
        [System.IO.File]::Move("$($plan.Path)$script:aside", [System.IO.Path]::Combine($journal.undo_folder, $plan.Fact.file_expected))
    }
    Remove-WebfarmJournal
    Limit-WebfarmPriorBackup -Keep $keep -Warning $Change.Warning
    $result.steps = $run.Steps.ToArray()
    $result.changed = $true
}

Export-ModuleMember -Function @(
    'Assert-WebfarmKeyMethod'
    'Invoke-WebfarmCngSetup'
)
