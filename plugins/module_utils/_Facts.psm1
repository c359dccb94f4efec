# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# The interfaces in this file are meant for use within this collection and may change in any release, even a bugfix
# release.

#AnsibleRequires -CSharpUtil ..module_utils._CngKey
#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._Diagnosis

# The facts that key_info, server_info, key_export and config_rewrap share: what a server holds and what it can open.
# Nothing here changes the server, and no clear text or key ever leaves the C# types.

# Protected values are opened in C#; what is listed here is only looked at.
$script:knownContainers = @(
    @{ container = 'iisWasKey'; store = 'cryptoapi'; purpose = 'values that only WAS reads: passwords of application pools' }
    @{ container = 'iisConfigurationKey'; store = 'cryptoapi'; purpose = 'values that worker processes read: passwords of virtual directories' }
    @{ container = 'NetFrameworkConfigurationKey'; store = 'cryptoapi'; purpose = 'sections of web.config and machine.config that ASP.NET encrypts' }
    @{ container = 'iisCngWasKey'; store = 'cng'; purpose = 'as iisWasKey, for values that IIS 10 writes' }
    @{ container = 'iisCngConfigurationKey'; store = 'cng'; purpose = 'as iisConfigurationKey, for values that IIS 10 writes' }
)

# Others that live in the same folder. They are listed where they exist or are asked for; no configuration of IIS 7 and later needs them.
$script:neighbourContainers = @(
    @{ container = 'Microsoft Internet Information Server'; store = 'cryptoapi'; purpose = 'metabase of IIS 6 (IISADMIN); no part in IIS 7 and later' }
    @{ container = 'WMSvc Certificate Key Container'; store = 'cryptoapi'; purpose = 'certificate of the Management Service' }
    @{ container = 'MS IIS DCOM Server'; store = 'cryptoapi'; purpose = 'IIS 6 administration by DCOM' }
    @{ container = 'TSSecKeySet1'; store = 'cryptoapi'; purpose = 'Remote Desktop Services' }
)

# A file that grows beyond this while it is unpacked is no IIS configuration.
$script:maximumUnpacked = 64MB

Function Get-WebfarmKnownContainer {
    <#
    .SYNOPSIS
    Returns the containers that every inventory looks at.
    #>
    [CmdletBinding()]
    param ()

    foreach ($known in $script:knownContainers) {
        [ordered]@{
            container = $known.container
            store = $known.store
        }
    }
}

Function Get-WebfarmPurpose {
    <#
    .SYNOPSIS
    Returns what a known container is for, $null for another one.

    .PARAMETER Container
    The name of the container.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container
    )

    foreach ($known in $script:knownContainers + $script:neighbourContainers) {
        if ($known.container -eq $Container) {
            return $known.purpose
        }
    }
    $null
}

Function Get-WebfarmErrorText {
    <#
    .SYNOPSIS
    Returns the message of the error at the root, without PowerShell's 'Exception calling ...' around it.

    .PARAMETER ErrorRecord
    The error that was caught.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [System.Management.Automation.ErrorRecord]
        $ErrorRecord
    )

    $ErrorRecord.Exception.GetBaseException().Message
}

Function ConvertTo-WebfarmTimeText {
    <#
    .SYNOPSIS
    Writes a time the way every result of this collection does, in UTC.

    .PARAMETER Time
    The time, $null when it is not known.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [AllowNull()]
        [object]
        $Time
    )

    if ($null -eq $Time) {
        return $null
    }
    $Time.ToUniversalTime().ToString('yyyy-MM-ddTHH:mm:ssZ', [System.Globalization.CultureInfo]::InvariantCulture)
}

Function Get-WebfarmHostFact {
    <#
    .SYNOPSIS
    Returns what identifies this server.
    #>
    [CmdletBinding()]
    param ()

    $iisVersion = $null
    $setup = 'HKLM:\SOFTWARE\Microsoft\InetStp'
    if (Test-Path -LiteralPath $setup) {
        $values = Get-ItemProperty -LiteralPath $setup
        if ($values.PSObject.Properties['MajorVersion'] -and $values.PSObject.Properties['MinorVersion']) {
            $iisVersion = '{0}.{1}' -f $values.MajorVersion, $values.MinorVersion
        }
    }
    # The policy "Use FIPS compliant algorithms": .NET then refuses MD5 and the managed classes, CryptoAPI does not.
    $fips = $false
    $policy = 'HKLM:\SYSTEM\CurrentControlSet\Control\Lsa\FipsAlgorithmPolicy'
    if (Test-Path -LiteralPath $policy) {
        $fips = [bool](Get-Item -LiteralPath $policy).GetValue('Enabled', 0)
    }
    [ordered]@{
        name = [System.Environment]::MachineName
        machine_guid = [WebfarmKeyContainer]::MachineGuid()
        os_version = [System.Environment]::OSVersion.Version.ToString()
        iis_version = $iisVersion
        powershell_version = $PSVersionTable.PSVersion.ToString()
        fips_policy = $fips
        language_mode = "$($ExecutionContext.SessionState.LanguageMode)"
    }
}

