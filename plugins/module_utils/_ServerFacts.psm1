# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# The interfaces in this file are meant for use within this collection and may change in any release, even a bugfix
# release.

#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._Diagnosis
#AnsibleRequires -PowerShell ..module_utils._Facts

# What key_info and server_info look at beside keys and values: key folders, the certificate store, pools, history, events.
# Nothing here changes the server.

# A key folder with more files than this is reported. A busy server with many certificates has some hundreds.
$script:bloatFiles = 5000
# Counting stops at this number of files, or after this time.
$script:countedFiles = 100000
$script:countedMilliseconds = 2000

# How many of the newest history snapshots are tried until one proves.
$script:triedSnapshots = 25

Function Invoke-WebfarmPart {
    <#
    .SYNOPSIS
    Gathers one part of the facts.

    .PARAMETER Name
    The part, as gathering_problems names it.

    .PARAMETER Script
    What gathers it.

    .PARAMETER Report
    A failure is kept in the list of problems and the others go on; else it is thrown.

    .PARAMETER Problem
    That list.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Name,

        [Parameter(Mandatory = $true)]
        [scriptblock]
        $Script,

        [Parameter()]
        [bool]
        $Report,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[object]]
        $Problem
    )

    try {
        & $Script
    }
    catch {
        if (-not $Report) {
            throw
        }
        $Problem.Add([ordered]@{
                part = $Name
                message = Get-WebfarmErrorText -ErrorRecord $_
            })
    }
}

Function Get-WebfarmKeyFolderFact {
    <#
    .SYNOPSIS
    Counts the files of the key folders, up to a bound, and says what is wrong with the folders.
    #>
    [CmdletBinding()]
    param ()

    foreach ($store in 'cryptoapi', 'cng') {
        foreach ($path in [WebfarmKeyContainer]::Folder($store), [WebfarmKeyContainer]::LegacyFolder($store)) {
            if (-not $path) {
                continue
            }
            $legacy = $path -ne [WebfarmKeyContainer]::Folder($store)
            $folder = [WebfarmKeyContainer]::ScanFolder($path, $script:countedFiles, $script:countedMilliseconds)
            $result = [ordered]@{
                store = $store
                path = $folder.Path
                exists = $folder.Exists
                legacy = $legacy
                files = $folder.Files
                size = $folder.Bytes
                complete = $folder.Complete
                own_files = $folder.Own
                foreign_files = $folder.Foreign
                foreign_machine_guids = @($folder.ForeignGuids)
                bloated = $folder.Files -gt $script:bloatFiles
                sddl = $null
                access_problems = @()
                message = $null
                fix = $null
            }
            if ($folder.ErrorMessage) {
                $result.message = "The key folder '$path' cannot be listed: $($folder.ErrorMessage)"
                $result.fix = 'Restore its access list: SYSTEM and Administrators need full control.'
            }
            elseif ($result.bloated) {
                $atLeast = ''
                if (-not $folder.Complete) {
                    $atLeast = 'at least '
                }
                $result.message = "The key folder '$path' holds $atLeast$($folder.Files) files ($([System.Math]::Ceiling($folder.Bytes / 1MB)) MiB); " +
                "more than $($script:bloatFiles) slow down everything that opens keys."
                $result.fix = 'Find the program that leaves key containers behind, and mend it. Never empty the folder: the keys of IIS are in it.'
            }
            if ($folder.Exists -and -not $legacy) {
                try {
                    $result.sddl = [WebfarmKeyContainer]::FileSddl($path)
                    $result.access_problems = @(Get-WebfarmFolderProblem -Path $path -Sddl $result.sddl)
                }
                catch {
                    $result.message = "The access list of the key folder '$path' cannot be read: $(Get-WebfarmErrorText -ErrorRecord $_)"
                    $result.fix = 'Restore its access list: SYSTEM and Administrators need full control.'
                }
            }
            $result
        }
    }
}

