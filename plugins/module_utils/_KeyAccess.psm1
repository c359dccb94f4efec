# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# Who shall read a key: the access list of a new container, and a wanted one from accounts and rights.

#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._Facts

# Groups that have no place on any private key: nearly every process is in one of them.
$script:broadGroups = @('S-1-1-0', 'S-1-5-7', 'S-1-5-11', 'S-1-5-32-545', 'S-1-5-32-546')

# Accounts by the names that everybody uses, in whatever language Windows speaks here: the English ones, and those of the languages whose
# names are not the English ones, so that one task serves servers of both. Without the name of an authority only those that nobody gives to
# an account of his own. <a>, <e> and so on stand for letters with an accent: this file is ASCII.
$script:accounts = @{
    'administrators' = 'S-1-5-32-544'
    'authenticated users' = 'S-1-5-11'
    'builtin\administrators' = 'S-1-5-32-544'
    'builtin\guests' = 'S-1-5-32-546'
    'builtin\iis_iusrs' = 'S-1-5-32-568'
    'builtin\users' = 'S-1-5-32-545'
    'everyone' = 'S-1-1-0'
    'iis_iusrs' = 'S-1-5-32-568'
    'local service' = 'S-1-5-19'
    'localservice' = 'S-1-5-19'
    'localsystem' = 'S-1-5-18'
    'network service' = 'S-1-5-20'
    'networkservice' = 'S-1-5-20'
    'nt authority\anonymous logon' = 'S-1-5-7'
    'nt authority\authenticated users' = 'S-1-5-11'
    'nt authority\local service' = 'S-1-5-19'
    'nt authority\localservice' = 'S-1-5-19'
    'nt authority\network service' = 'S-1-5-20'
    'nt authority\networkservice' = 'S-1-5-20'
    'nt authority\service' = 'S-1-5-6'
    'nt authority\system' = 'S-1-5-18'
    'system' = 'S-1-5-18'
}
$script:letters = @{ '<a>' = [char]0xE4; '<e`>' = [char]0xE8; '<e>' = [char]0xE9; '<c>' = [char]0xE7 }
$script:translated = @{
    'autoridade nt\servi<c>o de rede' = 'S-1-5-20'
    'autoridade nt\servi<c>o local' = 'S-1-5-19'
    'autoridade nt\sistema' = 'S-1-5-18'
    'autorite nt\service local' = 'S-1-5-19'
    'autorite nt\service r<e>seau' = 'S-1-5-20'
    'autorite nt\syst<e`>me' = 'S-1-5-18'
    'autorite nt\utilisateurs authentifi<e>s' = 'S-1-5-11'
    'builtin\administradores' = 'S-1-5-32-544'
    'builtin\administrateurs' = 'S-1-5-32-544'
    'builtin\utilisateurs' = 'S-1-5-32-545'
    'jeder' = 'S-1-1-0'
    'nt authority\servicio de red' = 'S-1-5-20'
    'nt authority\servicio local' = 'S-1-5-19'
    'nt authority\servizio di rete' = 'S-1-5-20'
    'nt authority\servizio locale' = 'S-1-5-19'
    'nt-autorit<a>t\authentifizierte benutzer' = 'S-1-5-11'
    'nt-autorit<a>t\lokaler dienst' = 'S-1-5-19'
    'nt-autorit<a>t\netzwerkdienst' = 'S-1-5-20'
    'nt-autorit<a>t\system' = 'S-1-5-18'
    'tout le monde' = 'S-1-1-0'
    'vordefiniert\administratoren' = 'S-1-5-32-544'
    'vordefiniert\benutzer' = 'S-1-5-32-545'
    'vordefiniert\iis_iusrs' = 'S-1-5-32-568'
}
foreach ($name in $script:translated.Keys) {
    $whole = $name
    foreach ($sign in $script:letters.Keys) {
        $whole = $whole.Replace($sign, [string]$script:letters[$sign])
    }
    $script:accounts[$whole] = $script:translated[$name]
}

