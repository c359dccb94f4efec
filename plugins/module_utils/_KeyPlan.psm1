# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# Which keys a host has to take over, and how they reach it. PowerShell sees names, fingerprints, access lists and sealed data;
# opened keys stay inside C# objects that show nothing.

#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -CSharpUtil ..module_utils._ProtectedFolder
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._Diagnosis
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._KeyAccess

# A transport container is only ever deleted by a name of this form: a wrong name must not cost a real key.
$script:transportPattern = '^webfarm\.iis\.transport\.[0-9a-f]{32}$'
$script:transportSeconds = 3600

Function Get-WebfarmBundleSpec {
    <#
    .SYNOPSIS
    Returns the options that every module shares which takes over keys from a bundle. Names with an underscore are set by the
    action plugin.
    #>
    [CmdletBinding()]
    [OutputType([hashtable])]
    param ()

    return @{
        options = @{
            allow_unencrypted_transport = @{
                type = 'bool'
                default = $false
            }
            containers = @{
                type = 'list'
                elements = 'str'
            }
            expected_fingerprints = @{
                type = 'dict'
            }
            exportable = @{
                type = 'bool'
            }
            opening_content = @{
                type = 'str'
                no_log = $true
            }
            opening_file = @{
                type = 'path'
            }
            opening_passphrase = @{
                type = 'str'
                no_log = $true
            }
            signer_certificate = @{
                type = 'path'
            }
            _phase = @{
                type = 'str'
                choices = 'plan', 'compare', 'apply', 'cleanup'
            }
            _planned = @{
                type = 'list'
                elements = 'dict'
                default = @()
                options = @{
                    bits = @{
                        type = 'int'
                    }
                    container = @{
                        type = 'str'
                        required = $true
                    }
                    fingerprint = @{
                        type = 'str'
                        required = $true
                    }
                    sddl = @{
                        type = 'str'
                    }
                }
            }
            _sealed = @{
                type = 'str'
                no_log = $true
            }
            _transport = @{
                type = 'str'
            }
        }
    }
}

Function Get-WebfarmTransactionSpec {
    <#
    .SYNOPSIS
    Returns the options of every module that changes something through the transaction.
    #>
    [CmdletBinding()]
    [OutputType([hashtable])]
    param ()

    return @{
        options = @{
            accept_undecryptable = @{
                type = 'list'
                elements = 'dict'
                default = @()
                options = @{
                    path = @{
                        type = 'str'
                        required = $true
                    }
                    reason = @{
                        type = 'str'
                        required = $true
                    }
                }
            }
            dependents = @{
                type = 'str'
                choices = 'fail', 'reencrypt'
                default = 'fail'
            }
            undo_expiry_hours = @{
                type = 'int'
                default = 72
            }
            without_undo = @{
                type = 'bool'
                default = $false
            }
        }
    }
}

Function Get-WebfarmDeadmanSpec {
    <#
    .SYNOPSIS
    Returns the options of every module that keeps a journal: what settles an interrupted run, and what precedes it.
    #>
    [CmdletBinding()]
    [OutputType([hashtable])]
    param ()

    return @{
        options = @{
            deadman_minutes = @{
                type = 'int'
                default = 15
            }
            prior_backups = @{
                type = 'int'
                default = 10
            }
            _settler = @{
                type = 'str'
                no_log = $true
            }
        }
    }
}

Function Get-WebfarmServiceSpec {
    <#
    .SYNOPSIS
    Returns the options of every module that stops and starts services around a change.
    #>
    [CmdletBinding()]
    [OutputType([hashtable])]
    param ()

    return @{
        options = (Get-WebfarmDeadmanSpec).options + @{
            logon_test = @{
                type = 'bool'
                default = $false
            }
            start_services = @{
                type = 'str'
                choices = 'as_before', 'automatic'
                default = 'as_before'
            }
            start_timeout = @{
                type = 'int'
                default = 180
            }
            stop_timeout = @{
                type = 'int'
                default = 180
            }
            verify_urls = @{
                type = 'list'
                elements = 'dict'
                default = @()
                options = @{
                    host_header = @{
                        type = 'str'
                    }
                    status = @{
                        type = 'list'
                        elements = 'int'
                        default = @(200)
                    }
                    url = @{
                        type = 'str'
                        required = $true
                    }
                }
            }
            warm_up = @{
                type = 'bool'
                default = $true
            }
        }
    }
}

