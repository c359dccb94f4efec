# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# The self-test: questions about Windows that only Windows answers. Everything that is tried is tried with scratch containers and in a scratch
# folder, whose names are always the same, and goes in any case. Of IIS only access lists are read.

#AnsibleRequires -CSharpUtil ..module_utils._CngKey
#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._ProtectedFolder
#AnsibleRequires -CSharpUtil ..module_utils._ScratchKey
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Regiis

$script:folderName = 'webfarm.iis-selftest'
$script:keyFiles = @(
    @{ container = 'iisWasKey'; store = 'cryptoapi' }
    @{ container = 'iisConfigurationKey'; store = 'cryptoapi' }
    @{ container = 'iisCngWasKey'; store = 'cng' }
    @{ container = 'iisCngConfigurationKey'; store = 'cng' }
)

# What is asked, in the order of the report. expected is what the collection relies on.
$script:questions = [ordered]@{
    cng_key = @{
        point = 1
        question = 'What does a key of the kind that IIS 10 uses (SP800_108_CTR_HMAC, machine key) look like: length, export policy, access list, file name?'
        done = 'Two scratch keys were made, one with an export policy, and their properties read.'
        expected = 'It can be made. Its file has the name that the rule gives.'
    }
    cng_transfer = @{
        point = 1
        question = 'Does such a key travel as KDFKeyBlob?'
        done = 'Both scratch keys were exported, the first was imported under a third name, and a value of the first opened with the third.'
        expected = 'With the policy it is exported, imported, and opens the values. Without the policy the export is refused.'
    }
    cng_value = @{
        point = 1
        question = 'How is a value of cngkeyhelper.dll made: bytes 0 to 15, 16 to 47, the rest, and the padding?'
        done = 'IIS''s DLL encrypted throw-away texts with two scratch keys; the values were compared, opened with the derived key, and changed.'
        expected = 'IV, a field, AES-256-CBC of the text and its end under the key that SP800-108 derives. The field is not known.'
    }
    cng_iis_keys = @{
        point = 1
        question = 'Which export policy and access list do the CNG keys of IIS have?'
        done = 'Their properties were read, as key_info does. No key was exported, used or changed.'
        expected = 'Not known.'
    }
    regiis_exit = @{
        point = 2
        question = 'With which code does aspnet_regiis end?'
        done = 'It was run with scratch containers and files, rightly and wrongly.'
        expected = '0 when it did what was asked, 1 otherwise. A public key alone counts as done.'
    }
    regiis_size = @{
        point = 2
        question = 'Does -size of aspnet_regiis -pc have an effect?'
        done = 'A scratch container was made with -size 4096.'
        expected = 'None: the key has 2048 bits.'
    }
    regiis_access = @{
        point = 2
        question = 'What becomes of the access list when aspnet_regiis -pi writes into an existing and a new container?'
        done = 'A key was imported over a scratch container with one entry more, and into one that did not exist.'
        expected = 'The list of an existing container stays. A new one has the list of its creator.'
    }
    regiis_public_only = @{
        point = 2
        question = 'What does aspnet_regiis -pi do with a public key?'
        done = 'One was imported over a scratch container and into a missing one.'
        expected = 'An existing container keeps its key. A missing one is made, with another, random key.'
    }
    library = @{
        point = 2
        question = 'Does the collection''s own way with containers hold here?'
        done = 'With scratch containers: import, export, access list, replace, refuse, seal and open, delete.'
        expected = 'Every step does what it should.'
    }
    access_lists = @{
        point = 3
        question = 'Who may read the four key files of IIS and their two folders?'
        done = 'The access lists of the files and folders were read. No key was opened.'
        expected = 'As the collection demands: SYSTEM and Administrators; IIS_IUSRS the two configuration keys; LOCAL SERVICE with the Management Service.'
    }
}

Function Get-WebfarmSelftestFolder {
    <#
    .SYNOPSIS
    Returns the path of the scratch folder. It is not created.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param ()

    $data = [Environment]::GetFolderPath([Environment+SpecialFolder]::CommonApplicationData)
    return [System.IO.Path]::Combine($data, $script:folderName)
}

