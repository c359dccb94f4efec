# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# IIS shared configuration through Microsoft's cmdlets. What they print is not read: redirection.config, the files and the
# fingerprints of the keys tell what they did.

#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Logon
#AnsibleRequires -CSharpUtil ..module_utils._ProtectedFolder
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -PowerShell ..module_utils._Change
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Fit
#AnsibleRequires -PowerShell ..module_utils._KeyPlan
#AnsibleRequires -PowerShell ..module_utils._LogonTest
#AnsibleRequires -PowerShell ..module_utils._Transaction

$script:fileNames = @('applicationHost.config', 'administration.config', 'configEncKey.key')
$script:containers = @('iisWasKey', 'iisConfigurationKey', 'NetFrameworkConfigurationKey')
$script:cngContainers = @('iisCngWasKey', 'iisCngConfigurationKey')

Function Assert-WebfarmSharedOption {
    <#
    .SYNOPSIS
    Throws for options that do not go together, before anything is looked at.

    .PARAMETER Parameter
    The parameters of the module.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Parameter
    )

    $state = $Parameter.state
    $secret = $Parameter.key_encryption_password
    if ($state -eq 'exported') {
        $missing = [WebfarmLogon]::Weakness($secret)
        if ($missing) {
            throw "key_encryption_password is too weak, it lacks: $missing. It protects the private keys of the farm in a file on a share; " +
            'IIS wants at least 8 characters with upper and lower case, digits and symbols. Nothing was changed.'
        }
    }
    if ($state -eq 'enabled' -and $Parameter.copy_keys -ne [bool]$secret) {
        throw 'key_encryption_password is needed to import the keys of the shared configuration, and only then: give it with copy_keys, ' +
        'leave it out without. Nothing was changed.'
    }
    if ($state -eq 'disabled' -and -not $Parameter.keep) {
        throw 'keep: say what stays when the shared configuration is disabled. Plain Disable-IISSharedConfig would put the old keys back, ' +
        'and is not done. keep=keys keeps the imported keys and the old local configuration, keep=keys_and_configuration also copies the ' +
        'shared configuration over the local one. Nothing was changed.'
    }
    if ($state -ne 'disabled' -and $Parameter.path -and -not [System.IO.Path]::IsPathRooted($Parameter.path)) {
        throw "path: '$($Parameter.path)' is no complete path. Give a share (\\server\share\folder) or a folder of this host. Nothing was changed."
    }
}

Function Get-WebfarmStayingFile {
    <#
    .SYNOPSIS
    Returns the applicationHost.config that will be the local one after disabling, proven with the present keys.

    .PARAMETER Copy
    It is the shared one.

    .PARAMETER State
    From Get-WebfarmSharedState.

    .PARAMETER Password
    The password of the account in redirection.config, where one is needed to read the share.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [bool]
        $Copy,

        [Parameter(Mandatory = $true)]
        [object]
        $State,

        [Parameter()]
        [AllowNull()]
        [System.Security.SecureString]
        $Password
    )

    if ($Copy) {
        $user = ''
        if ($null -ne $Password) {
            $user = $State.user_name
        }
        $file = (Read-WebfarmSharedFolder -Path $State.path -UserName $user -Password $Password -WithKey $false).applicationHost
        Assert-WebfarmSharedProof -File $file -Name 'the shared applicationHost.config' -Advice 'Nothing was changed.'
        return $file
    }
    $file = [WebfarmConfiguration]::Load([System.IO.Path]::Combine((Get-WebfarmConfigurationFolder), 'applicationHost.config'))
    $advice = 'The old local configuration was written with other keys: use keep=keys_and_configuration. Nothing was changed.'
    Assert-WebfarmSharedProof -File $file -Name 'the local applicationHost.config' -Advice $advice
    return $file
}