Function Get-WebfarmIdentifiedFile {
    <#
    .SYNOPSIS
    Tells which container a key file belongs to: the naming rule the other way round.

    .PARAMETER Name
    File names, or paths.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [string[]]
        $Name
    )

    $own = [WebfarmKeyContainer]::MachineGuid()
    foreach ($asked in $Name) {
        $file = [System.IO.Path]::GetFileName($asked.Trim())
        if ($file -notmatch '^[0-9a-fA-F]{32}_.+$') {
            throw "identify: '$asked' is not the name of a key file, which is 32 hexadecimal digits, an underscore and a machine GUID."
        }
        $result = [ordered]@{
            name = $file
            path = $null
            exists = $false
            store = $null
            container = $null
            purpose = $null
            machine_guid = $file.Substring(33)
            state = 'unknown'
            message = $null
        }
        foreach ($store in 'cryptoapi', 'cng') {
            $paths = @([System.IO.Path]::Combine([WebfarmKeyContainer]::Folder($store), $file))
            if ([WebfarmKeyContainer]::LegacyFolder($store)) {
                $paths += [System.IO.Path]::Combine([WebfarmKeyContainer]::LegacyFolder($store), $file)
            }
            if ([System.IO.Path]::IsPathRooted($asked) -and $store -eq 'cryptoapi') {
                $paths = @($asked) + $paths
            }
            $found = @($paths | Where-Object -FilterScript { [System.IO.File]::Exists($_) })
            if ($found.Count -gt 0 -and -not $result.exists) {
                $result.exists = $true
                $result.path = $found[0]
                $result.store = $store
                if ([System.IO.Path]::GetDirectoryName($found[0]) -eq [WebfarmKeyContainer]::Folder('cng')) {
                    $result.store = 'cng'
                }
            }
            $read = $file
            if ($found.Count -gt 0) {
                $read = $found[0]
            }
            $container = [WebfarmKeyContainer]::NameOfFile($read, $store)
            if ($container -and -not $result.container) {
                $result.container = $container
                $result.store = $store
                $result.purpose = Get-WebfarmPurpose -Container $container
            }
        }
        $what = 'a container whose name cannot be told (a name is found from its file, not the other way round)'
        if ($result.container) {
            $what = "container $($result.container)"
        }
        if ($result.machine_guid -ne $own) {
            $result.state = 'foreign'
            $result.message = "$file is $what of another machine GUID: Windows does not open it here."
        }
        elseif (-not $result.exists) {
            $result.state = 'absent'
            $result.message = "$file would be $what; it does not exist."
        }
        elseif ([System.IO.Path]::GetDirectoryName($result.path) -ne [WebfarmKeyContainer]::Folder($result.store)) {
            $result.state = 'legacy'
            $result.message = "$file is $what, in a folder that Windows does not read."
        }
        else {
            $result.state = 'active'
            $result.message = "$file is $what."
        }
        $result
    }
}

