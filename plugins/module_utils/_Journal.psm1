# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# The journal of a run and its undo set: what the host held before, and how to put it back.
#
# The journal says how far a run has come. It is written, flushed, before each step, so that whoever finds it knows what may
# have happened and what cannot have:
#   prepared  the undo set is complete, nothing was touched             -> forget it
#   stopping  start types are made manual and services are being
#             stopped, nothing was written                              -> start them
#   writing   keys and file are being written                          -> undo both, start
#   written   all is written, and is being proven                      -> prove, start, check; undo if that fails
#   starting  it is proven, services are being started                  -> the same
#   undoing   keys and file are being put back                          -> go on with it, start
#   undone    keys and file are the old ones, services are being started -> start
# Start types are given back last, before the journal goes.
# No journal means that no run is under way.

#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._ProtectedFolder
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._KeyPlan

# What the Centralized Certificate Store keeps encrypted.
$script:registryNames = @('Password', 'PrivateKeyPassword')

Function Get-WebfarmJournalPath {
    <#
    .SYNOPSIS
    Returns the path of the journal.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param ()

    return [System.IO.Path]::Combine((Get-WebfarmStateFolder), 'journal.json')
}

Function Get-WebfarmJournal {
    <#
    .SYNOPSIS
    Reads the journal of an interrupted run; $null when there is none.
    #>
    [CmdletBinding()]
    param ()

    $path = Get-WebfarmJournalPath
    if (-not [System.IO.File]::Exists($path)) {
        return $null
    }
    $folder = Get-WebfarmStateFolder
    $problem = [WebfarmProtectedFolder]::Problem($folder)
    if ($problem) {
        # Whoever can write there could make this run restore a key or a file of his own.
        throw "The journal $path is not believed: $problem. Look at what it holds and remove the folder $folder; " +
        'the state of keys, files and services has to be judged by hand.'
    }
    try {
        $journal = ConvertFrom-Json -InputObject ([System.IO.File]::ReadAllText($path))
        $known = $journal.format -eq 'webfarm.iis journal' -and $journal.version -eq 1
    }
    catch {
        $known = $false
    }
    if (-not $known) {
        throw "The journal $path of an interrupted run cannot be read by this version. Judge the host by hand with the undo set beside it " +
        '(folder undo), bring keys, file and services into order, then delete the journal.'
    }
    return $journal
}

Function Save-WebfarmJournal {
    <#
    .SYNOPSIS
    Writes the journal with a new phase, through to the disk.

    .PARAMETER Journal
    The journal.

    .PARAMETER Phase
    What is about to happen; see the head of this file.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Journal,

        [Parameter(Mandatory = $true)]
        [ValidateSet('prepared', 'stopping', 'writing', 'written', 'starting', 'undoing', 'undone')]
        [string]
        $Phase
    )

    $Journal.phase = $Phase
    if (-not $Journal.undo_folder) {
        # without_undo, and there is no safe folder: the run goes on without a journal.
        return
    }
    $text = ConvertTo-Json -InputObject $Journal -Depth 8
    [WebfarmProtectedFolder]::WriteFile((Get-WebfarmJournalPath), [System.Text.Encoding]::UTF8.GetBytes($text))
}

Function Remove-WebfarmJournal {
    <#
    .SYNOPSIS
    Ends a run: the journal goes.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param ()

    $path = Get-WebfarmJournalPath
    # The second is one whose writing was interrupted.
    foreach ($name in $path, "$path.new") {
        if ([System.IO.File]::Exists($name) -and $PSCmdlet.ShouldProcess($name, 'delete')) {
            [System.IO.File]::Delete($name)
        }
    }
}