Function Import-WebfarmIisAdministration {
    <#
    .SYNOPSIS
    Loads Microsoft's module, or throws and says how to get it.
    #>
    [CmdletBinding()]
    param ()

    if (Get-Command -Name 'Enable-IISSharedConfig' -ErrorAction SilentlyContinue) {
        return
    }
    $path = [System.IO.Path]::Combine([Environment]::SystemDirectory, 'WindowsPowerShell\v1.0\Modules\IISAdministration\IISAdministration.psd1')
    if (-not [System.IO.File]::Exists($path)) {
        throw 'The PowerShell module IISAdministration is not on this host. Install the Windows feature Web-Mgmt-Tools (IIS management tools). ' +
        'Nothing was changed.'
    }
    Import-Module -Name $path -Global -ErrorAction Stop -WarningAction SilentlyContinue
}

Function Invoke-WebfarmSharedCmdlet {
    <#
    .SYNOPSIS
    Calls one of Microsoft's cmdlets without any prompt. Throws when it fails; what it writes is discarded.

    .PARAMETER Name
    Its name.

    .PARAMETER Parameter
    Its parameters; secrets are secure strings.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [ValidateSet('Export-IISConfiguration', 'Enable-IISSharedConfig', 'Disable-IISSharedConfig')]
        [string]
        $Name,

        [Parameter(Mandatory = $true)]
        [hashtable]
        $Parameter
    )

    Import-WebfarmIisAdministration
    $command = Get-Command -Name $Name -ErrorAction Stop
    $given = @{}
    foreach ($key in $Parameter.Keys) {
        if ($null -ne $Parameter[$key]) {
            $given[$key] = $Parameter[$key]
        }
    }
    foreach ($switch in 'Force', 'Confirm') {
        # Disable has no -Force.
        if ($command.Parameters.ContainsKey($switch)) {
            $given[$switch] = $switch -eq 'Force'
        }
    }
    $ConfirmPreference = 'None'
    try {
        $null = & $command @given -ErrorAction Stop -WarningAction SilentlyContinue
    }
    catch {
        throw "${Name} failed: $(Get-WebfarmSentence -ErrorRecord $_)"
    }
    Write-Verbose -Message "$Name ended ($ConfirmPreference)"
}

Function Get-WebfarmSharedState {
    <#
    .SYNOPSIS
    Reads redirection.config: enabled, path, user_name.
    #>
    [CmdletBinding()]
    [OutputType([System.Collections.Specialized.OrderedDictionary])]
    param ()

    $state = Get-WebfarmRedirection
    $user = ''
    $path = [System.IO.Path]::Combine((Get-WebfarmConfigurationFolder), 'redirection.config')
    if ([System.IO.File]::Exists($path)) {
        $document = New-Object -TypeName System.Xml.XmlDocument
        $document.XmlResolver = $null
        $document.Load($path)
        $node = $document.SelectSingleNode('/configuration/configurationRedirection/@userName')
        if ($null -ne $node) {
            $user = $node.Value
        }
    }
    return [ordered]@{
        enabled = [bool]$state.enabled
        path = [string]$state.path
        user_name = $user
    }
}

Function Get-WebfarmSharedKey {
    <#
    .SYNOPSIS
    Returns the RSA keys that Microsoft's key file can hold, in the form of Get-WebfarmKeyPlan.
    #>
    [CmdletBinding()]
    param ()

    foreach ($name in $script:containers) {
        $info = [WebfarmKeyContainer]::Inspect($name, 'cryptoapi')
        # What it will be, the cmdlet decides; the entry is filled in afterwards.
        $entry = ConvertTo-WebfarmPlanEntry -Container $name -Info $info -After (ConvertTo-WebfarmKeyState -Info $info) -Changed $true
        # When the cmdlet dies nobody has noted which key it made.
        $entry.foreign = $true
        $entry
    }
}

Function Get-WebfarmSharedKeyFile {
    <#
    .SYNOPSIS
    Returns the files of the CNG keys of IIS. Nobody documents whether a key file of Microsoft carries those keys, so that they are kept
    and put back as files, which only this machine can use.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param ()

    foreach ($name in $script:cngContainers) {
        $path = [WebfarmKeyContainer]::Inspect($name, 'cng').FilePath
        if ($path) {
            $path
        }
    }
}