Function Get-WebfarmKeyFileFact {
    <#
    .SYNOPSIS
    Lists the files of a container: the active one, those of other machine GUIDs, those in folders of Windows 2003.

    .PARAMETER Info
    What WebfarmKeyContainer found.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Info
    )

    foreach ($file in $Info.Files) {
        [ordered]@{
            path = $file.Path
            machine_guid = $file.MachineGuid
            state = $file.State
            size = $file.Size
            created = ConvertTo-WebfarmTimeText -Time $file.Created
            modified = ConvertTo-WebfarmTimeText -Time $file.Modified
        }
    }
}

Function Format-WebfarmSeveralFile {
    <#
    .SYNOPSIS
    Says which of several files of one container is the active one, and which may hold the key that IIS was set up with.

    .PARAMETER Container
    The name of the container.

    .PARAMETER File
    The entries from Get-WebfarmKeyFileFact.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container,

        [Parameter(Mandatory = $true)]
        [object[]]
        $File
    )

    $names = @($File | ForEach-Object -Process { [System.IO.Path]::GetFileName($_.path) })
    $text = "There are $($File.Count) files of ${Container}: $($names -join ', ')."
    $active = @($File | Where-Object -FilterScript { $_.state -eq 'active' })
    if ($active.Count -eq 0) {
        return "$text None of them is active: none carries this machine's GUID in the folder that Windows reads."
    }
    $text += " Active is $([System.IO.Path]::GetFileName($active[0].path)), which carries this machine's GUID."
    $older = @($File | Where-Object -FilterScript { $_.state -ne 'active' -and $_.modified -lt $active[0].modified })
    if ($older.Count -gt 0) {
        $text += ' It is newer than the other: where values do not open, the older file held the key that they were written with.'
    }
    $text
}

Function Get-WebfarmCngFact {
    <#
    .SYNOPSIS
    Returns what NCrypt says about a CNG key, beside its file. Not verified on Windows.

    .PARAMETER Container
    The name of the key.

    .PARAMETER FileExpected
    Its file name by the naming rule.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container,

        [Parameter(Mandatory = $true)]
        [string]
        $FileExpected
    )

    $info = [WebfarmCngKey]::Inspect($Container, $FileExpected)
    $policy = $null
    if ($null -ne $info.ExportPolicy) {
        $policy = @($info.ExportPolicyNames)
    }
    $result = [ordered]@{
        state = $info.State
        unique_name = $info.UniqueName
        algorithm = $info.Algorithm
        export_policy = $policy
        sddl = $info.Sddl
        hresult = $null
        message = $info.ErrorMessage
        code = $info.Error
    }
    if ($info.Error) {
        $result.hresult = Format-WebfarmCode -Code $info.Error
    }
    $result
}

