# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# What a key opens besides the file that is replaced together with it: the other configuration files of IIS, the registry values
# of the Centralized Certificate Store, and web.config files under the sites. Values of FTP and URL Rewrite lie in these files too.
# It is listed before a key goes, and encrypted anew for the next one where that is wanted.

#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Journal

$script:storeKey = 'HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\IIS\CentralCertProvider'

# Content folders may be huge: how much of them is searched for web.config files.
$script:maximumFolders = 20000
$script:maximumSeconds = 30

Function New-WebfarmContentItem {
    <#
    .SYNOPSIS
    Reads something that may change, as the transaction takes it; nothing when it is not there.

    .PARAMETER Path
    A file, or the registry key of the Centralized Certificate Store.

    .PARAMETER Store
    file or registry.

    .PARAMETER Name
    What results call it.
    #>
    [CmdletBinding()]
    [System.Diagnostics.CodeAnalysis.SuppressMessageAttribute('PSUseShouldProcessForStateChangingFunctions', '', Justification = 'Makes an object only')]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Path,

        [Parameter()]
        [ValidateSet('file', 'registry')]
        [string]
        $Store = 'file',

        [Parameter(Mandatory = $true)]
        [string]
        $Name
    )

    $item = @{
        path = $Path
        store = $Store
        name = $Name
        backup = ''
        accepted = @()
    }
    $content = Read-WebfarmContent -Item $item
    if ($null -eq $content) {
        return
    }
    $item.before = $content
    $item.before_sha256 = [WebfarmKeyContainer]::Sha256($content)
    $item.after = $content
    $item.after_sha256 = $item.before_sha256
    return $item
}

Function Get-WebfarmContentItem {
    <#
    .SYNOPSIS
    Returns everything on this host that may hold protected values, with the parsed file in the entry file.

    .PARAMETER Exclude
    Names of configuration files that are replaced together with the keys.

    .PARAMETER Site
    The sites whose content is searched, from WebfarmConfigurationFile.Sites.

    .PARAMETER Warning
    A list that receives what could not be searched.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [string[]]
        $Exclude = @(),

        [Parameter()]
        [object[]]
        $Site = @(),

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    $folder = Get-WebfarmConfigurationFolder
    foreach ($name in 'applicationHost.config', 'administration.config', 'redirection.config') {
        if ($Exclude -notcontains $name) {
            $item = New-WebfarmContentItem -Path ([System.IO.Path]::Combine($folder, $name)) -Name $name
            if ($null -ne $item) {
                try {
                    $item.file = [WebfarmConfiguration]::Parse($item.before, $name)
                }
                catch {
                    throw "What depends on the keys cannot be judged: $(Get-WebfarmErrorText -ErrorRecord $_)"
                }
                $item
            }
        }
    }
    $item = New-WebfarmContentItem -Path $script:storeKey -Store registry -Name registry
    if ($null -ne $item) {
        $item.file = [WebfarmConfiguration]::Parse($item.before, 'registry')
        $item
    }
    foreach ($path in Get-WebfarmSiteFile -Site $Site -Warning $Warning) {
        $item = New-WebfarmContentItem -Path $path -Name $path
        if ($null -eq $item) {
            continue
        }
        $text = [System.Text.Encoding]::UTF8.GetString($item.before)
        if (-not $text.Contains('[enc:') -and -not $text.Contains('configProtectionProvider')) {
            continue
        }
        try {
            $item.file = [WebfarmConfiguration]::Parse($item.before, $path)
            $item
        }
        catch {
            $Warning.Add("$(Get-WebfarmErrorText -ErrorRecord $_) It holds protected values, which could not be judged.")
        }
    }
}