Function Enter-WebfarmSelftest {
    <#
    .SYNOPSIS
    Makes this the only self-test of the host. Returns the lock, which the caller releases.
    #>
    [CmdletBinding()]
    param ()

    $name = 'Global\webfarm.iis-selftest'
    $mutex = New-Object -TypeName System.Threading.Mutex -ArgumentList $false, $name
    try {
        if (-not $mutex.WaitOne(1000)) {
            $mutex.Dispose()
            throw "Another self-test runs on this host (lock $name). Wait until it has ended, and run again."
        }
    }
    catch [System.Threading.AbandonedMutexException] {
        # Its owner was killed; what it left is removed next.
        Write-Verbose -Message 'The last self-test was interrupted.'
    }
    return $mutex
}

Function Get-WebfarmScratch {
    <#
    .SYNOPSIS
    Returns the names of scratch containers and the scratch folder that are there now.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param ()

    foreach ($name in [WebfarmScratch]::Containers) {
        if ([WebfarmKeyContainer]::Inspect($name, 'cryptoapi').State -ne 'missing') {
            $name
        }
    }
    (New-Object -TypeName WebfarmCngTrial).Existing()
    $folder = Get-WebfarmSelftestFolder
    if ([System.IO.Directory]::Exists($folder)) {
        $folder
    }
}

Function Remove-WebfarmScratch {
    <#
    .SYNOPSIS
    Deletes everything that a self-test makes. Tries all of it, then throws when something stayed.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param ()

    $problems = @()
    foreach ($name in [WebfarmScratch]::Containers) {
        [WebfarmScratch]::Require($name)
        if ([WebfarmKeyContainer]::Inspect($name, 'cryptoapi').State -ne 'missing' -and $PSCmdlet.ShouldProcess($name, 'delete')) {
            try {
                [WebfarmKeyContainer]::Delete($name)
            }
            catch {
                $problems += Get-WebfarmErrorText -ErrorRecord $_
            }
        }
    }
    if ($PSCmdlet.ShouldProcess('CNG scratch keys', 'delete')) {
        try {
            $null = (New-Object -TypeName WebfarmCngTrial).Remove()
        }
        catch {
            $problems += Get-WebfarmErrorText -ErrorRecord $_
        }
    }
    $folder = Get-WebfarmSelftestFolder
    if ([System.IO.Directory]::Exists($folder) -and $PSCmdlet.ShouldProcess($folder, 'delete')) {
        try {
            $problem = [WebfarmProtectedFolder]::Problem($folder)
            if ($problem) {
                throw "The folder $folder is not the self-test's own: $problem. Look at what it holds and remove it."
            }
            [System.IO.Directory]::Delete($folder, $true)
        }
        catch {
            $problems += Get-WebfarmErrorText -ErrorRecord $_
        }
    }
    if ($problems.Count -gt 0) {
        throw "Not everything of the self-test could be removed: $($problems -join ' ') Run it again, or remove by hand what begins with $($script:folderName)."
    }
}

Function Get-WebfarmSelftestHost {
    <#
    .SYNOPSIS
    Returns what kind of Windows this is, and the name of the server only where it is asked for.

    .PARAMETER Name
    Tell the name.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [switch]
        $Name
    )

    $read = {
        param ($Path, $Value)
        $key = 'HKLM:\SOFTWARE\Microsoft\' + $Path
        if (Test-Path -LiteralPath $key) {
            (Get-Item -LiteralPath $key).GetValue($Value)
        }
    }
    $windows = 'Windows NT\CurrentVersion'
    $build = [string](& $read $windows 'CurrentBuildNumber')
    $patch = & $read $windows 'UBR'
    if ($null -ne $patch) {
        $build += ".$patch"
    }
    $known = Get-WebfarmHostFact
    $hostName = $null
    if ($Name) {
        $hostName = $known.name
    }
    return [ordered]@{
        name = $hostName
        os = [string](& $read $windows 'ProductName')
        build = $build
        installation = [string](& $read $windows 'InstallationType')
        language = [System.Globalization.CultureInfo]::InstalledUICulture.Name
        iis = $known.iis_version
        dotnet_framework = & $read 'NET Framework Setup\NDP\v4\Full' 'Release'
        dotnet = [Environment]::Version.ToString()
        powershell = $known.powershell_version
        fips_policy = $known.fips_policy
    }
}