Function Remove-WebfarmTemporary {
    <#
    .SYNOPSIS
    Deletes what an interrupted write left beside the files of a journal that has been settled.

    .PARAMETER Journal
    The journal.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Journal
    )

    foreach ($saved in $Journal.files) {
        if ($saved.store -ne 'file' -or -not [System.IO.File]::Exists($saved.path)) {
            continue
        }
        # As WebfarmConfiguration.WriteFile names them: the new content, and the old one while it is displaced.
        $pattern = '^' + [regex]::Escape($saved.path) + '\.[0-9a-f]{8}\.webfarm(-old)?$'
        foreach ($path in [System.IO.Directory]::GetFiles([System.IO.Path]::GetDirectoryName($saved.path))) {
            if ($path -match $pattern -and $PSCmdlet.ShouldProcess($path, 'delete')) {
                [System.IO.File]::Delete($path)
            }
        }
    }
}

Function Clear-WebfarmUndoSet {
    <#
    .SYNOPSIS
    Deletes undo sets whose time is over, and those that were never finished. Returns their folders.

    .DESCRIPTION
    Only for whoever holds the lock, and when there is no journal.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    [OutputType([string])]
    param ()

    $root = [System.IO.Path]::Combine((Get-WebfarmStateFolder), 'undo')
    if (-not [System.IO.Directory]::Exists($root) -or [WebfarmProtectedFolder]::Problem($root)) {
        return
    }
    $now = Get-WebfarmUnixTime
    foreach ($folder in [System.IO.Directory]::GetDirectories($root)) {
        $expires = [long]0
        # The name begins with the time of expiry.
        $name = [System.IO.Path]::GetFileName($folder)
        if ($name -match '^(\d{10})-[0-9a-f]{8}$') {
            $expires = [long]$Matches[1]
        }
        # The description is written last.
        $finished = [System.IO.File]::Exists([System.IO.Path]::Combine($folder, 'undo.json'))
        if ($expires -gt 0 -and ($expires -lt $now -or -not $finished) -and $PSCmdlet.ShouldProcess($folder, 'delete undo set')) {
            [System.IO.Directory]::Delete($folder, $true)
            $folder
        }
    }
}