Function Get-WebfarmCertificateStoreFact {
    <#
    .SYNOPSIS
    Returns the settings of the Centralized Certificate Store and whether its passwords open with iisWasKey.

    .PARAMETER Decrypt
    none, session or all; only all tries the passwords, they have no session key.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [ValidateSet('none', 'session', 'all')]
        [string]
        $Decrypt = 'all'
    )

    $registry = 'HKLM\SOFTWARE\Microsoft\IIS\CentralCertProvider'
    $result = [ordered]@{
        configured = $false
        enabled = $false
        location = $null
        user_name = $null
        protected_values = @()
    }
    # The process is a 64-bit one, so that this is the view of IIS.
    $path = 'HKLM:\SOFTWARE\Microsoft\IIS\CentralCertProvider'
    if (-not (Test-Path -LiteralPath $path)) {
        return $result
    }
    $key = Get-Item -LiteralPath $path
    $result.enabled = [bool]$key.GetValue('Enabled', 0)
    $result.location = $key.GetValue('CertStoreLocation')
    $result.user_name = $key.GetValue('UserName')
    $result.configured = $result.enabled -or [bool]$result.location
    # The passwords are direct RSA values of iisWasKey without the name of a provider: a file is put around them to prove them like any other.
    $entries = @(
        foreach ($name in 'Password', 'PrivateKeyPassword') {
            $data = $key.GetValue($name)
            if ($data -is [string] -and $data) {
                "<add name=""$name"" value=""[enc:CCS:$([System.Security.SecurityElement]::Escape($data)):enc]"" />"
            }
        }
    )
    if ($entries.Count -eq 0) {
        return $result
    }
    $result.configured = $true
    $text = '<configuration><configProtectedData><providers><add name="CCS" type="" keyContainerName="iisWasKey" /></providers>' +
    "</configProtectedData><store>$($entries -join '')</store></configuration>"
    $file = [WebfarmConfiguration]::Parse([System.Text.Encoding]::UTF8.GetBytes($text), 'registry')
    $verdicts = @(Get-WebfarmUntestedValue -File $file)
    if ($Decrypt -eq 'all') {
        $verdicts = [WebfarmProtection]::Prove($file, $null)
    }
    $result.protected_values = @(
        foreach ($verdict in $verdicts) {
            $fact = ConvertTo-WebfarmValueFact -Verdict $verdict
            $name = 'Password'
            if ($fact.path -like '*PrivateKeyPassword*') {
                $name = 'PrivateKeyPassword'
            }
            $fact.path = "$registry\$name"
            $fact.line = $null
            $fact.provider = $null
            $fact
        }
    )
    $result
}

Function ConvertTo-WebfarmDocument {
    <#
    .SYNOPSIS
    Returns a configuration file as an XML document, for settings other than protected values.

    .PARAMETER File
    The configuration file.
    #>
    [CmdletBinding()]
    [OutputType([System.Xml.XmlDocument])]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $File
    )

    $document = New-Object -TypeName System.Xml.XmlDocument
    $document.XmlResolver = $null
    $stream = New-Object -TypeName System.IO.MemoryStream -ArgumentList @(, $File.Bytes)
    $document.Load($stream)
    # As it is: PowerShell would enumerate its child nodes.
    , $document
}

Function Get-WebfarmPoolFact {
    <#
    .SYNOPSIS
    Lists the application pools of a configuration with their identities and, where it is known, what they do now.

    .PARAMETER File
    The configuration file.

    .PARAMETER State
    What appcmd says: dictionaries with name and state.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $File,

        [Parameter()]
        [AllowEmptyCollection()]
        [object[]]
        $State = @()
    )

    $states = @{}
    foreach ($one in $State) {
        $states[$one.name] = $one.state.ToLowerInvariant()
    }
    $pools = (ConvertTo-WebfarmDocument -File $File).SelectNodes('/configuration/system.applicationHost/applicationPools')
    $elements = @{}
    $defaults = @{
        autoStart = 'true'
        identityType = 'ApplicationPoolIdentity'
        userName = ''
    }
    foreach ($section in $pools) {
        $start = $section.SelectSingleNode('applicationPoolDefaults/@autoStart')
        if ($start) {
            $defaults.autoStart = $start.Value
        }
        foreach ($name in 'identityType', 'userName') {
            $value = $section.SelectSingleNode("applicationPoolDefaults/processModel/@$name")
            if ($value) {
                $defaults[$name] = $value.Value
            }
        }
        foreach ($element in $section.SelectNodes('add[@name]')) {
            $elements[$element.GetAttribute('name')] = $element
        }
    }
    foreach ($name in $File.Pools) {
        $set = $defaults.Clone()
        if ($elements.ContainsKey($name)) {
            if ($elements[$name].HasAttribute('autoStart')) {
                $set.autoStart = $elements[$name].GetAttribute('autoStart')
            }
            foreach ($attribute in 'identityType', 'userName') {
                $value = $elements[$name].SelectSingleNode("processModel/@$attribute")
                if ($value) {
                    $set[$attribute] = $value.Value
                }
            }
        }
        $user = $null
        if ($set.identityType -eq 'SpecificUser') {
            $user = $set.userName
        }
        [ordered]@{
            name = $name
            auto_start = $set.autoStart -ne 'false'
            identity_type = $set.identityType
            user_name = $user
            state = $states[$name]
        }
    }
}