Function Get-WebfarmContainerFact {
    <#
    .SYNOPSIS
    Returns what is known of one key container. Nothing is created by looking.

    .PARAMETER Container
    The name of the container.

    .PARAMETER Store
    cryptoapi or cng.

    .PARAMETER WmsvcInstalled
    The Management Service is installed: LOCAL SERVICE needs its keys as well.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container,

        [Parameter(Mandatory = $true)]
        [ValidateSet('cryptoapi', 'cng')]
        [string]
        $Store,

        [Parameter()]
        [switch]
        $WmsvcInstalled
    )

    $info = [WebfarmKeyContainer]::Inspect($Container, $Store)
    $result = [ordered]@{
        container = $info.Name
        store = $info.Store
        purpose = Get-WebfarmPurpose -Container $info.Name
        state = $info.State
        key_spec = $info.KeySpec
        bits = $info.Bits
        exportable = $info.Exportable
        fingerprint = $info.Fingerprint
        public_key = $info.PublicKey
        file_expected = $info.FileExpected
        file_path = $info.FilePath
        file_found = $info.FileFound
        foreign_files = @($info.ForeignFiles | Where-Object -FilterScript { $_ })
        files = @(Get-WebfarmKeyFileFact -Info $info)
        files_message = $null
        sddl = $info.Sddl
        owner = $null
        acl = @()
        access_missing = @()
        access_problems = @()
        created = ConvertTo-WebfarmTimeText -Time $info.Created
        modified = ConvertTo-WebfarmTimeText -Time $info.Modified
        age_days = $null
        cng = $null
        hresult = $null
        message = $null
        cause = $null
        fix = $null
    }
    if ($info.Modified) {
        $result.age_days = [int][System.Math]::Floor(([DateTime]::UtcNow - $info.Modified).TotalDays)
    }
    if (@($result.files).Count -gt 1) {
        $result.files_message = Format-WebfarmSeveralFile -Container $info.Name -File $result.files
    }
    $code = $info.Error
    if ($Store -eq 'cng' -and $info.FileFound) {
        $cng = Get-WebfarmCngFact -Container $info.Name -FileExpected $info.FileExpected
        $result.cng = $cng
        if ($cng.state -eq 'opened' -and $null -ne $cng.export_policy) {
            $result.exportable = $cng.export_policy -contains 'plaintext_export'
        }
        # What NCrypt says counts only against a file that looks well: the file is the firmer ground.
        if ($info.State -eq 'present' -and $cng.state -in @('denied', 'damaged')) {
            $result.state = $cng.state
            $code = $cng.code
        }
        $cng.Remove('code')
    }

    if ($info.Sddl) {
        try {
            $result.owner = Get-WebfarmSddlOwner -Sddl $info.Sddl
            $result.acl = @(ConvertTo-WebfarmAclFact -Sddl $info.Sddl)
        }
        catch {
            # Get-WebfarmAccessProblem below reports an access list that cannot be read.
            $result.acl = @()
        }
        $result.access_problems = @(Get-WebfarmAccessProblem -Container $info.Name -Sddl $info.Sddl -WmsvcInstalled:$WmsvcInstalled)
        $result.access_missing = @(
            foreach ($problem in $result.access_problems) {
                if ($problem.kind -eq 'missing') {
                    $problem.account
                }
            }
        )
    }

    if ($result.state -ne 'present') {
        $context = 'open'
        if ($Store -eq 'cng') {
            $context = 'cng'
        }
        $diagnosis = Get-WebfarmDiagnosis -Code $code -Verdict $result.state -Context $context -Container $info.Name
        $result.hresult = $diagnosis.hresult
        $result.message = "Key container $($info.Name) is $($result.state)."
        if ($diagnosis.hresult) {
            $result.message = "Key container $($info.Name) is $($result.state): $($diagnosis.hresult) $($diagnosis.name) $($diagnosis.message)"
        }
        elseif ($info.ErrorMessage) {
            $result.message = "Key container $($info.Name) is $($result.state): $($info.ErrorMessage.TrimEnd('.'))."
        }
        $result.cause = $diagnosis.cause
        $result.fix = $diagnosis.fix
        if ($result.state -eq 'missing' -and $result.foreign_files.Count -gt 0) {
            $result.cause = "The key file of $($info.Name) is there under another machine GUID ($($result.foreign_files -join ', ')): " +
            'the machine GUID changed (Sysprep, a cloned machine), or the file was copied from another server.'
        }
    }
    $result
}

Function Test-WebfarmKeyFile {
    <#
    .SYNOPSIS
    Tells whether a container has a file here, of whatever machine GUID. Nothing is opened.

    .PARAMETER Container
    The name of the container.

    .PARAMETER Store
    cryptoapi or cng.
    #>
    [CmdletBinding()]
    [OutputType([bool])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container,

        [Parameter(Mandatory = $true)]
        [string]
        $Store
    )

    $pattern = [WebfarmKeyContainer]::FilePrefix($Container, $Store) + '_*'
    foreach ($folder in [WebfarmKeyContainer]::Folder($Store), [WebfarmKeyContainer]::LegacyFolder($Store)) {
        if (-not $folder) {
            continue
        }
        try {
            if ([System.IO.Directory]::GetFiles($folder, $pattern).Count -gt 0) {
                return $true
            }
        }
        catch {
            # A folder that cannot be listed is reported as such; whether the file is in it stays open.
            continue
        }
    }
    $false
}