Function Update-WebfarmSharedKey {
    <#
    .SYNOPSIS
    Notes what the containers hold now as the state after the change; the journal needs it.

    .PARAMETER Plan
    From Get-WebfarmSharedKey.
    #>
    [CmdletBinding()]
    [System.Diagnostics.CodeAnalysis.SuppressMessageAttribute('PSUseShouldProcessForStateChangingFunctions', '', Justification = 'Fills objects only')]
    param (
        [Parameter(Mandatory = $true)]
        [object[]]
        $Plan
    )

    foreach ($entry in $Plan) {
        $now = ConvertTo-WebfarmKeyState -Info ([WebfarmKeyContainer]::Inspect($entry.container, 'cryptoapi'))
        foreach ($name in @($now.Keys)) {
            $entry.after[$name] = $now[$name]
        }
    }
}

Function Read-WebfarmSharedFolder {
    <#
    .SYNOPSIS
    Reads the shared folder as the account that IIS will use, and throws where IIS could not start with it.

    .PARAMETER Path
    The folder.

    .PARAMETER UserName
    The account; empty: the computer's own, which cannot be tried from here, so that the present one reads.

    .PARAMETER Password
    Its password, a secure string.

    .PARAMETER WithKey
    The key file must be there.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Path,

        [Parameter()]
        [AllowEmptyString()]
        [AllowNull()]
        [string]
        $UserName,

        [Parameter()]
        [AllowNull()]
        [System.Security.SecureString]
        $Password,

        [Parameter()]
        [bool]
        $WithKey
    )

    $who = $UserName
    if (-not $who) {
        $who = 'the account of this connection'
    }
    try {
        $contents = [WebfarmLogon]::Read($Path, $script:fileNames, $UserName, $Password)
    }
    catch {
        throw "path: $Path cannot be read by ${who}: $(Get-WebfarmSentence -ErrorRecord $_) IIS would not start (WAS 1326 or 5). " +
        'Check path, user_name, password, the permissions of the share and those of the folder. Nothing was changed.'
    }
    for ($i = 0; $i -lt $script:fileNames.Count; $i++) {
        if ($null -eq $contents[$i] -and ($WithKey -or $script:fileNames[$i] -ne 'configEncKey.key')) {
            throw "path: $($script:fileNames[$i]) is not in $Path. Export the configuration there first (state=exported). Nothing was changed."
        }
    }
    return @{
        applicationHost = [WebfarmConfiguration]::Parse($contents[0], 'applicationHost.config')
        administration = [WebfarmConfiguration]::Parse($contents[1], 'administration.config')
        hash = @($contents | ForEach-Object -Process {
                if ($null -eq $_) {
                    ''
                }
                else {
                    [WebfarmKeyContainer]::Sha256($_)
                }
            })
    }
}

Function Assert-WebfarmSharedProof {
    <#
    .SYNOPSIS
    Throws unless every protected value of a configuration opens with the keys that are in their containers.

    .PARAMETER File
    The configuration.

    .PARAMETER Name
    What it is, for the message.

    .PARAMETER Advice
    What to do.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $File,

        [Parameter(Mandatory = $true)]
        [string]
        $Name,

        [Parameter(Mandatory = $true)]
        [string]
        $Advice
    )

    $bad = @(
        foreach ($verdict in [WebfarmProtection]::Prove($File, $null)) {
            if ($verdict.Verdict -ne 'ok') {
                ConvertTo-WebfarmValueFact -Verdict $verdict
            }
        }
    )
    if ($bad.Count -gt 0) {
        throw "$($bad.Count) protected values of $Name do not open with the keys of this host: $(Format-WebfarmProblem -Problem $bad) $Advice"
    }
}