Function Get-WebfarmHistoryFact {
    <#
    .SYNOPSIS
    Lists the snapshots of the configuration history, the newest first, and finds the newest one that this server's keys open.

    .PARAMETER File
    applicationHost.config, which says where the history is; $null when it is no XML: then what is left of it may say so.

    .PARAMETER Decrypt
    all proves the snapshots, from the newest until one opens; session tries their session keys only; none lists them.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [AllowNull()]
        [object]
        $File,

        [Parameter()]
        [ValidateSet('none', 'session', 'all')]
        [string]
        $Decrypt = 'all'
    )

    $result = [ordered]@{
        enabled = $true
        path = [System.Environment]::ExpandEnvironmentVariables('%SystemDrive%\inetpub\history')
        maximum = 10
        period = '00:02:00'
        snapshots = @()
        newest = $null
        last_proven = $null
        message = $null
    }
    if ($null -eq $File) {
        $File = Get-WebfarmHistoryHint
    }
    if ($null -ne $File) {
        $section = (ConvertTo-WebfarmDocument -File $File).SelectSingleNode('/configuration/system.applicationHost/configHistory')
        if ($section) {
            if ($section.HasAttribute('enabled')) {
                $result.enabled = $section.GetAttribute('enabled') -eq 'true'
            }
            if ($section.GetAttribute('path')) {
                $result.path = [System.Environment]::ExpandEnvironmentVariables($section.GetAttribute('path'))
            }
            if ($section.GetAttribute('maxHistories')) {
                $result.maximum = [long]$section.GetAttribute('maxHistories')
            }
            if ($section.GetAttribute('period')) {
                $result.period = $section.GetAttribute('period')
            }
        }
    }
    if (-not [System.IO.Directory]::Exists($result.path)) {
        $result.message = "The history folder '$($result.path)' does not exist."
        return $result
    }
    $snapshots = @(
        foreach ($folder in [System.IO.Directory]::GetDirectories($result.path, 'CFGHISTORY_*')) {
            $name = [System.IO.Path]::GetFileName($folder)
            if ($name -match '^CFGHISTORY_(\d+)$') {
                Get-WebfarmSnapshotFact -Folder $folder -Number ([long]$Matches[1])
            }
        }
    )
    $snapshots = @($snapshots | Sort-Object -Property { $_.number } -Descending)
    $tried = 0
    foreach ($snapshot in $snapshots) {
        if ($Decrypt -eq 'none' -or $tried -ge $script:triedSnapshots -or $null -ne $result.last_proven) {
            break
        }
        $tried++
        Test-WebfarmSnapshot -Snapshot $snapshot -Decrypt $Decrypt
        if ($snapshot.proven) {
            $result.last_proven = $snapshot.name
        }
    }
    $result.snapshots = $snapshots
    if ($snapshots.Count -gt 0) {
        $result.newest = $snapshots[0].created
    }
    $result
}

Function Get-WebfarmHistoryHint {
    <#
    .SYNOPSIS
    Finds where the history is in an applicationHost.config that is no XML any more: a configuration with its configHistory, $null where
    that is not in it.
    #>
    [CmdletBinding()]
    param ()

    try {
        $text = [System.Text.Encoding]::UTF8.GetString([System.IO.File]::ReadAllBytes((Get-WebfarmEffectivePath)))
    }
    catch {
        Write-Verbose -Message "No hint: $_"
        return $null
    }
    $found = [regex]::Match($text, '<configHistory\s[^<>]{0,2000}>')
    if (-not $found.Success) {
        return $null
    }
    $element = $found.Value.TrimEnd('>').TrimEnd('/') + '/>'
    try {
        $bytes = [System.Text.Encoding]::UTF8.GetBytes("<configuration><system.applicationHost>$element</system.applicationHost></configuration>")
        return [WebfarmConfiguration]::Parse($bytes, 'applicationHost.config')
    }
    catch {
        return $null
    }
}

