# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# The interfaces in this file are meant for use within this collection and may change in any release, even a bugfix
# release.

#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -CSharpUtil ..module_utils._WebConfig
#AnsibleRequires -PowerShell ..module_utils._Diagnosis
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._ServerFacts

# What server_info says about web.config files: sections that ASP.NET encrypted, and machineKey. Nothing here changes the server.

Function Get-WebfarmApplication {
    <#
    .SYNOPSIS
    Lists the applications of a configuration: site, path, physical path, runtime and bitness of the pool.

    .PARAMETER File
    applicationHost.config.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $File
    )

    $document = ConvertTo-WebfarmDocument -File $File
    $root = '/configuration/system.applicationHost'
    $defaults = $document.SelectSingleNode("$root/applicationPools/applicationPoolDefaults")
    $pools = @{}
    foreach ($pool in $document.SelectNodes("$root/applicationPools/add[@name]")) {
        $pools[$pool.GetAttribute('name')] = $pool
    }
    $common = $document.SelectSingleNode("$root/sites/applicationDefaults/@applicationPool")
    foreach ($site in $document.SelectNodes("$root/sites/site")) {
        $own = $site.SelectSingleNode('applicationDefaults/@applicationPool')
        foreach ($application in @($site.SelectNodes('application')) | Sort-Object -Property { $_.GetAttribute('path').Length }) {
            $folder = $application.SelectSingleNode("virtualDirectory[@path='/']/@physicalPath")
            if ($null -eq $folder) {
                continue
            }
            $name = 'DefaultAppPool'
            foreach ($candidate in $application.GetAttributeNode('applicationPool'), $own, $common) {
                if ($null -ne $candidate) {
                    $name = $candidate.Value
                    break
                }
            }
            $runtime = 'v4.0'
            $wow = 'false'
            foreach ($level in $defaults, $pools[$name]) {
                if ($null -ne $level -and $level.HasAttribute('managedRuntimeVersion')) {
                    $runtime = $level.GetAttribute('managedRuntimeVersion')
                }
                if ($null -ne $level -and $level.HasAttribute('enable32BitAppOnWin64')) {
                    $wow = $level.GetAttribute('enable32BitAppOnWin64')
                }
            }
            @{
                Site = $site.GetAttribute('name')
                Path = $application.GetAttribute('path')
                Folder = [System.Environment]::ExpandEnvironmentVariables($folder.Value)
                Runtime = $runtime
                Bits = @(64, 32)[[int]($wow -eq 'true')]
            }
        }
    }
}

Function Read-WebfarmWebConfig {
    <#
    .SYNOPSIS
    Reads one web.config or machine.config, once, and describes it; nothing where there is none.

    .PARAMETER Path
    Its path.

    .PARAMETER Parent
    The files that it inherits from.

    .PARAMETER Context
    What is common to all files: Cache, Facts, Decrypt and File (applicationHost.config).

    .PARAMETER Application
    The application that it belongs to; none for a file of the machine.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Path,

        [Parameter()]
        [AllowEmptyCollection()]
        [object[]]
        $Parent = @(),

        [Parameter(Mandatory = $true)]
        [hashtable]
        $Context,

        [Parameter()]
        [hashtable]
        $Application = @{}
    )

    if ($Context.Cache.ContainsKey($Path)) {
        return $Context.Cache[$Path]
    }
    $Context.Cache[$Path] = $null
    $Context.Unread[$Path] = $true
    $fact = [ordered]@{
        path = $Path
        site = $Application.Site
        application = $Application.Path
        protected_values = $null
        failing_values = $null
        sections = @()
        message = $null
    }
    if ($Path -match '^[\\/]{2}') {
        $fact.message = 'It lies on a share, which this connection may not be able to read: it was not looked at.'
        $Context.Facts.Add($fact)
        return
    }
    if (-not [System.IO.File]::Exists($Path)) {
        $Context.Unread.Remove($Path)
        return
    }
    $Context.Facts.Add($fact)
    try {
        $decrypt = $Context.Decrypt -eq 'all'
        $read = New-Object -TypeName WebfarmWebConfig -ArgumentList ([System.IO.File]::ReadAllBytes($Path)), $Path, ([WebfarmWebConfig[]]$Parent), $decrypt
        $fact.protected_values = $read.ProtectedValues
        $fact.sections = @($read.Sections | Where-Object -FilterScript { $_ } | ForEach-Object -Process { ConvertTo-WebfarmSectionFact -Section $_ })
        if ($decrypt -and $read.ProtectedValues -gt 0) {
            $verdicts = [WebfarmProtection]::Prove([WebfarmConfiguration]::Load($Path).Under($Context.File), $null)
            $fact.failing_values = @($verdicts | Where-Object -FilterScript { $_.Verdict -ne 'ok' }).Count
        }
        $Context.Cache[$Path] = $read
        $Context.Unread.Remove($Path)
        return $read
    }
    catch {
        $fact.message = "It cannot be used: $(Get-WebfarmErrorText -ErrorRecord $_)"
    }
}