Function New-WebfarmUndoSet {
    <#
    .SYNOPSIS
    Keeps what the host holds now: keys, access lists and files, readable on this machine by SYSTEM and administrators only.

    .DESCRIPTION
    An exportable key is kept under the machine's DPAPI, of another one the key file is copied. Returns the journal of the
    run and, in memory, what was kept.

    .PARAMETER Plan
    The entries of Get-WebfarmKeyPlan that change.

    .PARAMETER File
    What changes besides the keys: dictionaries with path, store (file, registry for the Centralized Certificate Store, key for the file
    of a CNG key), before
    (bytes), before_sha256, after_sha256 and accepted (attribute paths that need not open afterwards).

    .PARAMETER Option
    The options of the transaction.

    .PARAMETER InService
    Services are stopped and started around the change.

    .PARAMETER Warning
    A list that receives warnings.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter()]
        [object[]]
        $Plan = @(),

        [Parameter()]
        [object[]]
        $File = @(),

        [Parameter(Mandatory = $true)]
        [hashtable]
        $Option,

        [Parameter()]
        [bool]
        $InService,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    $expires = (Get-WebfarmUnixTime) + [long]$Option.undo_expiry_hours * 3600
    $id = "$expires-$([Guid]::NewGuid().ToString('N').Substring(0, 8))"
    $root = Get-WebfarmStateFolder
    $folder = [System.IO.Path]::Combine($root, 'undo', $id)
    $kept = @{}
    $journal = [ordered]@{
        format = 'webfarm.iis journal'
        version = 1
        id = $id
        phase = ''
        created = Get-WebfarmUnixTime
        expires = $expires
        in_service = $InService
        undo_folder = $folder
        keys = @()
        files = @()
        start_types = @()
        due = 0
        state = [ordered]@{ services = @(); pools = @(); sites = @() }
        option = [ordered]@{
            stop_timeout = $Option.stop_timeout
            start_timeout = $Option.start_timeout
            start_services = $Option.start_services
            warm_up = [bool]$Option.warm_up
            verify_urls = @($Option.verify_urls)
        }
    }
    if (-not $PSCmdlet.ShouldProcess($folder, 'make undo set')) {
        return
    }
    $advice = 'Nothing was changed. Remove the cause, or set without_undo to go on without a way back.'
    try {
        foreach ($path in $root, [System.IO.Path]::Combine($root, 'undo'), $folder) {
            [WebfarmProtectedFolder]::Ensure($path)
        }
    }
    catch {
        $reason = "The undo set cannot be made: $(Get-WebfarmErrorText -ErrorRecord $_)"
        if (-not $Option.without_undo) {
            throw "$reason $advice"
        }
        $Warning.Add("$reason (without_undo is set)")
        $journal.undo_folder = ''
    }
    $keys = New-Object -TypeName System.Collections.Generic.List[object]
    foreach ($entry in $Plan) {
        $saved = [ordered]@{
            container = $entry.container
            before = $entry.before
            after = $entry.after
            sddl = $entry.sddl
            file_path = $entry.file_path
            foreign = [bool]$entry['foreign']
            kind = 'absent'
            undo_file = ''
        }
        if (-not $entry.created -and -not $entry.key_changes) {
            $saved.kind = 'access'
        }
        elseif (-not $entry.created) {
            try {
                $saved.undo_file = "key$($keys.Count).saved"
                $saved.kind = Save-WebfarmKey -Entry $entry -Kept $kept
                if ($journal.undo_folder) {
                    [WebfarmProtectedFolder]::WriteFile([System.IO.Path]::Combine($folder, $saved.undo_file), $kept[$entry.container])
                }
            }
            catch {
                $reason = "The key $($entry.container) cannot be kept for an undo: $(Get-WebfarmErrorText -ErrorRecord $_)"
                if (-not $Option.without_undo) {
                    Remove-WebfarmFolder -Path $journal.undo_folder
                    throw "$reason $advice"
                }
                $Warning.Add("$reason (without_undo is set)")
                if (-not $kept.ContainsKey($entry.container)) {
                    $saved.kind = 'none'
                }
            }
        }
        $keys.Add($saved)
    }
    $journal.keys = $keys.ToArray()
    $names = New-Object -TypeName System.Collections.Generic.HashSet[string] -ArgumentList ([System.StringComparer]::OrdinalIgnoreCase)
    $journal.files = @(
        foreach ($item in $File) {
            $name = $item.path.Substring($item.path.LastIndexOf('\') + 1)
            if (-not $names.Add($name)) {
                $name = "$($names.Count)-$name"
                $null = $names.Add($name)
            }
            $kept["file $name"] = $item.before
            [ordered]@{
                path = $item.path
                store = $item.store
                before_sha256 = $item.before_sha256
                after_sha256 = $item.after_sha256
                accepted = @($item.accepted)
                undo_file = $name
            }
        }
    )
    try {
        if ($journal.undo_folder) {
            foreach ($saved in $journal.files) {
                [WebfarmProtectedFolder]::WriteFile([System.IO.Path]::Combine($folder, $saved.undo_file), $kept["file $($saved.undo_file)"])
            }
            $description = ConvertTo-Json -InputObject $journal -Depth 8
            [WebfarmProtectedFolder]::WriteFile([System.IO.Path]::Combine($folder, 'undo.json'), [System.Text.Encoding]::UTF8.GetBytes($description))
            Save-WebfarmJournal -Journal $journal -Phase prepared
        }
    }
    catch {
        $reason = "The undo set cannot be written: $(Get-WebfarmErrorText -ErrorRecord $_)"
        Remove-WebfarmFolder -Path $journal.undo_folder
        if (-not $Option.without_undo) {
            throw "$reason $advice"
        }
        $Warning.Add("$reason (without_undo is set)")
        $journal.undo_folder = ''
    }
    return @{
        Journal = $journal
        Kept = $kept
        Steps = New-Object -TypeName System.Collections.Generic.List[string]
        Attention = New-Object -TypeName System.Collections.Generic.List[string]
    }
}

Function Save-WebfarmKey {
    <#
    .SYNOPSIS
    Keeps one key in protected form, and tells which: dpapi or file.

    .PARAMETER Entry
    From Get-WebfarmKeyPlan.

    .PARAMETER Kept
    A dictionary that receives the protected bytes under the container's name.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Entry,

        [Parameter(Mandatory = $true)]
        [hashtable]
        $Kept
    )

    if ($Entry.before.exportable) {
        $secret = [WebfarmKeyContainer]::PrivateBlob($Entry.container)
        try {
            $Kept[$Entry.container] = [WebfarmKeyContainer]::Protect($secret)
        }
        finally {
            $secret.Dispose()
        }
        return 'dpapi'
    }
    if (-not $Entry.file_path) {
        throw 'it is not exportable, and its key file was not found'
    }
    # Windows protects the file's content for this machine.
    $Kept[$Entry.container] = [System.IO.File]::ReadAllBytes($Entry.file_path)
    return 'file'
}