Function Get-WebfarmNamedContainer {
    <#
    .SYNOPSIS
    Returns the containers to look at, each once: the known ones, those that the providers name, those that were asked for.

    .PARAMETER Name
    Container names that were asked for.

    .PARAMETER Provider
    The providers of the configuration files, when they were read.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [AllowEmptyCollection()]
        [string[]]
        $Name = @(),

        [Parameter()]
        [AllowEmptyCollection()]
        [object[]]
        $Provider = @()
    )

    $seen = New-Object -TypeName 'System.Collections.Generic.HashSet[string]' -ArgumentList ([System.StringComparer]::OrdinalIgnoreCase)
    foreach ($known in Get-WebfarmKnownContainer) {
        $null = $seen.Add($known.container)
        $known
    }
    foreach ($neighbour in $script:neighbourContainers) {
        if (Test-WebfarmKeyFile -Container $neighbour.container -Store $neighbour.store) {
            $null = $seen.Add($neighbour.container)
            [ordered]@{
                container = $neighbour.container
                store = $neighbour.store
            }
        }
    }
    foreach ($declared in $Provider) {
        if ($declared.Kind -eq 'unsupported' -or -not $declared.Container -or -not $seen.Add($declared.Container)) {
            continue
        }
        $store = 'cryptoapi'
        if ($declared.Kind -eq 'cng') {
            $store = 'cng'
        }
        [ordered]@{
            container = $declared.Container
            store = $store
        }
    }
    foreach ($asked in $Name) {
        if (-not $asked.Trim()) {
            throw 'containers: a container name is empty; remove it from the list.'
        }
        if (-not $seen.Add($asked)) {
            continue
        }
        # A name alone does not tell the store: CNG only where there is no such CryptoAPI container.
        $store = 'cryptoapi'
        if ([WebfarmKeyContainer]::Inspect($asked, 'cryptoapi').State -eq 'missing' -and
            [WebfarmKeyContainer]::Inspect($asked, 'cng').State -ne 'missing') {
            $store = 'cng'
        }
        [ordered]@{
            container = $asked
            store = $store
        }
    }
}

Function Get-WebfarmConfigurationFolder {
    <#
    .SYNOPSIS
    Returns the folder of the configuration files of IIS.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param ()

    [WebfarmConfiguration]::Folder()
}

Function Get-WebfarmRedirection {
    <#
    .SYNOPSIS
    Returns whether IIS reads its configuration from somewhere else, and from where.
    #>
    [CmdletBinding()]
    param ()

    try {
        $redirection = [WebfarmConfiguration]::Redirection((Get-WebfarmConfigurationFolder))
    }
    catch {
        throw "redirection.config cannot be read, so that it is not known which configuration IIS uses: $(Get-WebfarmErrorText -ErrorRecord $_)"
    }
    [ordered]@{
        enabled = $redirection.Enabled
        path = $redirection.Path
    }
}

Function Get-WebfarmEffectivePath {
    <#
    .SYNOPSIS
    Returns the path of the applicationHost.config that IIS reads: that of the shared folder while one is in use and this account can
    read it, else the local one.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param ()

    $redirection = Get-WebfarmRedirection
    if ($redirection.enabled) {
        $shared = [System.IO.Path]::Combine([Environment]::ExpandEnvironmentVariables($redirection.path), 'applicationHost.config')
        if ([System.IO.File]::Exists($shared)) {
            return $shared
        }
    }
    return [System.IO.Path]::Combine((Get-WebfarmConfigurationFolder), 'applicationHost.config')
}

Function Assert-WebfarmNotRedirected {
    <#
    .SYNOPSIS
    Throws when IIS reads its configuration from a share, because the local file is then the wrong one.

    .PARAMETER Advice
    What to do instead, one sentence.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [string]
        $Advice = 'Work on the server or share that holds the effective file, or disable the shared configuration first.'
    )

    $redirection = Get-WebfarmRedirection
    if ($redirection.enabled) {
        $folder = Get-WebfarmConfigurationFolder
        throw ("IIS shared configuration is active: redirection.config sends IIS to '$($redirection.path)', " +
            "so that applicationHost.config in '$folder' is not the file that IIS reads. $Advice")
    }
}

Function Get-WebfarmConfigurationFile {
    <#
    .SYNOPSIS
    Reads the configuration files of IIS. applicationHost.config must be there, the other two may be absent.

    .PARAMETER Problem
    A list that receives what cannot be used, instead of an exception.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [AllowNull()]
        [System.Collections.Generic.List[object]]
        $Problem
    )

    $folder = Get-WebfarmConfigurationFolder
    foreach ($name in @('applicationHost.config', 'administration.config', 'redirection.config')) {
        $path = Join-Path -Path $folder -ChildPath $name
        if ($name -ne 'applicationHost.config' -and -not (Test-Path -LiteralPath $path)) {
            continue
        }
        try {
            [WebfarmConfiguration]::Load($path)
        }
        catch {
            $message = "The configuration file '$path' cannot be used: $(Get-WebfarmErrorText -ErrorRecord $_)"
            if ($null -eq $Problem) {
                throw $message
            }
            $Problem.Add([ordered]@{
                    part = $name
                    message = $message
                })
        }
    }
}