Function Protect-WebfarmIdentity {
    <#
    .SYNOPSIS
    Takes out of texts what tells whose server it is: machine GUID, computer name, SIDs of a domain, a machine or an application pool.

    .PARAMETER Value
    A text, list or dictionary; anything else comes back as it is.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [AllowNull()]
        [object]
        $Value
    )

    if ($Value -is [string]) {
        # The last number of a domain's or machine's SID says what kind of account it is, not whose.
        $text = $Value -replace 'S-1-5-21(-\d+){3}', 'S-1-5-21-(hidden)' -replace 'S-1-(5-82|12-1)(-\d+)+', 'S-1-$1-(hidden)'
        foreach ($own in [WebfarmKeyContainer]::MachineGuid(), [Environment]::MachineName) {
            # A name such as WIN would also stand in the middle of a word.
            if ($own) {
                $text = $text -replace ('(?<![a-z0-9-])' + [regex]::Escape($own) + '(?![\w-])'), '(hidden)'
            }
        }
        return $text
    }
    if ($Value -is [System.Collections.IDictionary]) {
        $copy = [ordered]@{}
        foreach ($name in $Value.Keys) {
            $copy[$name] = Protect-WebfarmIdentity -Value $Value[$name]
        }
        return $copy
    }
    if ($Value -is [System.Collections.IEnumerable]) {
        $list = @(
            foreach ($item in $Value) {
                Protect-WebfarmIdentity -Value $item
            }
        )
        return , $list
    }
    return $Value
}

Function New-WebfarmAnswer {
    <#
    .SYNOPSIS
    Returns the answer to one question.

    .PARAMETER Id
    The question.

    .PARAMETER Verdict
    confirmed, contradicted (of what the collection relies on), recorded (nothing relied on it), open, planned.

    .PARAMETER Text
    What came out, in one sentence.

    .PARAMETER Observed
    What was observed.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Id,

        [Parameter(Mandatory = $true)]
        [ValidateSet('confirmed', 'contradicted', 'recorded', 'open', 'planned')]
        [string]
        $Verdict,

        [Parameter(Mandatory = $true)]
        [string]
        $Text,

        [Parameter()]
        [System.Collections.IDictionary]
        $Observed = @{}
    )

    $known = $script:questions[$Id]
    $done = $known.done
    if ($Verdict -eq 'planned' -or ($Verdict -eq 'open' -and $Observed.Count -eq 0)) {
        $done = 'Nothing.'
    }
    return [ordered]@{
        id = $Id
        point = $known.point
        question = $known.question
        done = $done
        expected = $known.expected
        observed = $Observed
        verdict = $Verdict
        text = $Text
    }
}

Function Get-WebfarmPlannedAnswer {
    <#
    .SYNOPSIS
    Returns the questions with what would be done, for check mode.
    #>
    [CmdletBinding()]
    param ()

    foreach ($id in $script:questions.Keys) {
        New-WebfarmAnswer -Id $id -Verdict planned -Text "Would be done: $($script:questions[$id].done)"
    }
}