Function Remove-WebfarmFolder {
    <#
    .SYNOPSIS
    Deletes the undo set of a run that did not need it. One that holds more than the old state, a left-over .tmp or content that
    somebody had saved, stays until it expires.

    .PARAMETER Path
    Its folder; may be empty.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter()]
        [AllowEmptyString()]
        [string]
        $Path
    )

    if ($Path -and [System.IO.Directory]::Exists($Path) -and $PSCmdlet.ShouldProcess($Path, 'delete')) {
        foreach ($name in [System.IO.Directory]::GetFiles($Path)) {
            if ($name.EndsWith('.config.tmp') -or $name.Contains('.found-')) {
                return
            }
        }
        try {
            [System.IO.Directory]::Delete($Path, $true)
        }
        catch {
            # It expires by itself.
            Write-Verbose -Message "$Path stays until it expires: $_"
        }
    }
}

Function Save-WebfarmFoundKey {
    <#
    .SYNOPSIS
    Keeps a key that has to go in the undo set, protected for this machine. Returns the path.

    .PARAMETER Container
    Its container.

    .PARAMETER Folder
    The folder of the undo set.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container,

        [Parameter(Mandatory = $true)]
        [string]
        $Folder
    )

    $info = [WebfarmKeyContainer]::Inspect($Container, 'cryptoapi')
    $entry = @{ container = $Container; before = @{ exportable = $info.Exportable }; file_path = [string]$info.FilePath }
    $kept = @{}
    $kind = Save-WebfarmKey -Entry $entry -Kept $kept
    $path = [System.IO.Path]::Combine($Folder, "$Container.$kind.found-$(Get-WebfarmUnixTime)")
    [WebfarmProtectedFolder]::WriteFile($path, $kept[$Container])
    return $path
}