Function ConvertTo-WebfarmAcceptance {
    <#
    .SYNOPSIS
    Checks the option accept_undecryptable and returns it as a hashtable of path and reason.

    .PARAMETER List
    The option: dictionaries with path and reason.
    #>
    [CmdletBinding()]
    [OutputType([hashtable])]
    param (
        [Parameter()]
        [AllowNull()]
        [AllowEmptyCollection()]
        [object[]]
        $List
    )

    # Attribute paths are compared as they are: names in IIS keep their case.
    $accepted = New-Object -TypeName System.Collections.Hashtable -ArgumentList ([System.StringComparer]::Ordinal)
    foreach ($entry in $List) {
        if ($null -eq $entry) {
            continue
        }
        $path = "$($entry.path)".Trim()
        $reason = "$($entry.reason)".Trim()
        if (-not $path) {
            throw 'accept_undecryptable: an entry has an empty path; give the attribute path as the results show it.'
        }
        if (-not $reason) {
            throw "accept_undecryptable: the entry for '$path' has no reason; say why it is accepted, every report shows it."
        }
        if ($accepted.ContainsKey($path)) {
            throw "accept_undecryptable: '$path' is listed twice; remove one of the entries."
        }
        $accepted[$path] = $reason
    }
    # As it is: PowerShell would otherwise unroll nothing here, but a copy would lose the comparer.
    , $accepted
}

Function ConvertTo-WebfarmValueFact {
    <#
    .SYNOPSIS
    Turns a verdict about a protected value into its entry of protected_values.

    .PARAMETER Verdict
    The verdict from WebfarmProtection.

    .PARAMETER Accepted
    The hashtable from ConvertTo-WebfarmAcceptance.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Verdict,

        [Parameter()]
        [System.Collections.Hashtable]
        $Accepted = @{}
    )

    $result = [ordered]@{
        file = $Verdict.File
        path = $Verdict.Path
        line = $Verdict.Line
        provider = $Verdict.Provider
        kind = $Verdict.Kind
        container = $Verdict.Container
        verdict = $Verdict.Verdict
        hresult = $null
        message = $null
        cause = $null
        fix = $null
        accepted = $false
        reason = $null
    }
    Add-WebfarmVerdictText -Fact $result -Verdict $Verdict -Accepted $Accepted
    $result
}

Function ConvertTo-WebfarmSessionKeyFact {
    <#
    .SYNOPSIS
    Turns a verdict about a session key into its entry of session_keys.

    .PARAMETER Verdict
    The verdict from WebfarmProtection.

    .PARAMETER File
    The name of the configuration file.

    .PARAMETER Accepted
    The hashtable from ConvertTo-WebfarmAcceptance.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Verdict,

        [Parameter(Mandatory = $true)]
        [string]
        $File,

        [Parameter()]
        [System.Collections.Hashtable]
        $Accepted = @{}
    )

    $result = [ordered]@{
        file = $File
        path = "configProtectedData/providers/add[@name='$($Verdict.Provider)']/@sessionKey"
        line = $Verdict.Line
        provider = $Verdict.Provider
        container = $Verdict.Container
        algorithm = $Verdict.Algorithm
        key_bits = $Verdict.KeyBits
        verdict = $Verdict.Verdict
        hresult = $null
        message = $null
        cause = $null
        fix = $null
        accepted = $false
        reason = $null
    }
    Add-WebfarmVerdictText -Fact $result -Verdict $Verdict -Accepted $Accepted
    $result
}

Function Add-WebfarmVerdictText {
    <#
    .SYNOPSIS
    Adds error, cause and fix, and whether it is accepted, to a fact whose verdict is not ok.

    .PARAMETER Fact
    The fact, changed in place.

    .PARAMETER Verdict
    The verdict that it comes from.

    .PARAMETER Accepted
    The hashtable from ConvertTo-WebfarmAcceptance.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [System.Collections.Specialized.OrderedDictionary]
        $Fact,

        [Parameter(Mandatory = $true)]
        [object]
        $Verdict,

        [Parameter(Mandatory = $true)]
        [System.Collections.Hashtable]
        $Accepted
    )

    if ($Verdict.Verdict -in @('ok', 'untested')) {
        return
    }
    $context = 'decrypt'
    if ($Fact['kind'] -eq 'cng') {
        $context = 'cng'
    }
    $query = @{
        Code = $Verdict.Error
        Verdict = $Verdict.Verdict
        Context = $context
        Container = $Verdict.Container
        Provider = $Verdict.Provider
    }
    $diagnosis = Get-WebfarmDiagnosis @query
    $Fact.hresult = $diagnosis.hresult
    $Fact.message = $diagnosis.message
    if ($Verdict.ErrorMessage) {
        $Fact.message = $Verdict.ErrorMessage
    }
    $Fact.cause = $diagnosis.cause
    $Fact.fix = $diagnosis.fix
    if ($Accepted.ContainsKey($Fact.path)) {
        $Fact.accepted = $true
        $Fact.reason = $Accepted[$Fact.path]
    }
}