Function Get-WebfarmStateFolder {
    <#
    .SYNOPSIS
    Returns the folder where journal, undo sets and transport markers lie. It is not created.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param ()

    $data = [Environment]::GetFolderPath([Environment+SpecialFolder]::CommonApplicationData)
    return [System.IO.Path]::Combine($data, 'webfarm.iis')
}

Function Get-WebfarmSentence {
    <#
    .SYNOPSIS
    Returns the message of an error as a sentence with one full stop.

    .PARAMETER ErrorRecord
    The error.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [System.Management.Automation.ErrorRecord]
        $ErrorRecord
    )

    $text = (Get-WebfarmErrorText -ErrorRecord $ErrorRecord).TrimEnd().TrimEnd('.')
    if ($text.EndsWith('?')) {
        return $text
    }
    return "$text."
}

Function Get-WebfarmUnixTime {
    <#
    .SYNOPSIS
    Returns the seconds since 1970. Journals hold times as numbers: PowerShell 7 turns date texts into dates when it reads JSON, 5.1 does not.
    #>
    [CmdletBinding()]
    [OutputType([long])]
    param ()

    return [DateTimeOffset]::UtcNow.ToUnixTimeSeconds()
}

Function New-WebfarmTransport {
    <#
    .SYNOPSIS
    Makes a non-exportable key pair for one transfer and returns its public half.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param ()

    $name = 'webfarm.iis.transport.' + [Guid]::NewGuid().ToString('N')
    if (-not $PSCmdlet.ShouldProcess($name, 'create transport container')) {
        return
    }
    # The marker comes first: a run that dies here leaves nothing that a later one could not find.
    $folder = Get-WebfarmStateFolder
    [WebfarmProtectedFolder]::Ensure($folder)
    $folder = [System.IO.Path]::Combine($folder, 'transport')
    [WebfarmProtectedFolder]::Ensure($folder)
    [WebfarmProtectedFolder]::WriteFile([System.IO.Path]::Combine($folder, $name), [byte[]]@())
    try {
        $transport = [WebfarmKeyContainer]::CreateTransport($name)
    }
    catch {
        [System.IO.File]::Delete([System.IO.Path]::Combine($folder, $name))
        throw "No transport key could be made: $(Get-WebfarmErrorText -ErrorRecord $_)"
    }
    return [ordered]@{
        container = $transport.Container
        modulus = $transport.Modulus
        exponent = $transport.Exponent
    }
}

Function Remove-WebfarmTransport {
    <#
    .SYNOPSIS
    Deletes a transport container and its marker. One that is gone already is fine.

    .PARAMETER Name
    The name of the container.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Name
    )

    if ($Name -cnotmatch $script:transportPattern) {
        throw "'$Name' is not the name of a transport container; nothing was deleted."
    }
    if (-not $PSCmdlet.ShouldProcess($Name, 'delete transport container')) {
        return
    }
    $failure = 'it is still there'
    for ($i = 0; [WebfarmKeyContainer]::Inspect($Name, 'cryptoapi').State -ne 'missing'; $i++) {
        if ($i -eq 5) {
            throw "The transport container $Name could not be deleted: $failure"
        }
        try {
            [WebfarmKeyContainer]::Delete($Name)
        }
        catch {
            $failure = Get-WebfarmErrorText -ErrorRecord $_
        }
        if ($i -gt 0) {
            Start-Sleep -Milliseconds 200
        }
    }
    $marker = [System.IO.Path]::Combine((Get-WebfarmStateFolder), 'transport', $Name)
    if ([System.IO.File]::Exists($marker)) {
        [System.IO.File]::Delete($marker)
    }
}