Function Restore-WebfarmKey {
    <#
    .SYNOPSIS
    Brings one container back to what it was; a container that did not exist is deleted. May be repeated.

    .PARAMETER Saved
    The entry of the journal.

    .PARAMETER Journal
    The journal.

    .PARAMETER Kept
    What is still in memory; otherwise the undo set is read.

    .PARAMETER Warning
    A list that receives warnings.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Saved,

        [Parameter(Mandatory = $true)]
        [object]
        $Journal,

        [Parameter()]
        [hashtable]
        $Kept = @{},

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    $name = $Saved.container
    if (-not $PSCmdlet.ShouldProcess($name, 'restore key')) {
        return
    }
    $info = [WebfarmKeyContainer]::Inspect($name, 'cryptoapi')
    if ($Saved.kind -eq 'absent') {
        if ($info.State -eq 'present' -and $info.Fingerprint -ne $Saved.after.fingerprint) {
            if ($Saved.foreign -and $Journal.undo_folder) {
                # The cmdlet that died made it, or somebody did since: it goes, and it is kept.
                $copy = Save-WebfarmFoundKey -Container $name -Folder $Journal.undo_folder
                $Warning.Add("The container $name did not exist before the change that is undone and was deleted. Its key is kept in $copy.")
                [WebfarmKeyContainer]::Delete($name)
                return
            }
            throw "the container $name did not exist before and now holds a key that this run did not write ($($info.Fingerprint)); it was left alone"
        }
        if ($info.State -ne 'missing') {
            [WebfarmKeyContainer]::Delete($name)
        }
        return
    }
    if ($info.State -ne 'present' -or $info.Fingerprint -ne $Saved.before.fingerprint -or $info.Exportable -ne $Saved.before.exportable) {
        if ($Saved.kind -eq 'none') {
            throw "the old key of $name was not kept (without_undo)"
        }
        if ($Saved.kind -eq 'access') {
            throw "the key of $name was changed by something else: it is $($info.State) with the fingerprint $($info.Fingerprint)"
        }
        $data = $Kept[$name]
        if ($null -eq $data) {
            $data = [System.IO.File]::ReadAllBytes([System.IO.Path]::Combine($Journal.undo_folder, $Saved.undo_file))
        }
        if ($Saved.kind -eq 'file') {
            if ($Saved.before.state -ne 'present' -and $info.State -eq 'present') {
                [WebfarmKeyContainer]::Delete($name)
            }
            [System.IO.File]::WriteAllBytes($Saved.file_path, $data)
            # Whoever watches the folder may hold the file for a moment.
            for ($i = 0; $i -lt 5; $i++) {
                Start-Sleep -Seconds 1
                if ([WebfarmKeyContainer]::Inspect($name, 'cryptoapi').Fingerprint -eq $Saved.before.fingerprint) {
                    break
                }
            }
        }
        else {
            $secret = [WebfarmKeyContainer]::Unprotect($data)
            try {
                $null = [WebfarmKeyContainer]::ImportPrivate($name, $secret, $true)
            }
            finally {
                $secret.Dispose()
            }
        }
    }
    if ($Saved.sddl -and $Saved.before.state -eq 'present' -and [WebfarmKeyContainer]::GetSddl($name) -ne $Saved.sddl) {
        [WebfarmKeyContainer]::SetSddl($name, $Saved.sddl)
    }
    $info = [WebfarmKeyContainer]::Inspect($name, 'cryptoapi')
    if ($info.State -ne $Saved.before.state -or $info.Fingerprint -ne $Saved.before.fingerprint) {
        throw "the container $name is $($info.State) with the fingerprint $($info.Fingerprint), it was $($Saved.before.fingerprint)"
    }
}

Function Restore-WebfarmFile {
    <#
    .SYNOPSIS
    Brings one file (or the registry values) back to what it was. Content of a third kind is kept in the undo set. May be repeated.

    .PARAMETER Saved
    The entry of the journal.

    .PARAMETER Journal
    The journal.

    .PARAMETER Kept
    What is still in memory; otherwise the undo set is read.

    .PARAMETER Warning
    A list that receives warnings.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Saved,

        [Parameter(Mandatory = $true)]
        [object]
        $Journal,

        [Parameter()]
        [hashtable]
        $Kept = @{},

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    if (-not $PSCmdlet.ShouldProcess($Saved.path, 'restore')) {
        return
    }
    $found = Read-WebfarmContent -Item $Saved
    if ($null -ne $found) {
        $hash = [WebfarmKeyContainer]::Sha256($found)
        if ($hash -eq $Saved.before_sha256) {
            return
        }
        # Of the registry one value may be the old one and one the new: that is no third content.
        if ($hash -ne $Saved.after_sha256 -and $Saved.store -eq 'file' -and $Journal.undo_folder) {
            $copy = [System.IO.Path]::Combine($Journal.undo_folder, "$($Saved.undo_file).found-$(Get-WebfarmUnixTime)")
            [WebfarmProtectedFolder]::WriteFile($copy, $found)
            if ($Saved.after_sha256 -eq $Saved.before_sha256) {
                # Something else than this collection wrote it as a part of the change, so that nobody knows what was to be in it.
                $Warning.Add("$($Saved.path) was put back. What it held after the change that is undone is kept in $copy.")
            }
            else {
                $Warning.Add("$($Saved.path) had been edited after the interrupted change. That content does not fit the old keys and is kept in $copy.")
            }
        }
    }
    $data = $Kept["file $($Saved.undo_file)"]
    if ($null -eq $data) {
        $data = [System.IO.File]::ReadAllBytes([System.IO.Path]::Combine($Journal.undo_folder, $Saved.undo_file))
    }
    Write-WebfarmContent -Item $Saved -Content $data
    $hash = [WebfarmKeyContainer]::Sha256((Read-WebfarmContent -Item $Saved))
    if ($hash -ne $Saved.before_sha256) {
        throw "$($Saved.path) has the hash $hash after it was restored, it was $($Saved.before_sha256)"
    }
}