Function ConvertTo-WebfarmSectionFact {
    <#
    .SYNOPSIS
    Turns an encrypted section into plain facts.

    .PARAMETER Section
    What WebfarmWebConfig found.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Section
    )

    $result = [ordered]@{
        path = $Section.Path
        provider = $Section.Provider
        kind = $Section.Kind
        container = $Section.Container
        key_name = $Section.KeyName
        machine = $Section.Machine
        verdict = $Section.Verdict
        hresult = $null
        message = $Section.Message
        cause = $null
        fix = $null
    }
    if ($Section.Verdict -notin @('ok', 'untested')) {
        $diagnosis = Get-WebfarmDiagnosis -Code $Section.Error -Verdict $Section.Verdict -Context decrypt -Container "$($Section.Container)"
        $result.hresult = $diagnosis.hresult
        $result.cause = $diagnosis.cause
        $result.fix = $diagnosis.fix
    }
    $result
}

Function Get-WebfarmWebFact {
    <#
    .SYNOPSIS
    Describes the web.config at the root of every application, those of the machine, and the machineKey that each application gets.

    .DESCRIPTION
    Returns one object with Files and MachineKeys. Keys are returned as HMAC under the run key only.

    .PARAMETER File
    applicationHost.config.

    .PARAMETER Decrypt
    all tries the encrypted sections.

    .PARAMETER RunKey
    Makes keys comparable within one run.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $File,

        [Parameter(Mandatory = $true)]
        [string]
        $Decrypt,

        [Parameter()]
        [AllowNull()]
        [byte[]]
        $RunKey
    )

    $context = @{
        Cache = New-Object -TypeName System.Collections.Hashtable -ArgumentList ([System.StringComparer]::OrdinalIgnoreCase)
        # Paths of files that could not be looked at.
        Unread = @{}
        Facts = New-Object -TypeName System.Collections.Generic.List[object]
        Decrypt = $Decrypt
        File = $File
    }
    $chains = @{}
    # Applications for which some file could not be looked at.
    $blind = @{}
    $keys = foreach ($application in Get-WebfarmApplication -File $File) {
        $chain = @()
        $unread = $false
        if ($application.Runtime) {
            $version = 'v4.0.30319'
            if ($application.Runtime -eq 'v2.0') {
                $version = 'v2.0.50727'
            }
            $bits = @('Framework64', 'Framework')[[int]($application.Bits -eq 32)]
            foreach ($name in 'machine.config', 'web.config') {
                $path = Join-Path -Path ([System.Environment]::GetFolderPath('Windows')) -ChildPath "Microsoft.NET\$bits\$version\Config\$name"
                $chain += @(Read-WebfarmWebConfig -Path $path -Parent $chain -Context $context | Where-Object -FilterScript { $_ })
                $unread = $unread -or $context.Unread.ContainsKey($path)
            }
        }
        # What the applications above it set counts for it as well.
        $above = ''
        foreach ($other in @($chains.Keys | Sort-Object -Property Length)) {
            $prefix = "$($application.Site)|$($application.Path)/".Replace('//', '/')
            if ($prefix.StartsWith($other.TrimEnd('/') + '/', [System.StringComparison]::OrdinalIgnoreCase)) {
                $above = $other
            }
        }
        if ($above) {
            $chain += @($chains[$above])
            $unread = $unread -or $blind[$above]
        }
        $path = Join-Path -Path $application.Folder -ChildPath 'web.config'
        $own = @(
            Read-WebfarmWebConfig -Path $path -Parent $chain -Context $context -Application $application | Where-Object -FilterScript { $_ }
        )
        $unread = $unread -or $context.Unread.ContainsKey($path)
        $blind["$($application.Site)|$($application.Path)"] = $unread
        $inherited = @($chains[$above] | Where-Object -FilterScript { $_ })
        $chains["$($application.Site)|$($application.Path)"] = @($inherited) + $own
        $result = [ordered]@{
            site = $application.Site
            application = $application.Path
            runtime = $application.Runtime
            bits = $application.Bits
            state = 'unmanaged'
            source = $null
            validation = $null
            decryption = $null
            fingerprint = $null
        }
        if ($application.Runtime -and $unread) {
            $result.state = 'unread'
        }
        elseif ($application.Runtime) {
            $effective = [WebfarmWebConfig]::Effective([WebfarmWebConfig[]]@($chain + $own | Where-Object -FilterScript { $_ }), $RunKey)
            $result.state = $effective.State
            $result.source = $effective.Source
            $result.validation = $effective.Validation
            $result.decryption = $effective.Decryption
            $result.fingerprint = $effective.Fingerprint
        }
        $result
    }
    [PSCustomObject]@{
        Files = $context.Facts.ToArray()
        MachineKeys = @($keys)
    }
}

Export-ModuleMember -Function @(
    'Get-WebfarmWebFact'
)