# Without them nobody could look after the key.
$script:keepers = @('S-1-5-18', 'S-1-5-32-544')

# The rights that can be given, as a file's rights; what has all bits of one has it.
$script:rights = @{
    read = @{ text = 'FR'; mask = 0x120089 }
    full = @{ text = 'FA'; mask = 0x1F01FF }
}

# Groups that worker processes belong to. They never get access to a key that is meant for WAS alone.
$script:workerGroups = @('S-1-5-32-568', 'S-1-5-6')

Function Get-WebfarmNewKeyAccess {
    <#
    .SYNOPSIS
    Returns the access list for a container that is made here: the readers that IIS needs, plus the well-known and domain
    accounts of the source's list.

    .DESCRIPTION
    dropped names the accounts that are left out, each with the reason: accounts of the source machine mean nothing here, groups
    that nearly everybody is in have no place on a private key, and worker processes none on a key for WAS alone.

    .PARAMETER Container
    The name of the container.

    .PARAMETER Sddl
    The access list at the source; may be empty.

    .PARAMETER WmsvcInstalled
    The Management Service is installed here.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container,

        [Parameter()]
        [AllowEmptyString()]
        [string]
        $Sddl = '',

        [Parameter()]
        [switch]
        $WmsvcInstalled
    )

    $administrators = @('S-1-5-18', 'S-1-5-32-544')
    $allow = New-Object -TypeName System.Collections.Generic.List[string]
    $deny = New-Object -TypeName System.Collections.Generic.List[string]
    $dropped = New-Object -TypeName System.Collections.Generic.List[string]
    $readers = @($administrators)
    foreach ($reader in Get-WebfarmRequiredReader -Container $Container -WmsvcInstalled:$WmsvcInstalled) {
        $rights = 'FR'
        if ($administrators -contains $reader.sid) {
            $rights = 'FA'
        }
        $readers += $reader.sid
        $allow.Add("(A;;$rights;;;$($reader.sid))")
    }
    $entries = @()
    if ($Sddl) {
        try {
            $descriptor = New-Object -TypeName System.Security.AccessControl.RawSecurityDescriptor -ArgumentList $Sddl
        }
        catch {
            throw "The access list that the bundle holds for $Container cannot be read ('$Sddl'): $(Get-WebfarmErrorText -ErrorRecord $_)"
        }
        if ($null -ne $descriptor.DiscretionaryAcl) {
            $entries = @($descriptor.DiscretionaryAcl)
        }
    }
    foreach ($ace in $entries) {
        if ($ace -isnot [System.Security.AccessControl.CommonAce] -or $ace.IsCallback) {
            $dropped.Add("an entry of type $($ace.AceType): only plain allow and deny entries are taken over")
            continue
        }
        $sid = $ace.SecurityIdentifier.Value
        $denies = $ace.AceQualifier -eq [System.Security.AccessControl.AceQualifier]::AccessDenied
        # The creator and its owner mean somebody else on every machine.
        if ($readers -contains $sid -and -not $denies -or $sid.StartsWith('S-1-3-')) {
            continue
        }
        $reason = Get-WebfarmForeignReason -Sid $sid
        if (-not $denies -and -not $reason) {
            $reason = Get-WebfarmUnfitReason -Sid $sid -Container $Container
        }
        if ($reason) {
            $dropped.Add("${sid}: $reason")
            continue
        }
        $mask = '0x{0:x8}' -f $ace.AccessMask
        if ($denies) {
            $deny.Add("(D;;$mask;;;$sid)")
        }
        else {
            $allow.Add("(A;;$mask;;;$sid)")
        }
    }
    return @{
        sddl = 'D:P' + ($deny -join '') + ($allow -join '')
        dropped = $dropped.ToArray()
    }
}