Function Get-WebfarmUntestedSessionKey {
    <#
    .SYNOPSIS
    Lists the session keys of a file without trying them, in the form of a verdict.

    .PARAMETER File
    The configuration file.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $File
    )

    foreach ($provider in $File.Providers) {
        if ($provider.Kind -eq 'aes') {
            [PSCustomObject]@{
                Provider = $provider.Name
                Container = $provider.Container
                Line = $provider.Line
                Algorithm = $null
                KeyBits = $null
                Verdict = 'untested'
            }
        }
    }
}

Function Get-WebfarmUntestedValue {
    <#
    .SYNOPSIS
    Lists the protected values of a file without trying them, in the form of a verdict.

    .PARAMETER File
    The configuration file.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $File
    )

    foreach ($value in $File.Values) {
        $provider = $null
        if ($value.Provider) {
            $provider = $File.Provider($value.Provider)
        }
        $verdict = [PSCustomObject]@{
            File = $File.Name
            Path = $value.Path
            Line = $value.Line
            Provider = $value.Provider
            Kind = $null
            Container = $null
            Verdict = 'untested'
        }
        if ($provider) {
            $verdict.Provider = $provider.Name
            $verdict.Kind = $provider.Kind
            $verdict.Container = $provider.Container
        }
        $verdict
    }
}

Function Get-WebfarmProof {
    <#
    .SYNOPSIS
    Tries every session key and protected value of configuration files with the keys of this machine.

    .DESCRIPTION
    Returns session_keys, protected_values, problems (the entries that are neither ok nor accepted) and
    accepted_undecryptable (the acceptances that were needed), unneeded (those that were not).

    .PARAMETER File
    The configuration files.

    .PARAMETER Decrypt
    none, session (session keys only) or all.

    .PARAMETER Accepted
    The hashtable from ConvertTo-WebfarmAcceptance.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object[]]
        $File,

        [Parameter()]
        [ValidateSet('none', 'session', 'all')]
        [string]
        $Decrypt = 'all',

        [Parameter()]
        [System.Collections.Hashtable]
        $Accepted = @{}
    )

    $sessionKeys = @(
        foreach ($one in $File) {
            $verdicts = @()
            if ($Decrypt -eq 'none') {
                $verdicts = @(Get-WebfarmUntestedSessionKey -File $one)
            }
            else {
                $verdicts = [WebfarmProtection]::ProveSessionKeys($one, $null)
            }
            foreach ($verdict in $verdicts) {
                ConvertTo-WebfarmSessionKeyFact -Verdict $verdict -File $one.Name -Accepted $Accepted
            }
        }
    )
    $values = @(
        foreach ($one in $File) {
            $verdicts = @()
            if ($Decrypt -eq 'all') {
                $verdicts = [WebfarmProtection]::Prove($one, $null)
            }
            else {
                $verdicts = @(Get-WebfarmUntestedValue -File $one)
            }
            foreach ($verdict in $verdicts) {
                ConvertTo-WebfarmValueFact -Verdict $verdict -Accepted $Accepted
            }
        }
    )

    $problems = @()
    $needed = @{}
    foreach ($fact in $sessionKeys + $values) {
        if ($fact.verdict -in @('ok', 'untested')) {
            continue
        }
        if ($fact.accepted) {
            $needed[$fact.path] = $fact.reason
        }
        else {
            $problems += $fact
        }
    }
    [PSCustomObject]@{
        SessionKeys = $sessionKeys
        ProtectedValues = $values
        Problems = $problems
        Accepted = @(
            foreach ($path in $needed.Keys | Sort-Object) {
                [ordered]@{
                    path = $path
                    reason = $needed[$path]
                }
            }
        )
        Unneeded = @($Accepted.Keys | Where-Object -FilterScript { -not $needed.ContainsKey($_) } | Sort-Object)
    }
}