Function Get-WebfarmSiteFile {
    <#
    .SYNOPSIS
    Returns the web.config files below the folders of sites, within bounds. Shares are not searched: they belong to more than this host.

    .PARAMETER Site
    From WebfarmConfigurationFile.Sites.

    .PARAMETER Warning
    A list that receives what was not searched.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter()]
        [object[]]
        $Site = @(),

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    $shares = New-Object -TypeName System.Collections.Generic.SortedSet[string] -ArgumentList ([System.StringComparer]::OrdinalIgnoreCase)
    $seen = New-Object -TypeName System.Collections.Generic.HashSet[string] -ArgumentList ([System.StringComparer]::OrdinalIgnoreCase)
    $open = New-Object -TypeName System.Collections.Generic.Queue[string]
    foreach ($one in $Site) {
        foreach ($written in $one.Folders) {
            $path = [Environment]::ExpandEnvironmentVariables($written)
            if ($path.StartsWith('\\')) {
                $null = $shares.Add($path)
            }
            else {
                $open.Enqueue($path)
            }
        }
    }
    if ($shares.Count -gt 0) {
        $Warning.Add("web.config files on shares were not searched for protected values: $($shares -join ', ').")
    }
    $clock = [System.Diagnostics.Stopwatch]::StartNew()
    $unread = 0
    while ($open.Count -gt 0) {
        $folder = $open.Dequeue()
        try {
            $folder = [System.IO.Path]::GetFullPath($folder).TrimEnd('\')
            $attributes = [System.IO.File]::GetAttributes($folder)
            # A link may lead in a circle; its target is searched where a site names it.
            if (-not $seen.Add($folder) -or $attributes -band [System.IO.FileAttributes]::ReparsePoint) {
                continue
            }
            if ($seen.Count -gt $script:maximumFolders -or $clock.Elapsed.TotalSeconds -gt $script:maximumSeconds) {
                $Warning.Add("Only the first $($seen.Count - 1) folders of the sites were searched for web.config files with protected values.")
                break
            }
            $file = [System.IO.Path]::Combine($folder, 'web.config')
            if ([System.IO.File]::Exists($file)) {
                $file
            }
            foreach ($below in [System.IO.Directory]::GetDirectories($folder)) {
                $open.Enqueue($below)
            }
        }
        catch [System.IO.DirectoryNotFoundException], [System.IO.FileNotFoundException] {
            # A site whose content is not there yet.
            continue
        }
        catch {
            $unread++
        }
    }
    if ($unread -gt 0) {
        $Warning.Add("$unread folders of the sites could not be searched for web.config files with protected values.")
    }
}

Function ConvertTo-WebfarmDependentFact {
    <#
    .SYNOPSIS
    Returns how results name a value that depends on a key: file, path, line, provider, container, verdict.

    .PARAMETER Item
    From Get-WebfarmContentItem.

    .PARAMETER Verdict
    From WebfarmProtection, of a value or a session key.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Item,

        [Parameter(Mandatory = $true)]
        [object]
        $Verdict
    )

    $path = $Verdict.Path
    if (-not $path) {
        $path = "configProtectedData/providers/add[@name='$($Verdict.Provider)']/@sessionKey"
    }
    $fact = [ordered]@{
        file = $Item.name
        path = $path
        line = $Verdict.Line
        provider = $Verdict.Provider
        container = $Verdict.Container
        verdict = $Verdict.Verdict
    }
    if ($Item.store -eq 'registry') {
        $name = if ($path.Contains("'PrivateKeyPassword'")) { 'PrivateKeyPassword' } else { 'Password' }
        $fact.path = "$($Item.path.Replace('HKEY_LOCAL_MACHINE', 'HKLM'))\$name"
        $fact.line = $null
        $fact.provider = $null
    }
    return $fact
}

Function Get-WebfarmDependent {
    <#
    .SYNOPSIS
    Judges what a change of keys means for everything that is not replaced together with them.

    .DESCRIPTION
    Returns a dictionary of lists. Broken: values that open now and would not any more. Lost: values of the changing keys that open neither
    now nor then. Unknown: values that do not open now, and whose new key is not there yet. Session: session keys that would not open
    any more. Item: what these are in. Section: sections that ASP.NET encrypted with one of the changing keys; only aspnet_regiis opens them.

    .PARAMETER KeySet
    The new keys; those that are not there yet are in Blind.

    .PARAMETER Changing
    Containers whose key changes or goes.

    .PARAMETER Blind
    Those of them whose new key is not known (yet): what they open now counts as broken.

    .PARAMETER Before
    applicationHost.config as it is.

    .PARAMETER After
    applicationHost.config as it will be.

    .PARAMETER Exclude
    Names of configuration files that are replaced together with the keys.

    .PARAMETER Warning
    A list that receives what could not be searched.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $KeySet,

        [Parameter()]
        [string[]]
        $Changing = @(),

        [Parameter()]
        [string[]]
        $Blind = @(),

        [Parameter(Mandatory = $true)]
        [object]
        $Before,

        [Parameter(Mandatory = $true)]
        [object]
        $After,

        [Parameter()]
        [string[]]
        $Exclude = @(),

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    $found = @{
        Broken = New-Object -TypeName System.Collections.Generic.List[object]
        Lost = New-Object -TypeName System.Collections.Generic.List[object]
        Unknown = New-Object -TypeName System.Collections.Generic.List[object]
        Session = New-Object -TypeName System.Collections.Generic.List[object]
        Section = New-Object -TypeName System.Collections.Generic.List[object]
        Item = New-Object -TypeName System.Collections.Generic.List[object]
    }
    $sites = @($Before.Sites)
    if ($After.Sha256 -ne $Before.Sha256) {
        $sites += @($After.Sites)
    }
    foreach ($item in Get-WebfarmContentItem -Exclude $Exclude -Site $sites -Warning $Warning) {
        $touched = $false
        # A file of its own providers keeps them; others take those of applicationHost.config.
        $now = [WebfarmProtection]::Prove($item.file.Under($Before), $null)
        $then = [WebfarmProtection]::Prove($item.file.Under($After), $KeySet)
        for ($i = 0; $i -lt $now.Count; $i++) {
            $container = $now[$i].Container
            $opens = $then[$i].Verdict -eq 'ok'
            $blindly = $Blind -contains $container
            if ($opens -and -not $blindly) {
                continue
            }
            if ($now[$i].Verdict -eq 'ok') {
                $found.Broken.Add((ConvertTo-WebfarmDependentFact -Item $item -Verdict $now[$i]))
                $touched = $true
            }
            elseif ($Changing -contains $container) {
                $fact = ConvertTo-WebfarmDependentFact -Item $item -Verdict $now[$i]
                if ($blindly) {
                    $found.Unknown.Add($fact)
                }
                else {
                    $found.Lost.Add($fact)
                }
            }
        }
        $now = [WebfarmProtection]::ProveSessionKeys($item.file, $null)
        $then = [WebfarmProtection]::ProveSessionKeys($item.file, $KeySet)
        for ($i = 0; $i -lt $now.Count; $i++) {
            if ($Changing -contains $now[$i].Container -and ($then[$i].Verdict -ne 'ok' -or $Blind -contains $now[$i].Container)) {
                $found.Session.Add((ConvertTo-WebfarmDependentFact -Item $item -Verdict $now[$i]))
                $touched = $true
            }
        }
        if ($touched) {
            $found.Item.Add($item)
        }
        foreach ($section in $item.file.Sections) {
            $provider = $item.file.Provider($section.Provider)
            $container = $null
            if ($null -ne $provider) {
                $container = $provider.Container
            }
            elseif ($section.Provider -eq 'RsaProtectedConfigurationProvider') {
                # As machine.config declares it.
                $container = 'NetFrameworkConfigurationKey'
            }
            if ($Changing -contains $container) {
                $found.Section.Add([ordered]@{
                        file = $item.name
                        path = $section.Path
                        line = $section.Line
                        provider = $section.Provider
                        container = $container
                        verdict = 'unsupported'
                    })
            }
        }
    }
    return $found
}