Function ConvertTo-WebfarmCngAnswer {
    <#
    .SYNOPSIS
    Judges what a trial with CNG keys observed.

    .PARAMETER Found
    Found of WebfarmCngTrial.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [System.Collections.IDictionary]
        $Found
    )

    $take = {
        param ($Pattern)
        $part = [ordered]@{}
        foreach ($name in @($Found.Keys) -match $Pattern) {
            $part[$name] = $Found[$name]
        }
        $part
    }
    $done = '0x00000000'
    $observed = & $take '^(open_provider|create|key_|default_|derive|missing)'
    $made = $Found['create_finish'] -eq $done -and $Found['create_second_finish'] -eq $done
    if (-not $made) {
        $failed = @($observed.Keys | Where-Object -FilterScript { [string]$observed[$_] -match '^0x' -and $observed[$_] -ne $done })
        $why = "No such key can be made here ($(@($failed | ForEach-Object -Process { "${_}: $($observed[$_])" }) -join ', ')$($observed['missing']))."
        New-WebfarmAnswer -Id cng_key -Verdict open -Text $why -Observed $observed
        New-WebfarmAnswer -Id cng_transfer -Verdict open -Text $why
        New-WebfarmAnswer -Id cng_value -Verdict open -Text $why
        return
    }
    $verdict = 'recorded'
    if ($null -ne $Found['key_file_by_rule']) {
        $verdict = 'contradicted'
        if ($Found['key_file_by_rule'] -and $Found['default_file_by_rule']) {
            $verdict = 'confirmed'
        }
    }
    $text = "Length $($Found['default_length']), export policy $($Found['default_policy']), file name by the rule: $($Found['key_file_by_rule'])."
    New-WebfarmAnswer -Id cng_key -Verdict $verdict -Text $text -Observed $observed

    $observed = & $take '^(export|blob_|import|copy_|decrypt_with_copy)'
    $travels = $Found['import_finish'] -eq $done -and $Found['blob_holds_secret'] -ne $false -and $Found['copy_is_equal']
    $opens = $Found['decrypt_with_copy_text']
    $verdict = 'contradicted'
    if ($travels -and $Found['export_default'] -ne $done -and $opens) {
        $verdict = 'confirmed'
    }
    elseif ($travels -and $Found['export_default'] -ne $done -and $null -eq $Found['decrypt_with_copy']) {
        $verdict = 'recorded'
    }
    $text = "Export with the policy $($Found['export']), without it $($Found['export_default']), import $($Found['import']); the copy opens the value: $opens."
    New-WebfarmAnswer -Id cng_transfer -Verdict $verdict -Text $text -Observed $observed

    $observed = & $take '^(encrypt|value_|iv_|field_|opens_|padding|decrypt|missing)'
    if ($null -eq $Found['field_is']) {
        $text = "IIS's cngkeyhelper.dll encrypted nothing ($($Found['encrypt'])$($Found['missing'])). It comes with IIS."
        New-WebfarmAnswer -Id cng_value -Verdict open -Text $text -Observed $observed
        return
    }
    $verdict = 'contradicted'
    if ($Found['opens_with_derived_key'] -and $Found['iv_differs'] -and $Found['decrypt_text'] -and $Found['derive_as_sp800_108'] -ne $false) {
        $verdict = 'confirmed'
    }
    $text = "The field is $($Found['field_is']), the same for one text: $($Found['field_equal_for_equal_text']), for one key: " +
    "$($Found['field_equal_for_other_text']). Padding: $($Found['padding']). A changed field: $($Found['decrypt_with_changed_field'])."
    New-WebfarmAnswer -Id cng_value -Verdict $verdict -Text $text -Observed $observed
}

Function Get-WebfarmIisKeyAnswer {
    <#
    .SYNOPSIS
    Describes the CNG keys of IIS as key_info does, where that was asked for.

    .PARAMETER Describe
    It was asked for.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [switch]
        $Describe
    )

    if (-not $Describe) {
        return New-WebfarmAnswer -Id cng_iis_keys -Verdict open -Text 'Not asked for: set describe_iis_keys to read their properties.'
    }
    $observed = [ordered]@{}
    foreach ($item in $script:keyFiles | Where-Object -FilterScript { $_.store -eq 'cng' }) {
        $file = [WebfarmKeyContainer]::FilePrefix($item.container, 'cng') + '_' + [WebfarmKeyContainer]::MachineGuid()
        $info = [WebfarmCngKey]::Inspect($item.container, $file)
        $observed[$item.container] = [ordered]@{
            state = $info.State
            algorithm = $info.Algorithm
            export_policy = @($info.ExportPolicyNames)
            sddl = $info.Sddl
            code = '0x{0:X8}' -f $info.Error
        }
    }
    $opened = @($observed.Values | Where-Object -FilterScript { $_.state -eq 'opened' })
    if ($opened.Count -eq 0) {
        return New-WebfarmAnswer -Id cng_iis_keys -Verdict open -Text 'NCrypt opens none of them here.' -Observed $observed
    }
    $lines = foreach ($name in $observed.Keys) {
        "${name}: $($observed[$name].state), export policy: $($observed[$name].export_policy -join ' and ')"
    }
    $text = $lines -join '; '
    return New-WebfarmAnswer -Id cng_iis_keys -Verdict recorded -Text "$text." -Observed $observed
}