Function Get-WebfarmForeignReason {
    <#
    .SYNOPSIS
    Says why a SID of another machine's access list means nothing here; empty when it does mean something.

    .PARAMETER Sid
    The SID as text.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Sid
    )

    # Everything else is well known, built in, or computed from a name: the same on every machine.
    if (-not $Sid.StartsWith('S-1-5-21-')) {
        return ''
    }
    try {
        $identifier = New-Object -TypeName System.Security.Principal.SecurityIdentifier -ArgumentList $Sid
        $account = $identifier.Translate([System.Security.Principal.NTAccount]).Value
    }
    catch {
        return 'an account of the source machine, or of a domain that this host does not know'
    }
    if ($account.Split('\')[0] -eq [Environment]::MachineName) {
        return "a local account ($account on this host)"
    }
    return ''
}

Function Get-WebfarmReaderProblem {
    <#
    .SYNOPSIS
    Says which accounts could not read a key that the configuration needs, after the change.

    .PARAMETER Container
    Dictionaries with container and store: the keys that the configuration depends on.

    .PARAMETER Plan
    Entries from Get-WebfarmKeyPlan.

    .PARAMETER Warning
    A list that receives what is wrong but does not keep anything from working.

    .PARAMETER WmsvcInstalled
    The Management Service is installed.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter()]
        [object[]]
        $Container = @(),

        [Parameter()]
        [object[]]
        $Plan = @(),

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning,

        [Parameter()]
        [switch]
        $WmsvcInstalled
    )

    $lists = [ordered]@{}
    foreach ($item in $Container) {
        if (-not $lists.Contains($item.container)) {
            $lists[$item.container] = [string]([WebfarmKeyContainer]::Inspect($item.container, $item.store).Sddl)
        }
    }
    foreach ($entry in $Plan) {
        $lists[$entry.container] = if ($entry.new_sddl) { $entry.new_sddl } else { $entry.sddl }
    }
    foreach ($name in @($lists.Keys)) {
        if (-not $lists[$name]) {
            # A container that is missing has been reported by the proof of its values.
            continue
        }
        foreach ($problem in Get-WebfarmAccessProblem -Container $name -Sddl $lists[$name] -WmsvcInstalled:$WmsvcInstalled) {
            if ($problem.kind -eq 'forbidden') {
                $Warning.Add("$($problem.message) $($problem.fix)")
            }
            else {
                "$($problem.message) $($problem.fix)"
            }
        }
    }
}

Function Get-WebfarmUnfitReason {
    <#
    .SYNOPSIS
    Says why an account must not read a key; empty when it may.

    .PARAMETER Sid
    The SID as text.

    .PARAMETER Container
    The name of the container.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Sid,

        [Parameter(Mandatory = $true)]
        [string]
        $Container
    )

    if ($script:broadGroups -contains $Sid) {
        return 'too many are in this group for a private key'
    }
    if ([WebfarmConfiguration]::IsWasOnly($Container) -and ($script:workerGroups -contains $Sid -or $Sid.StartsWith('S-1-5-82-'))) {
        return 'worker processes must not read a key for WAS alone'
    }
    return ''
}

Function Resolve-WebfarmAccount {
    <#
    .SYNOPSIS
    Returns the SID of an account: a SID, a well-known English name, or any name that Windows knows here.

    .PARAMETER Account
    The account as it was given.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Account
    )

    $name = $Account.Trim()
    if ($name -match '^S-1-') {
        try {
            return (New-Object -TypeName System.Security.Principal.SecurityIdentifier -ArgumentList $name).Value
        }
        catch {
            throw "access: '$Account' is not a SID. Nothing was changed."
        }
    }
    $known = $script:accounts[$name.ToLowerInvariant()]
    if ($known) {
        return $known
    }
    try {
        $found = New-Object -TypeName System.Security.Principal.NTAccount -ArgumentList $name
        return $found.Translate([System.Security.Principal.SecurityIdentifier]).Value
    }
    catch {
        throw "access: the account '$Account' is not known on this host. Nothing was changed. Check the name, or give its SID."
    }
}