Function Update-WebfarmContentItem {
    <#
    .SYNOPSIS
    Encrypts what depends on the keys anew, in memory: new session keys, and every value that opens with the present keys. Returns the
    values that were encrypted anew as facts; what is lost goes to Lost.

    .PARAMETER Item
    From Get-WebfarmDependent; after, after_sha256 and accepted are filled in.

    .PARAMETER KeySet
    The new keys.

    .PARAMETER Before
    applicationHost.config as it is.

    .PARAMETER After
    applicationHost.config as it will be.

    .PARAMETER Lost
    A list that receives the values that nothing opens.
    #>
    [CmdletBinding()]
    [System.Diagnostics.CodeAnalysis.SuppressMessageAttribute('PSUseShouldProcessForStateChangingFunctions', '', Justification = 'Fills an object only')]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Item,

        [Parameter(Mandatory = $true)]
        [object]
        $KeySet,

        [Parameter(Mandatory = $true)]
        [object]
        $Before,

        [Parameter(Mandatory = $true)]
        [object]
        $After,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[object]]
        $Lost
    )

    $made = [WebfarmProtection]::Reencrypt($Item.file, $KeySet, $Before, $After)
    $Item.after = $made.Bytes
    $Item.after_sha256 = [WebfarmKeyContainer]::Sha256($made.Bytes)
    $Item.after_file = [WebfarmConfiguration]::Parse($made.Bytes, $Item.name)
    $verdicts = [WebfarmProtection]::Prove($Item.after_file.Under($After), $KeySet)
    $Item.accepted = @($verdicts | Where-Object -FilterScript { $_.Verdict -ne 'ok' } | ForEach-Object -Process { $_.Path })
    foreach ($verdict in $verdicts) {
        if ($made.Values -ccontains $verdict.Path) {
            ConvertTo-WebfarmDependentFact -Item $Item -Verdict $verdict
        }
        elseif ($made.Lost -ccontains $verdict.Path) {
            $Lost.Add((ConvertTo-WebfarmDependentFact -Item $Item -Verdict $verdict))
        }
    }
}

Function Format-WebfarmDependent {
    <#
    .SYNOPSIS
    Writes dependent values as text for a message.

    .PARAMETER Fact
    From Get-WebfarmDependent.

    .PARAMETER Limit
    How many of them are written; the result holds all.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter()]
        [object[]]
        $Fact = @(),

        [Parameter()]
        [int]
        $Limit = 10
    )

    $lines = @(
        foreach ($one in $Fact | Select-Object -First $Limit) {
            $line = if ($one.line) { ", line $($one.line)" } else { '' }
            "$($one.file)${line}: $($one.path) ($($one.container))"
        }
    )
    if ($Fact.Count -gt $Limit) {
        $lines += "and $($Fact.Count - $Limit) more"
    }
    return $lines -join '; '
}

Export-ModuleMember -Function @(
    'Format-WebfarmDependent'
    'Get-WebfarmDependent'
    'New-WebfarmContentItem'
    'Update-WebfarmContentItem'
)