Function ConvertTo-WebfarmRegiisAnswer {
    <#
    .SYNOPSIS
    Judges what a trial with aspnet_regiis observed.

    .PARAMETER Trial
    From Get-WebfarmRegiisTrial.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [hashtable]
        $Trial
    )

    $found = $Trial.Found
    $judge = {
        param ($Id, $Right, $Text, $Names)
        $observed = [ordered]@{}
        foreach ($name in $Names) {
            $observed[$name] = $found[$name]
        }
        $verdict = 'contradicted'
        if ($Right) {
            $verdict = 'confirmed'
        }
        New-WebfarmAnswer -Id $Id -Verdict $verdict -Text $Text -Observed $observed
    }
    $wrong = @($Trial.Exit | Where-Object -FilterScript { $_.exit -ne $_.expected } | ForEach-Object -Process { "$($_.case): $($_.exit)" })
    $verdict = 'confirmed'
    $text = "All $($Trial.Exit.Count) cases ended as expected."
    if ($wrong.Count -gt 0) {
        $verdict = 'contradicted'
        $text = "Otherwise than expected: $($wrong -join '; ')."
    }
    New-WebfarmAnswer -Id regiis_exit -Verdict $verdict -Text $text -Observed ([ordered]@{ cases = $Trial.Exit })
    & $judge 'regiis_size' ($found.size_4096_bits -eq 2048) "The key has $($found.size_4096_bits) bits." @('new_bits', 'size_4096_bits')
    $right = $found.import_replaced_the_key -and $found.import_kept_the_access_list
    $text = "An existing list stays: $($found.import_kept_the_access_list). A new container: $($found.import_new_sddl)."
    & $judge 'regiis_access' $right $text @(
        'import_replaced_the_key', 'import_kept_the_access_list', 'import_new_sddl', 'import_without_exp_is_exportable')
    $right = -not $found.public_only_changed_the_key -and $found.public_only_made_another_key
    $text = "An existing key changes: $($found.public_only_changed_the_key). A missing container gets a random key: $($found.public_only_made_another_key)."
    & $judge 'regiis_public_only' $right $text @(
        'public_only_changed_the_key', 'public_only_made', 'public_only_made_another_key', 'state_after_missing_file', 'state_after_bad_file')
}

Function Test-WebfarmWithin {
    <#
    .SYNOPSIS
    Tells whether something holds within a few seconds: a key file may come or go a moment after the call.

    .PARAMETER Condition
    What shall hold.
    #>
    [CmdletBinding()]
    [OutputType([bool])]
    param (
        [Parameter(Mandatory = $true)]
        [scriptblock]
        $Condition
    )

    $end = [DateTime]::UtcNow.AddSeconds(15)
    while (-not (& $Condition)) {
        if ([DateTime]::UtcNow -ge $end) {
            return $false
        }
        Start-Sleep -Milliseconds 100
    }
    return $true
}