Function Assert-WebfarmSharedFit {
    <#
    .SYNOPSIS
    Throws where the shared applicationHost.config does not fit this server. Where the server uses it already it only warns.

    .PARAMETER Change
    From New-WebfarmChange; its result and warnings receive the findings.

    .PARAMETER File
    The shared file.

    .PARAMETER InUse
    The server uses it already.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change,

        [Parameter(Mandatory = $true)]
        [object]
        $File,

        [Parameter(Mandatory = $true)]
        [bool]
        $InUse
    )

    $present = $File
    try {
        $present = [WebfarmConfiguration]::Load([System.IO.Path]::Combine((Get-WebfarmConfigurationFolder), 'applicationHost.config'))
    }
    catch {
        $Change.Warning.Add("The local configuration cannot be compared with the shared one: $(Get-WebfarmSentence -ErrorRecord $_)")
    }
    $fit = @{
        Candidate = $File
        Present = $present
        Changes = -not $InUse
        Accepted = $Change.Parameter['accept_unfit']
        Result = $Change.Result
        Warning = $Change.Warning
    }
    Confirm-WebfarmFit @fit
}

Function Get-WebfarmExportRecord {
    <#
    .SYNOPSIS
    Returns what an export would hold now and holds, as one text: two equal texts mean that nothing has to be exported.

    .PARAMETER Path
    The folder.

    .PARAMETER Hash
    The hashes of the three files in the folder.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Path,

        [Parameter(Mandatory = $true)]
        [AllowEmptyString()]
        [string[]]
        $Hash
    )

    $folder = Get-WebfarmConfigurationFolder
    $lines = @($Path.TrimEnd('\').ToLowerInvariant()) + $Hash
    foreach ($name in 'applicationHost.config', 'administration.config') {
        $lines += [WebfarmConfiguration]::Load([System.IO.Path]::Combine($folder, $name)).Sha256
    }
    foreach ($entry in Get-WebfarmSharedKey) {
        $lines += "$($entry.container) $($entry.before.fingerprint)"
    }
    foreach ($path in Get-WebfarmSharedKeyFile) {
        $lines += [WebfarmKeyContainer]::Sha256([System.IO.File]::ReadAllBytes($path))
    }
    return $lines -join "`n"
}

Function Get-WebfarmExportRecordPath {
    <#
    .SYNOPSIS
    Returns where the record of the last export lies.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param ()

    return [System.IO.Path]::Combine((Get-WebfarmStateFolder), 'shared-export.txt')
}

Function Test-WebfarmExported {
    <#
    .SYNOPSIS
    Tells whether the folder holds an export of the present configuration and keys that this host made.

    .PARAMETER Path
    The folder.

    .PARAMETER UserName
    The account that reads it.

    .PARAMETER Password
    Its password.
    #>
    [CmdletBinding()]
    [OutputType([bool])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Path,

        [Parameter()]
        [AllowEmptyString()]
        [AllowNull()]
        [string]
        $UserName,

        [Parameter()]
        [AllowNull()]
        [System.Security.SecureString]
        $Password
    )

    $record = Get-WebfarmExportRecordPath
    if (-not [System.IO.File]::Exists($record)) {
        return $false
    }
    try {
        $found = Read-WebfarmSharedFolder -Path $Path -UserName $UserName -Password $Password -WithKey $true
    }
    catch {
        Write-Verbose -Message "exported again: $_"
        return $false
    }
    return [System.IO.File]::ReadAllText($record) -ceq (Get-WebfarmExportRecord -Path $Path -Hash $found.hash)
}

Function Export-WebfarmShared {
    <#
    .SYNOPSIS
    Exports the three files and reads them back.

    .PARAMETER Path
    The folder.

    .PARAMETER Parameter
    The parameters of Export-IISConfiguration.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Path,

        [Parameter(Mandatory = $true)]
        [hashtable]
        $Parameter
    )

    if (-not $PSCmdlet.ShouldProcess($Path, 'export')) {
        return
    }
    $old = ''
    try {
        $old = (Read-WebfarmSharedFolder -Path $Path -UserName $Parameter.UserName -Password $Parameter.Password -WithKey $true).hash[2]
    }
    catch {
        Write-Verbose -Message "no complete export there yet: $_"
    }
    Invoke-WebfarmSharedCmdlet -Name 'Export-IISConfiguration' -Parameter $Parameter
    $found = Read-WebfarmSharedFolder -Path $Path -UserName $Parameter.UserName -Password $Parameter.Password -WithKey $true
    $local = [WebfarmConfiguration]::Load([System.IO.Path]::Combine((Get-WebfarmConfigurationFolder), 'applicationHost.config'))
    if (-not [WebfarmProtection]::SameContent($local, $null, $found.applicationHost, $null)) {
        throw "The exported applicationHost.config in $Path is another one than that of this host. Do not use the export; empty the folder and run again."
    }
    if ($found.hash[2] -eq $old) {
        throw "configEncKey.key in $Path is the old one: Export-IISConfiguration did not replace it. Do not use the export; empty the folder and run again."
    }
    [WebfarmProtectedFolder]::Ensure((Get-WebfarmStateFolder))
    $record = Get-WebfarmExportRecord -Path $Path -Hash $found.hash
    [WebfarmProtectedFolder]::WriteFile((Get-WebfarmExportRecordPath), [System.Text.Encoding]::UTF8.GetBytes($record))
}