Function Format-WebfarmProblem {
    <#
    .SYNOPSIS
    Writes the values that cannot be opened as text for a message: each with file, line, path, verdict and code, then what to do.

    .PARAMETER Problem
    Entries of protected_values or session_keys.

    .PARAMETER Limit
    How many of them are written; the result holds all.

    .PARAMETER WithoutAdvice
    Leave cause and fix out.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [object[]]
        $Problem,

        [Parameter()]
        [int]
        $Limit = 10,

        [Parameter()]
        [switch]
        $WithoutAdvice
    )

    $lines = @(
        foreach ($fact in $Problem | Select-Object -First $Limit) {
            $code = ''
            if ($fact.hresult) {
                $code = " $($fact.hresult)"
            }
            $where = @(@($fact.provider, $fact.container) | Where-Object -FilterScript { $_ }) -join ', '
            "$($fact.file), line $($fact.line): $($fact.path) ($where): $($fact.verdict)$code"
        }
    )
    if ($Problem.Count -gt $Limit) {
        $lines += "and $($Problem.Count - $Limit) more"
    }
    if ($WithoutAdvice) {
        return ($lines -join '; ')
    }
    # The same cause is said once, however many values it has.
    $advice = @(
        foreach ($group in $Problem | Select-Object -First $Limit | Group-Object -Property { "$($_.cause) $($_.fix)" }) {
            $group.Name
        }
    )
    '{0}. {1}' -f ($lines -join '; '), ($advice -join ' ')
}

Function Get-WebfarmInventory {
    <#
    .SYNOPSIS
    The key inventory: containers, session keys, protected values, and what is wrong with them as warnings.

    .PARAMETER Container
    Further container names.

    .PARAMETER File
    The configuration files; none when their content is not asked for.

    .PARAMETER Decrypt
    none, session or all.

    .PARAMETER WithoutContainer
    Leave the containers out.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [AllowEmptyCollection()]
        [AllowNull()]
        [string[]]
        $Container = @(),

        [Parameter()]
        [AllowEmptyCollection()]
        [object[]]
        $File = @(),

        [Parameter()]
        [ValidateSet('none', 'session', 'all')]
        [string]
        $Decrypt = 'all',

        [Parameter()]
        [switch]
        $WithoutContainer
    )

    $warnings = @()
    $containers = @()
    $declared = @(
        foreach ($one in $File) {
            $one.Providers
        }
    )
    # A provider that is declared and not used may lack its key; a session key always needs it.
    $needed = New-Object -TypeName 'System.Collections.Generic.HashSet[string]' -ArgumentList ([System.StringComparer]::OrdinalIgnoreCase)
    foreach ($one in $File) {
        foreach ($provider in $one.Providers) {
            if ($provider.Kind -eq 'aes' -or @($one.Values | Where-Object -FilterScript { $_.Provider -eq $provider.Name }).Count -gt 0) {
                $null = $needed.Add($provider.Container)
            }
        }
    }
    if (-not $WithoutContainer) {
        $wmsvc = Test-WebfarmServiceInstalled -Name WMSVC
        # Keys of others are shown, not judged; unless they are asked for.
        $neighbours = @($script:neighbourContainers | ForEach-Object -Process { $_.container } | Where-Object -FilterScript { $_ -notin $Container })
        $asked = @($Container | Where-Object -FilterScript { $null -ne $_ })
        $containers = @(
            foreach ($named in Get-WebfarmNamedContainer -Name $asked -Provider $declared) {
                Get-WebfarmContainerFact -Container $named.container -Store $named.store -WmsvcInstalled:$wmsvc
            }
        )
        foreach ($fact in $containers) {
            $used = $needed.Contains($fact.container)
            if ($fact.container -in $neighbours -and -not $used) {
                continue
            }
            if ($fact.state -in @('denied', 'damaged') -or ($fact.state -eq 'missing' -and $used)) {
                $warnings += "$($fact.message) $($fact.fix)"
            }
            foreach ($problem in $fact.access_problems) {
                $warnings += "$($problem.message) $($problem.fix)"
            }
        }
    }

    $proof = [PSCustomObject]@{
        SessionKeys = @()
        ProtectedValues = @()
        Problems = @()
    }
    if ($File.Count -gt 0) {
        $proof = Get-WebfarmProof -File $File -Decrypt $Decrypt
    }
    if ($proof.Problems.Count -gt 0) {
        $total = $proof.SessionKeys.Count + $proof.ProtectedValues.Count
        $warnings += "$($proof.Problems.Count) of $total session keys and protected values cannot be opened: " +
        (Format-WebfarmProblem -Problem $proof.Problems -Limit 5 -WithoutAdvice) + '. Cause and fix of each are in the result.'
    }

    [PSCustomObject]@{
        KeyContainers = $containers
        SessionKeys = $proof.SessionKeys
        ProtectedValues = $proof.ProtectedValues
        Warnings = $warnings
    }
}