Function Get-WebfarmLibraryAnswer {
    <#
    .SYNOPSIS
    Goes with scratch containers through what the modules do with real ones.
    #>
    [CmdletBinding()]
    param ()

    $first, $second, $third = [WebfarmScratch]::Containers[0..2]
    foreach ($name in $first, $second, $third) {
        [WebfarmScratch]::Require($name)
    }
    $list = 'D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FR;;;LS)'
    $checks = [ordered]@{}
    $key = [WebfarmKeyContainer]::Generate(2048)
    $other = [WebfarmKeyContainer]::Generate(2048)
    $opened = $null
    try {
        $checks.import_makes_a_container = [WebfarmKeyContainer]::ImportPrivate($first, $key, $true)
        $info = [WebfarmKeyContainer]::Inspect($first, 'cryptoapi')
        $newList = $info.Sddl
        $print = [WebfarmKeyContainer]::Fingerprint($key)
        $checks.fingerprint_is_the_key_s = $info.Fingerprint -eq $print -and $info.Bits -eq 2048 -and $info.Exportable
        $checks.file_has_the_name_of_the_rule = Test-WebfarmWithin -Condition { [WebfarmKeyContainer]::Inspect($first, 'cryptoapi').FileFound }
        [WebfarmKeyContainer]::SetSddl($first, $list)
        $set = [WebfarmKeyContainer]::GetSddl($first)
        $checks.access_list_is_set = $set -ne $newList
        $checks.import_over_it_is_no_new_container = -not [WebfarmKeyContainer]::ImportPrivate($first, $other, $true)
        $checks.import_over_it_keeps_the_access_list = [WebfarmKeyContainer]::GetSddl($first) -eq $set
        $null = [WebfarmKeyContainer]::ImportPrivate($second, $key, $false)
        $checks.not_exportable_is_refused = try {
            [WebfarmKeyContainer]::PrivateBlob($second).Dispose()
            $false
        }
        catch {
            $_.Exception.GetBaseException().Code -eq 0x8009000BL
        }
        $transport = [WebfarmKeyContainer]::CreateTransport($third)
        $sealed = [WebfarmKeyContainer]::Seal($key, @($transport.Modulus), @($transport.Exponent))
        $opened = [WebfarmKeyContainer]::Unseal($third, $sealed.Iv, $sealed.Ciphertext, $sealed.Wrapped[0])
        $checks.sealed_key_opens = [WebfarmKeyContainer]::Fingerprint($opened) -eq $print
        $opened.Dispose()
        $opened = [WebfarmKeyContainer]::Unprotect([WebfarmKeyContainer]::Protect($key))
        $checks.dpapi_gives_it_back = [WebfarmKeyContainer]::Fingerprint($opened) -eq $print
        [WebfarmKeyContainer]::Delete($first)
        $gone = { $left = [WebfarmKeyContainer]::Inspect($first, 'cryptoapi'); $left.State -eq 'missing' -and -not $left.FileFound }
        $checks.deleted_with_its_file = Test-WebfarmWithin -Condition $gone
    }
    finally {
        $key.Dispose()
        $other.Dispose()
        if ($null -ne $opened) {
            $opened.Dispose()
        }
    }
    $wrong = @($checks.Keys | Where-Object -FilterScript { -not $checks[$_] })
    $observed = [ordered]@{ checks = $checks; new_container_sddl = $newList }
    if ($wrong.Count -gt 0) {
        return New-WebfarmAnswer -Id library -Verdict contradicted -Text "Does not hold: $($wrong -join ', ')." -Observed $observed
    }
    return New-WebfarmAnswer -Id library -Verdict confirmed -Text "All $($checks.Count) steps do what they should." -Observed $observed
}