Function Enable-WebfarmShared {
    <#
    .SYNOPSIS
    Calls Enable-IISSharedConfig and proves what it did; throws otherwise. Part of a transaction.

    .PARAMETER Parameter
    The parameters of Enable-IISSharedConfig.

    .PARAMETER Plan
    From Get-WebfarmSharedKey; receives the keys afterwards.

    .PARAMETER Remote
    From Read-WebfarmSharedFolder.

    .PARAMETER Expected
    Fingerprints that the containers must hold afterwards, by container.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Parameter,

        [Parameter(Mandatory = $true)]
        [object[]]
        $Plan,

        [Parameter(Mandatory = $true)]
        [hashtable]
        $Remote,

        [Parameter()]
        [AllowNull()]
        [System.Collections.IDictionary]
        $Expected
    )

    if (-not $PSCmdlet.ShouldProcess($Parameter.PhysicalPath, 'enable shared configuration')) {
        return
    }
    try {
        Invoke-WebfarmSharedCmdlet -Name 'Enable-IISSharedConfig' -Parameter $Parameter
    }
    finally {
        Update-WebfarmSharedKey -Plan $Plan
    }
    $state = Get-WebfarmSharedState
    if (-not $state.enabled -or $state.path.TrimEnd('\') -ne $Parameter.PhysicalPath.TrimEnd('\')) {
        throw "Enable-IISSharedConfig ended, but redirection.config says enabled=$($state.enabled), path '$($state.path)'."
    }
    foreach ($entry in $Plan) {
        if ($Parameter['DontCopyRemoteKeys'] -and $entry.after.fingerprint -ne $entry.before.fingerprint) {
            throw "Enable-IISSharedConfig changed the key in $($entry.container), which it was not to do."
        }
        $pinned = ''
        if ($null -ne $Expected) {
            $pinned = [string]$Expected[$entry.container]
        }
        if ($pinned -and $entry.after.fingerprint -ne $pinned.ToLowerInvariant()) {
            throw "$($entry.container) holds the key $($entry.after.fingerprint) after the import, expected_fingerprints says $pinned."
        }
    }
    Assert-WebfarmSharedProof -File $Remote.applicationHost -Name 'the shared applicationHost.config' -Advice 'The key file does not fit the configuration.'
}