Function Get-WebfarmSnapshotFact {
    <#
    .SYNOPSIS
    Describes one snapshot of the history.

    .PARAMETER Folder
    Its folder.

    .PARAMETER Number
    Its number.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Folder,

        [Parameter(Mandatory = $true)]
        [long]
        $Number
    )

    $path = Join-Path -Path $Folder -ChildPath 'applicationHost.config'
    $result = [ordered]@{
        number = $Number
        name = [System.IO.Path]::GetFileName($Folder)
        path = $path
        created = ConvertTo-WebfarmTimeText -Time ([System.IO.Directory]::GetCreationTimeUtc($Folder))
        modified = $null
        sha256 = $null
        proven = $null
        total = $null
        failing = $null
        message = $null
    }
    if (-not [System.IO.File]::Exists($path)) {
        $result.proven = $false
        $result.message = 'It holds no applicationHost.config.'
        return $result
    }
    try {
        $result.modified = ConvertTo-WebfarmTimeText -Time ([System.IO.File]::GetLastWriteTimeUtc($path))
        $result.sha256 = [WebfarmKeyContainer]::Sha256([System.IO.File]::ReadAllBytes($path))
    }
    catch {
        $result.proven = $false
        $result.message = "It cannot be read: $(Get-WebfarmErrorText -ErrorRecord $_)"
    }
    $result
}

Function Test-WebfarmSnapshot {
    <#
    .SYNOPSIS
    Tries session keys and values of a snapshot with the keys of this machine, and writes the outcome into it.

    .PARAMETER Snapshot
    The entry from Get-WebfarmSnapshotFact, changed in place.

    .PARAMETER Decrypt
    session or all. A proof needs all; session only finds out what does not open.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [System.Collections.Specialized.OrderedDictionary]
        $Snapshot,

        [Parameter(Mandatory = $true)]
        [string]
        $Decrypt
    )

    if ($null -ne $Snapshot.proven) {
        return
    }
    try {
        $proof = Get-WebfarmProof -File @([WebfarmConfiguration]::Load($Snapshot.path)) -Decrypt $Decrypt
    }
    catch {
        $Snapshot.proven = $false
        $Snapshot.message = Get-WebfarmErrorText -ErrorRecord $_
        return
    }
    $Snapshot.total = $proof.SessionKeys.Count + $proof.ProtectedValues.Count
    $Snapshot.failing = $proof.Problems.Count
    if ($proof.Problems.Count -gt 0) {
        $Snapshot.proven = $false
        $Snapshot.message = Format-WebfarmProblem -Problem $proof.Problems -Limit 3 -WithoutAdvice
    }
    elseif ($Decrypt -eq 'all') {
        $Snapshot.proven = $true
    }
}

Function Get-WebfarmSurroundingWarning {
    <#
    .SYNOPSIS
    Returns what is wrong with the key folders and the certificate store, as warnings.

    .PARAMETER Folder
    The entries from Get-WebfarmKeyFolderFact.

    .PARAMETER CertificateStore
    What Get-WebfarmCertificateStoreFact returned.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [AllowEmptyCollection()]
        [object[]]
        $Folder = @(),

        [Parameter()]
        [AllowNull()]
        [object]
        $CertificateStore
    )

    foreach ($one in $Folder) {
        if ($one.message) {
            "$($one.message) $($one.fix)"
        }
        foreach ($problem in $one.access_problems) {
            "$($problem.message) $($problem.fix)"
        }
    }
    if ($null -ne $CertificateStore) {
        foreach ($value in $CertificateStore.protected_values) {
            if ($value.verdict -notin @('ok', 'untested')) {
                "Centralized Certificate Store, $($value.path): $($value.verdict). $($value.cause) $($value.fix)"
            }
        }
    }
}

Export-ModuleMember -Function @(
    'ConvertTo-WebfarmDocument'
    'Get-WebfarmCertificateStoreFact'
    'Get-WebfarmHistoryFact'
    'Get-WebfarmIdentifiedFile'
    'Get-WebfarmKeyFolderFact'
    'Get-WebfarmPoolFact'
    'Get-WebfarmSurroundingWarning'
    'Invoke-WebfarmPart'
)