Function Get-WebfarmAccessAnswer {
    <#
    .SYNOPSIS
    Reads the access lists of the key files of IIS and of their folders. Opens no key.
    #>
    [CmdletBinding()]
    param ()

    $management = Test-WebfarmServiceInstalled -Name 'WMSVC'
    $observed = [ordered]@{ management_service = [bool]$management }
    $problems = @()
    $found = 0
    foreach ($item in $script:keyFiles) {
        $name = [WebfarmKeyContainer]::FilePrefix($item.container, $item.store) + '_' + [WebfarmKeyContainer]::MachineGuid()
        $path = [System.IO.Path]::Combine([WebfarmKeyContainer]::Folder($item.store), $name)
        if (-not [System.IO.File]::Exists($path)) {
            $observed[$item.container] = 'missing'
            continue
        }
        $found++
        $sddl = [WebfarmKeyContainer]::FileSddl($path)
        $observed[$item.container] = $sddl
        $problems += @(Get-WebfarmAccessProblem -Container $item.container -Sddl $sddl -WmsvcInstalled:$management |
                ForEach-Object -Process { "$($item.container): $($_.kind) $($_.sid)" })
    }
    foreach ($store in 'cryptoapi', 'cng') {
        $path = [WebfarmKeyContainer]::Folder($store)
        $observed["folder_$store"] = 'missing'
        if ([System.IO.Directory]::Exists($path)) {
            $observed["folder_$store"] = [WebfarmKeyContainer]::FileSddl($path)
        }
    }
    $observed.problems = @($problems)
    if ($found -eq 0) {
        return New-WebfarmAnswer -Id access_lists -Verdict open -Text 'No key file of IIS is here: IIS is not installed.' -Observed $observed
    }
    if ($problems.Count -gt 0) {
        return New-WebfarmAnswer -Id access_lists -Verdict contradicted -Text "Otherwise than demanded: $($problems -join '; ')." -Observed $observed
    }
    return New-WebfarmAnswer -Id access_lists -Verdict confirmed -Text "The access lists of $found key files are as demanded." -Observed $observed
}

Function Invoke-WebfarmSelftest {
    <#
    .SYNOPSIS
    Removes what an interrupted run left, asks every question, and removes everything again in any case. Returns Removed (the leftovers) and
    Answers. Throws when something could not be removed.

    .PARAMETER DescribeIisKeys
    Read the properties of the CNG keys of IIS too.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [switch]
        $DescribeIisKeys
    )

    $removed = @(Get-WebfarmScratch)
    Remove-WebfarmScratch
    $answers = New-Object -TypeName System.Collections.Generic.List[object]
    # What goes wrong with one question must not hide the answers to the others.
    $ask = {
        param ($Ids, $Work)
        try {
            foreach ($answer in & $Work) {
                $answers.Add($answer)
            }
        }
        catch {
            $message = Get-WebfarmErrorText -ErrorRecord $_
            foreach ($id in $Ids) {
                $answers.Add((New-WebfarmAnswer -Id $id -Verdict open -Text "The trial failed: $message" -Observed @{ error = $message }))
            }
        }
    }
    try {
        $folder = Get-WebfarmSelftestFolder
        [WebfarmProtectedFolder]::Ensure($folder)
        & $ask @('cng_key', 'cng_transfer', 'cng_value') {
            $trial = New-Object -TypeName WebfarmCngTrial
            $trial.Run()
            ConvertTo-WebfarmCngAnswer -Found $trial.Found
        }
        & $ask @('cng_iis_keys') { Get-WebfarmIisKeyAnswer -Describe:$DescribeIisKeys }
        $regiis = @('regiis_exit', 'regiis_size', 'regiis_access', 'regiis_public_only')
        if ([System.IO.File]::Exists((Get-WebfarmRegiisPath))) {
            & $ask $regiis { ConvertTo-WebfarmRegiisAnswer -Trial (Get-WebfarmRegiisTrial -Folder $folder) }
        }
        else {
            foreach ($id in $regiis) {
                $answers.Add((New-WebfarmAnswer -Id $id -Verdict open -Text 'aspnet_regiis.exe is not on this server.'))
            }
        }
        # The next trial makes its containers itself.
        Remove-WebfarmScratch
        & $ask @('library') { Get-WebfarmLibraryAnswer }
        & $ask @('access_lists') { Get-WebfarmAccessAnswer }
    }
    finally {
        Remove-WebfarmScratch
    }
    return @{
        Removed = $removed
        Answers = $answers.ToArray()
    }
}

Export-ModuleMember -Function @(
    'ConvertTo-WebfarmCngAnswer'
    'Enter-WebfarmSelftest'
    'Get-WebfarmPlannedAnswer'
    'Get-WebfarmScratch'
    'Get-WebfarmSelftestHost'
    'Invoke-WebfarmSelftest'
    'Protect-WebfarmIdentity'
)