Function Clear-WebfarmTransport {
    <#
    .SYNOPSIS
    Deletes transport containers that an interrupted run left behind more than an hour ago. Returns their names.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    [OutputType([string])]
    param ()

    $folder = [System.IO.Path]::Combine((Get-WebfarmStateFolder), 'transport')
    if (-not [System.IO.Directory]::Exists($folder) -or [WebfarmProtectedFolder]::Problem($folder)) {
        return
    }
    foreach ($marker in [System.IO.Directory]::GetFiles($folder)) {
        $name = [System.IO.Path]::GetFileName($marker)
        $age = [DateTime]::UtcNow - [System.IO.File]::GetLastWriteTimeUtc($marker)
        if ($name -cmatch $script:transportPattern -and $age.TotalSeconds -gt $script:transportSeconds -and
            $PSCmdlet.ShouldProcess($name, 'delete left-over transport container')) {
            Remove-WebfarmTransport -Name $name
            $name
        }
    }
}

Function ConvertTo-WebfarmKeyState {
    <#
    .SYNOPSIS
    Returns what results show of a container: state, fingerprint, bits, exportable.

    .PARAMETER Info
    From [WebfarmKeyContainer]::Inspect.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Info
    )

    return [ordered]@{
        state = $Info.State
        fingerprint = $Info.Fingerprint
        bits = $Info.Bits
        exportable = $Info.Exportable
    }
}

Function ConvertTo-WebfarmPlanEntry {
    <#
    .SYNOPSIS
    Returns the entry of a plan for a CryptoAPI container, as a transaction takes it: state and access list of now, and what comes.

    .PARAMETER Container
    The name of the container.

    .PARAMETER Info
    From [WebfarmKeyContainer]::Inspect.

    .PARAMETER After
    The state afterwards, as from ConvertTo-WebfarmKeyState; the present one when omitted.

    .PARAMETER Changed
    Whether the key changes.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container,

        [Parameter(Mandatory = $true)]
        [object]
        $Info,

        [Parameter()]
        [object]
        $After,

        [Parameter()]
        [bool]
        $Changed = $false
    )

    $before = ConvertTo-WebfarmKeyState -Info $Info
    if ($null -eq $After) {
        $After = $before
    }
    return [ordered]@{
        container = $Container
        store = 'cryptoapi'
        before = $before
        after = $After
        changed = $Changed
        key_changes = $Changed
        created = $Info.State -eq 'missing'
        sddl = [string]$Info.Sddl
        new_sddl = ''
        dropped_sids = @()
        file_path = [string]$Info.FilePath
    }
}