Function Read-WebfarmContent {
    <#
    .SYNOPSIS
    Returns the bytes of a file, or the protected registry values written as a configuration file; $null when there is nothing.

    .PARAMETER Item
    Dictionary with path and store.
    #>
    [CmdletBinding()]
    [OutputType([byte[]])]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Item
    )

    if ($Item.store -ne 'registry') {
        if (-not [System.IO.File]::Exists($Item.path)) {
            return $null
        }
        return , [System.IO.File]::ReadAllBytes($Item.path)
    }
    $path = "Registry::$($Item.path)"
    if (-not (Test-Path -LiteralPath $path)) {
        return $null
    }
    $key = Get-Item -LiteralPath $path
    # The passwords are direct RSA values of iisWasKey without the name of a provider: a file is put around them, to treat them like any other.
    $xml = New-Object -TypeName System.Text.StringBuilder
    foreach ($name in $script:registryNames) {
        $data = $key.GetValue($name)
        if ($data -is [string] -and $data) {
            $null = $xml.Append("<add name=""$name"" value=""[enc:CCS:$([System.Security.SecurityElement]::Escape($data)):enc]"" />")
        }
    }
    if ($xml.Length -eq 0) {
        return $null
    }
    $text = '<configuration><configProtectedData><providers><add name="CCS" type="" keyContainerName="iisWasKey" />' +
    "</providers></configProtectedData><CentralCertProvider>$xml</CentralCertProvider></configuration>"
    return , [System.Text.Encoding]::UTF8.GetBytes($text)
}

Function Write-WebfarmContent {
    <#
    .SYNOPSIS
    Replaces a file, writes a key file, or puts protected values that are written as a configuration file into the registry.

    .PARAMETER Item
    Dictionary with path and store.

    .PARAMETER Content
    The bytes.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Item,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [byte[]]
        $Content
    )

    if (-not $PSCmdlet.ShouldProcess($Item.path, 'write')) {
        return
    }
    if ($Item.store -eq 'key') {
        # Written in place: the access list of a key file stays, and no second file appears in the folder of the keys.
        [System.IO.File]::WriteAllBytes($Item.path, $Content)
        return
    }
    if ($Item.store -ne 'registry') {
        # PowerShell would make an empty text of a plain $null.
        [WebfarmConfiguration]::WriteFile($Item.path, $Content, [NullString]::Value, [NullString]::Value)
        return
    }
    foreach ($value in [WebfarmConfiguration]::Parse($Content, 'registry').Values) {
        $name = $script:registryNames | Where-Object -FilterScript { $value.Path.Contains("'$_'") }
        Set-ItemProperty -LiteralPath "Registry::$($Item.path)" -Name $name -Value $value.Data
    }
}

Export-ModuleMember -Function @(
    'Clear-WebfarmUndoSet'
    'Get-WebfarmJournal'
    'Get-WebfarmJournalPath'
    'New-WebfarmUndoSet'
    'Read-WebfarmContent'
    'Remove-WebfarmFolder'
    'Remove-WebfarmJournal'
    'Remove-WebfarmTemporary'
    'Restore-WebfarmFile'
    'Restore-WebfarmKey'
    'Save-WebfarmJournal'
    'Write-WebfarmContent'
)