Function Get-WebfarmAce {
    <#
    .SYNOPSIS
    Takes an access list apart: for each entry its text, SID, type, whether it is inherited, and its rights as a word and a mask.

    .PARAMETER Container
    The name of the container, for messages.

    .PARAMETER Sddl
    The access list.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container,

        [Parameter(Mandatory = $true)]
        [string]
        $Sddl
    )

    $list = ''
    if ($Sddl -match 'D:[A-Z]*((?:\([^()]*\))*)') {
        $list = $Matches[1]
    }
    $texts = @([regex]::Matches($list, '\([^()]*\)') | ForEach-Object -Process { $_.Value })
    $facts = @(ConvertTo-WebfarmAclFact -Sddl $Sddl)
    if ($texts.Count -ne $facts.Count) {
        throw "The access list of $Container cannot be edited, it holds entries of another kind: $Sddl. Nothing was changed. Use access.set to replace it."
    }
    for ($i = 0; $i -lt $texts.Count; $i++) {
        [PSCustomObject]@{
            Text = $texts[$i]
            Sid = $facts[$i].sid
            Deny = $facts[$i].type -eq 'deny'
            Rights = $facts[$i].rights
            Mask = [Convert]::ToInt64($facts[$i].mask, 16)
            Inherited = $facts[$i].inherited
        }
    }
}

Function ConvertTo-WebfarmGrant {
    <#
    .SYNOPSIS
    Turns a list of accounts with rights into an ordered dictionary of SID and right. Refuses what has no place on this key.

    .PARAMETER Container
    The name of the container.

    .PARAMETER List
    Dictionaries with account and rights.

    .PARAMETER Option
    The name of the option, for messages.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container,

        [Parameter()]
        [AllowNull()]
        [object[]]
        $List = @(),

        [Parameter(Mandatory = $true)]
        [string]
        $Option
    )

    $grants = [ordered]@{}
    foreach ($item in $List) {
        $sid = Resolve-WebfarmAccount -Account $item.account
        $reason = Get-WebfarmUnfitReason -Sid $sid -Container $Container
        if ($reason) {
            throw "${Option}: $($item.account) ($sid) gets no access to ${Container}: $reason. Nothing was changed."
        }
        if ($grants.Contains($sid) -and $grants[$sid] -ne $item.rights) {
            throw "${Option}: $($item.account) ($sid) is listed twice with different rights. Nothing was changed."
        }
        $grants[$sid] = $item.rights
    }
    return $grants
}