Function Get-WebfarmKeyPlan {
    <#
    .SYNOPSIS
    Compares the planned keys with those of the host. Returns one entry per container.

    .DESCRIPTION
    An entry holds container, store, before, after, changed, created, sddl (before), new_sddl (for a container that is
    made), dropped_sids and file_path.

    .PARAMETER Planned
    Dictionaries with container, fingerprint, bits and sddl, as the action sends them.

    .PARAMETER Exportable
    Whether imported keys may be exported again; $null: as the replaced key, and not for a new container.

    .PARAMETER WmsvcInstalled
    The Management Service is installed.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [object[]]
        $Planned = @(),

        [Parameter()]
        [AllowNull()]
        [object]
        $Exportable,

        [Parameter()]
        [switch]
        $WmsvcInstalled
    )

    $seen = New-Object -TypeName System.Collections.Generic.HashSet[string] -ArgumentList ([System.StringComparer]::OrdinalIgnoreCase)
    foreach ($item in $Planned) {
        $name = [string]$item.container
        $fingerprint = ([string]$item.fingerprint).ToLowerInvariant()
        if (-not $seen.Add($name)) {
            throw "The bundle names the container $name twice."
        }
        if ($fingerprint -notmatch '^[0-9a-f]{64}$') {
            throw "The fingerprint planned for $name is not a SHA-256 in hexadecimal."
        }
        if (@('iisCngWasKey', 'iisCngConfigurationKey') -contains $name) {
            throw "$name is a CNG key; those do not leave their machine. Make the configuration portable instead (config_rewrap with cng=portable)."
        }
        $info = [WebfarmKeyContainer]::Inspect($name, 'cryptoapi')
        if ($info.State -ne 'present' -and $info.State -ne 'missing') {
            $diagnosis = Get-WebfarmDiagnosis -Code $info.Error -Verdict $info.State -Context open -Container $name
            $aside = ''
            if ($info.State -eq 'damaged' -and $info.FilePath) {
                $aside = "To import a key here, move $($info.FilePath) away first (keep it). "
            }
            throw "The key container $name is $($info.State): $(([string]$info.ErrorMessage).TrimEnd('.')). $($diagnosis.cause) $($diagnosis.fix) " +
            "${aside}Nothing was changed."
        }
        $created = $info.State -eq 'missing'
        $wanted = [bool]$Exportable
        if ($null -eq $Exportable -and -not $created) {
            $wanted = [bool]$info.Exportable
        }
        $changed = $info.Fingerprint -ne $fingerprint
        if (-not $changed -and $null -ne $Exportable -and $info.Exportable -ne $wanted) {
            $changed = $true
        }
        $entry = ConvertTo-WebfarmPlanEntry -Container $name -Info $info -Changed $changed
        if ($changed) {
            $entry.after = [ordered]@{
                state = 'present'
                fingerprint = $fingerprint
                bits = $item.bits
                exportable = $wanted
            }
        }
        if ($created) {
            $access = Get-WebfarmNewKeyAccess -Container $name -Sddl ([string]$item.sddl) -WmsvcInstalled:$WmsvcInstalled
            $entry.new_sddl = $access.sddl
            $entry.dropped_sids = $access.dropped
        }
        $entry
    }
}

Function Open-WebfarmSealedKey {
    <#
    .SYNOPSIS
    Opens the sealed private keys in memory and returns them as a key set. Each must have the planned fingerprint.

    .PARAMETER Plan
    Entries from Get-WebfarmKeyPlan; those that change are opened.

    .PARAMETER Sealed
    JSON list of dictionaries with container, iv, ciphertext and wrapped: nothing in it is clear.

    .PARAMETER Transport
    The name of the transport container.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [object[]]
        $Plan = @(),

        [Parameter(Mandatory = $true)]
        [AllowEmptyString()]
        [string]
        $Sealed,

        [Parameter(Mandatory = $true)]
        [AllowEmptyString()]
        [string]
        $Transport
    )

    $set = New-Object -TypeName WebfarmKeySet
    try {
        $wanted = @($Plan | Where-Object -FilterScript { $_.changed })
        if ($wanted.Count -gt 0) {
            if ($Transport -cnotmatch $script:transportPattern) {
                throw 'The keys have no transport container: run the task again.'
            }
            $parts = @{}
            foreach ($part in ConvertFrom-Json -InputObject $Sealed) {
                $parts[[string]$part.container] = $part
            }
            foreach ($entry in $wanted) {
                $name = $entry.container
                if (-not $parts.ContainsKey($name)) {
                    throw "The private key of $name did not arrive: the host changed between the two calls. Run the task again."
                }
                $part = $parts[$name]
                try {
                    $secret = [WebfarmKeyContainer]::Unseal($Transport, $part.iv, $part.ciphertext, $part.wrapped)
                }
                catch {
                    throw "The private key of $name cannot be opened with the transport key: $(Get-WebfarmErrorText -ErrorRecord $_)"
                }
                $set.Add($name, $secret)
                $found = [WebfarmKeyContainer]::Fingerprint($secret)
                if ($found -ne $entry.after.fingerprint) {
                    throw "The private key that arrived for $name has the fingerprint $found, planned is $($entry.after.fingerprint)."
                }
                $entry.after.bits = [WebfarmKeyContainer]::Bits($secret)
            }
        }
        return , $set
    }
    catch {
        $set.Dispose()
        throw
    }
}