Function Get-WebfarmProviderFact {
    <#
    .SYNOPSIS
    Lists the providers that configuration files declare. A session key is only said to be there.

    .PARAMETER File
    The configuration files.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [object[]]
        $File
    )

    foreach ($one in $File) {
        foreach ($provider in $one.Providers) {
            [ordered]@{
                file = $one.Name
                line = $provider.Line
                name = $provider.Name
                type = $provider.Type
                kind = $provider.Kind
                container = $provider.Container
                was_only = $provider.WasOnly
                use_oaep = $provider.UseOaep
                has_session = -not [string]::IsNullOrEmpty($provider.SessionKey)
                used_by = @($one.Values | Where-Object -FilterScript { $_.Provider -eq $provider.Name }).Count
            }
        }
    }
}

Function Get-WebfarmSiteFact {
    <#
    .SYNOPSIS
    Lists the sites of a configuration with their bindings and application pools.

    .PARAMETER File
    The configuration file.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $File
    )

    foreach ($site in $File.Sites) {
        [ordered]@{
            name = $site.Name
            app_pools = @($site.Pools | Select-Object -Unique)
            bindings = @(
                foreach ($binding in $site.Bindings) {
                    [ordered]@{
                        protocol = $binding.Protocol
                        address = $binding.Address
                        port = $binding.Port
                        host_name = $binding.HostName
                    }
                }
            )
        }
    }
}

Function ConvertTo-WebfarmPackedText {
    <#
    .SYNOPSIS
    Packs the content of a file (gzip, base64) for the way to the controller.

    .PARAMETER Content
    The bytes of the file.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [byte[]]
        $Content
    )

    $memory = New-Object -TypeName System.IO.MemoryStream
    $packer = New-Object -TypeName System.IO.Compression.GZipStream -ArgumentList $memory, ([System.IO.Compression.CompressionMode]::Compress)
    try {
        $packer.Write($Content, 0, $Content.Length)
    }
    finally {
        $packer.Dispose()
    }
    [System.Convert]::ToBase64String($memory.ToArray())
}

Function ConvertFrom-WebfarmPackedText {
    <#
    .SYNOPSIS
    Unpacks the content of a file that came from the controller.

    .PARAMETER Text
    The packed content (gzip, base64).

    .PARAMETER Name
    What it is, for the message when it cannot be unpacked.
    #>
    [CmdletBinding()]
    [OutputType([byte[]])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Text,

        [Parameter(Mandatory = $true)]
        [string]
        $Name
    )

    $target = New-Object -TypeName System.IO.MemoryStream
    try {
        $packed = New-Object -TypeName System.IO.MemoryStream -ArgumentList @(, [System.Convert]::FromBase64String($Text))
        $reader = New-Object -TypeName System.IO.Compression.GZipStream -ArgumentList $packed, ([System.IO.Compression.CompressionMode]::Decompress)
        $buffer = New-Object -TypeName byte[] -ArgumentList 65536
        while (($count = $reader.Read($buffer, 0, $buffer.Length)) -gt 0) {
            if ($target.Length + $count -gt $script:maximumUnpacked) {
                throw "it is larger than $($script:maximumUnpacked) bytes"
            }
            $target.Write($buffer, 0, $count)
        }
    }
    catch {
        throw "${Name} did not arrive in one piece: $(Get-WebfarmErrorText -ErrorRecord $_)"
    }
    , $target.ToArray()
}

$export = @{
    Function = @(
        'Assert-WebfarmNotRedirected'
        'ConvertFrom-WebfarmPackedText'
        'ConvertTo-WebfarmAcceptance'
        'ConvertTo-WebfarmPackedText'
        'ConvertTo-WebfarmSessionKeyFact'
        'ConvertTo-WebfarmTimeText'
        'ConvertTo-WebfarmValueFact'
        'Format-WebfarmProblem'
        'Get-WebfarmConfigurationFile'
        'Get-WebfarmConfigurationFolder'
        'Get-WebfarmContainerFact'
        'Get-WebfarmEffectivePath'
        'Get-WebfarmErrorText'
        'Get-WebfarmHostFact'
        'Get-WebfarmInventory'
        'Get-WebfarmKnownContainer'
        'Get-WebfarmNamedContainer'
        'Get-WebfarmProof'
        'Get-WebfarmProviderFact'
        'Get-WebfarmPurpose'
        'Get-WebfarmRedirection'
        'Get-WebfarmSiteFact'
        'Get-WebfarmUntestedValue'
    )
}
Export-ModuleMember @export