Function Get-WebfarmWantedAccess {
    <#
    .SYNOPSIS
    Returns the access list that a container shall have, as SDDL; empty when the present one is right.

    .PARAMETER Container
    The name of the container.

    .PARAMETER Sddl
    The present access list; of a new container the one it would get.

    .PARAMETER Access
    Dictionary with add and remove (lists; the rest stays), or set (the whole list). $null: it stays as it is.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container,

        [Parameter(Mandatory = $true)]
        [AllowEmptyString()]
        [string]
        $Sddl,

        [Parameter()]
        [AllowNull()]
        [object]
        $Access
    )

    if ($null -eq $Access -or ($null -eq $Access.add -and $null -eq $Access.remove -and $null -eq $Access.set)) {
        return ''
    }
    if ($null -ne $Access.set) {
        if ($null -ne $Access.add -or $null -ne $Access.remove) {
            throw 'access: set is the whole list, add and remove change a part of it. Give one or the other. Nothing was changed.'
        }
        return Get-WebfarmExactAccess -Container $Container -Sddl $Sddl -List $Access.set
    }
    $grants = ConvertTo-WebfarmGrant -Container $Container -List $Access.add -Option 'access.add'
    $entries = @(Get-WebfarmAce -Container $Container -Sddl $Sddl)
    $gone = New-Object -TypeName System.Collections.Generic.HashSet[string]
    foreach ($item in $Access.remove) {
        $sid = Resolve-WebfarmAccount -Account $item.account
        if ($script:keepers -contains $sid) {
            throw "access.remove: $($item.account) ($sid) keeps its access to ${Container}: without it nobody could look after the key. Nothing was changed."
        }
        if ($grants.Contains($sid)) {
            throw "access: $($item.account) ($sid) is both added and removed. Nothing was changed."
        }
        if (@($entries | Where-Object -FilterScript { $_.Sid -eq $sid -and $_.Inherited }).Count -gt 0) {
            throw "access.remove: $($item.account) ($sid) has access to $Container by its folder. Nothing was changed. Use access.set, which ends that."
        }
        $null = $gone.Add($sid)
    }
    $deny = New-Object -TypeName System.Text.StringBuilder
    $allow = New-Object -TypeName System.Text.StringBuilder
    $changed = $false
    $held = @{}
    foreach ($entry in $entries) {
        $granted = $grants.Contains($entry.Sid)
        if ($gone.Contains($entry.Sid) -or ($granted -and $entry.Deny)) {
            $changed = $true
        }
        elseif ($granted) {
            $held[$entry.Sid] = @($held[$entry.Sid] | Where-Object -FilterScript { $_ }) + @($entry)
        }
        elseif ($entry.Deny) {
            $null = $deny.Append($entry.Text)
        }
        else {
            $null = $allow.Append($entry.Text)
        }
    }
    foreach ($sid in $grants.Keys) {
        $wanted = $grants[$sid]
        $own = @($held[$sid] | Where-Object -FilterScript { $_ })
        $bits = $script:rights[$wanted].mask
        if (@($own | Where-Object -FilterScript { $_.Rights -eq $wanted -or $_.Rights -eq 'full' -or ($_.Mask -band $bits) -eq $bits }).Count -gt 0) {
            foreach ($entry in $own) {
                $null = $allow.Append($entry.Text)
            }
            continue
        }
        $changed = $true
        $mask = [long]$script:rights[$wanted].mask
        foreach ($entry in $own) {
            $mask = $mask -bor $entry.Mask
        }
        $right = $script:rights[$wanted].text
        if ($mask -ne $script:rights[$wanted].mask) {
            $right = '0x{0:x}' -f $mask
        }
        $null = $allow.Append("(A;;$right;;;$sid)")
    }
    if (-not $changed) {
        return ''
    }
    $flags = ''
    if ($Sddl -match 'D:([A-Z]*)') {
        $flags = $Matches[1]
    }
    return "D:$flags$deny$allow"
}

Function Get-WebfarmExactAccess {
    <#
    .SYNOPSIS
    Returns an access list of exactly these accounts, with SYSTEM and Administrators; empty when the present one says the same.

    .PARAMETER Container
    The name of the container.

    .PARAMETER Sddl
    The present access list.

    .PARAMETER List
    Dictionaries with account and rights.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Container,

        [Parameter(Mandatory = $true)]
        [AllowEmptyString()]
        [string]
        $Sddl,

        [Parameter()]
        [object[]]
        $List = @()
    )

    $wanted = [ordered]@{}
    foreach ($sid in $script:keepers) {
        $wanted[$sid] = 'full'
    }
    $grants = ConvertTo-WebfarmGrant -Container $Container -List $List -Option 'access.set'
    foreach ($sid in $grants.Keys) {
        if ($script:keepers -notcontains $sid) {
            $wanted[$sid] = $grants[$sid]
        }
    }
    $text = ''
    foreach ($sid in $wanted.Keys) {
        $text += "(A;;$($script:rights[$wanted[$sid]].text);;;$sid)"
    }
    $same = $false
    if ($Sddl) {
        try {
            $present = @(Get-WebfarmAce -Container $Container -Sddl $Sddl)
            $same = $present.Count -eq $wanted.Count -and
            @($present | Where-Object -FilterScript { $_.Deny -or $_.Inherited -or $wanted[$_.Sid] -ne $_.Rights }).Count -eq 0
        }
        catch {
            # Entries of another kind go with the rest.
            $same = $false
        }
    }
    if ($same) {
        return ''
    }
    return "D:P$text"
}

Export-ModuleMember -Function @(
    'Get-WebfarmNewKeyAccess'
    'Get-WebfarmReaderProblem'
    'Get-WebfarmWantedAccess'
    'Resolve-WebfarmAccount'
)