Function Get-WebfarmCandidateProof {
    <#
    .SYNOPSIS
    Tries every protected value of a candidate configuration with the keys that the host is going to hold.

    .DESCRIPTION
    Returns a dictionary: Values (entries for protected_values), Problems (those that are neither ok nor accepted nor pending),
    Pending (paths that wait for a key), Accepted, Proven, Needed (container and store of every provider in use).

    .PARAMETER File
    The candidate.

    .PARAMETER KeySet
    New keys, used in a throw-away context; $null: those of the host.

    .PARAMETER Pending
    Containers whose new keys are not there yet: what depends on them cannot be judged now.

    .PARAMETER Accepted
    The hashtable from ConvertTo-WebfarmAcceptance.

    .PARAMETER Warning
    A list that receives session keys that do not open although no value needs them.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $File,

        [Parameter()]
        [AllowNull()]
        [object]
        $KeySet,

        [Parameter()]
        [string[]]
        $Pending = @(),

        [Parameter()]
        [hashtable]
        $Accepted = @{},

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    $proof = @{
        Values = New-Object -TypeName System.Collections.Generic.List[object]
        Problems = New-Object -TypeName System.Collections.Generic.List[object]
        Pending = New-Object -TypeName System.Collections.Generic.List[string]
        Accepted = 0
        Proven = 0
        Needed = New-Object -TypeName System.Collections.Generic.List[object]
    }
    $used = @{}
    foreach ($verdict in [WebfarmProtection]::Prove($File, $KeySet)) {
        $fact = ConvertTo-WebfarmValueFact -Verdict $verdict -Accepted $Accepted
        $proof.Values.Add($fact)
        if ($fact.provider) {
            $used[$fact.provider] = $true
        }
        if ($fact.container -and $Pending -contains $fact.container) {
            foreach ($name in 'hresult', 'message', 'cause', 'fix') {
                $fact[$name] = $null
            }
            $fact.verdict = 'pending'
            $proof.Pending.Add($fact.path)
        }
        elseif ($fact.verdict -eq 'ok') {
            $proof.Proven++
        }
        elseif ($fact.accepted) {
            $proof.Accepted++
        }
        else {
            $proof.Problems.Add($fact)
        }
    }
    foreach ($provider in $File.Providers) {
        if ($used.ContainsKey($provider.Name) -and $provider.Container) {
            $store = if ($provider.Kind -eq 'cng') { 'cng' } else { 'cryptoapi' }
            $proof.Needed.Add(@{ container = $provider.Container; store = $store })
        }
    }
    foreach ($session in [WebfarmProtection]::ProveSessionKeys($File, $KeySet)) {
        if ($session.Verdict -ne 'ok' -and -not $used.ContainsKey($session.Provider) -and $Pending -notcontains $session.Container) {
            $Warning.Add("The session key of $($session.Provider) in $($File.Name) does not open with $($session.Container) ($($session.Verdict)). " +
                'No value needs it now, but IIS cannot encrypt new ones with it.')
        }
    }
    return $proof
}

Export-ModuleMember -Function @(
    'Clear-WebfarmTransport'
    'ConvertTo-WebfarmKeyState'
    'ConvertTo-WebfarmPlanEntry'
    'Get-WebfarmBundleSpec'
    'Get-WebfarmCandidateProof'
    'Get-WebfarmDeadmanSpec'
    'Get-WebfarmKeyPlan'
    'Get-WebfarmSentence'
    'Get-WebfarmServiceSpec'
    'Get-WebfarmStateFolder'
    'Get-WebfarmTransactionSpec'
    'Get-WebfarmUnixTime'
    'New-WebfarmTransport'
    'Open-WebfarmSealedKey'
    'Remove-WebfarmTransport'
)