Function Disable-WebfarmShared {
    <#
    .SYNOPSIS
    Calls Disable-IISSharedConfig so that the imported keys stay, and proves what it did; throws otherwise. Part of a transaction.

    .PARAMETER Copy
    The shared configuration takes the place of the local one.

    .PARAMETER Plan
    From Get-WebfarmSharedKey; receives the keys afterwards.

    .PARAMETER Expected
    The configuration that must be the local one afterwards.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [bool]
        $Copy,

        [Parameter(Mandatory = $true)]
        [object[]]
        $Plan,

        [Parameter(Mandatory = $true)]
        [object]
        $Expected
    )

    if (-not $PSCmdlet.ShouldProcess('shared configuration', 'disable')) {
        return
    }
    $parameter = @{ DontRestoreBackedUpKeys = $true }
    if ($Copy) {
        $parameter = @{ CopyRemoteConfigToLocalFiles = $true }
    }
    try {
        Invoke-WebfarmSharedCmdlet -Name 'Disable-IISSharedConfig' -Parameter $parameter
    }
    finally {
        Update-WebfarmSharedKey -Plan $Plan
    }
    if ((Get-WebfarmSharedState).enabled) {
        throw 'Disable-IISSharedConfig ended, but redirection.config is still enabled.'
    }
    foreach ($entry in $Plan) {
        if ($entry.after.fingerprint -ne $entry.before.fingerprint) {
            throw "Disable-IISSharedConfig changed the key in $($entry.container), which it was not to do."
        }
    }
    $local = [WebfarmConfiguration]::Load([System.IO.Path]::Combine((Get-WebfarmConfigurationFolder), 'applicationHost.config'))
    if (-not [WebfarmProtection]::SameContent($local, $null, $Expected, $null)) {
        throw 'Disable-IISSharedConfig left another applicationHost.config than the one that was to stay.'
    }
    Assert-WebfarmSharedProof -File $local -Name 'the local applicationHost.config' -Advice 'Keys and configuration do not fit.'
}

Function Invoke-WebfarmSharedTransaction {
    <#
    .SYNOPSIS
    Runs an action as a transaction around keys, redirection.config and the local configuration; throws when it was not committed.

    .PARAMETER Change
    From New-WebfarmChange.

    .PARAMETER Plan
    From Get-WebfarmSharedKey.

    .PARAMETER Action
    What is to be done; it gets a list for its steps.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Change,

        [Parameter(Mandatory = $true)]
        [object[]]
        $Plan,

        [Parameter(Mandatory = $true)]
        [scriptblock]
        $Action
    )

    if (-not $PSCmdlet.ShouldProcess('keys and configuration', 'change')) {
        return
    }
    $files = @(
        foreach ($name in 'redirection.config', 'applicationHost.config', 'administration.config') {
            $path = [System.IO.Path]::Combine((Get-WebfarmConfigurationFolder), $name)
            $file = [WebfarmConfiguration]::Load($path)
            @{ path = $path; before = $file.Bytes; before_sha256 = $file.Sha256; after = $file.Bytes; after_sha256 = $file.Sha256 }
        }
        foreach ($path in Get-WebfarmSharedKeyFile) {
            $data = [System.IO.File]::ReadAllBytes($path)
            $hash = [WebfarmKeyContainer]::Sha256($data)
            @{ path = $path; store = 'key'; before = $data; before_sha256 = $hash; after = $data; after_sha256 = $hash }
        }
    )
    $option = @{ accepted = @{} }
    foreach ($name in 'start_services', 'start_timeout', 'stop_timeout', 'warm_up', 'undo_expiry_hours', 'without_undo', 'deadman_minutes', 'prior_backups') {
        $option[$name] = $Change.Parameter[$name]
    }
    $option.check = Get-WebfarmLogonCheck -Parameter $Change.Parameter
    $option.settler = $Change.Parameter['_settler']
    $option.verify_urls = @($Change.Parameter.verify_urls)
    $call = @{
        Plan = $Plan
        KeySet = New-Object -TypeName WebfarmKeySet
        File = $files
        InService = $true
        Action = $Action
        Option = $option
    }
    $report = Invoke-WebfarmTransaction @call
    Add-WebfarmReport -Change $Change -Report $report -InService $true
    if ($report.Outcome -ne 'committed') {
        throw $report.Message
    }
}

$export = @{
    Function = @(
        'Assert-WebfarmSharedFit'
        'Assert-WebfarmSharedOption'
        'Assert-WebfarmSharedProof'
        'Disable-WebfarmShared'
        'Enable-WebfarmShared'
        'Export-WebfarmShared'
        'Get-WebfarmSharedKey'
        'Get-WebfarmSharedState'
        'Get-WebfarmStayingFile'
        'Import-WebfarmIisAdministration'
        'Invoke-WebfarmSharedTransaction'
        'Read-WebfarmSharedFolder'
        'Test-WebfarmExported'
    )
}
Export-ModuleMember @export
