# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# The interfaces in this file are meant for use within this collection and may change in any release, even a bugfix
# release.

#AnsibleRequires -CSharpUtil ..module_utils._Canonical
#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -PowerShell ..module_utils._Facts

# What server_info says about the configuration files as files: digests, encoding, location tags, what should be encrypted.
# Nothing here changes the server.

Function ConvertTo-WebfarmRunKey {
    <#
    .SYNOPSIS
    Returns the run key as bytes, $null where there is none.

    .PARAMETER Text
    The option run_key: hexadecimal digits.
    #>
    [CmdletBinding()]
    [OutputType([byte[]])]
    param (
        [Parameter()]
        [AllowNull()]
        [AllowEmptyString()]
        [string]
        $Text
    )

    if (-not $Text) {
        return
    }
    if ($Text -notmatch '^([0-9a-fA-F]{2}){32,64}$') {
        throw 'run_key: it has to be 64 to 128 hexadecimal digits, for example from openssl rand -hex 32; give all servers of a run the same one.'
    }
    $bytes = New-Object -TypeName byte[] -ArgumentList ($Text.Length / 2)
    for ($i = 0; $i -lt $bytes.Length; $i++) {
        $bytes[$i] = [System.Convert]::ToByte($Text.Substring(2 * $i, 2), 16)
    }
    , $bytes
}

Function Get-WebfarmSchema {
    <#
    .SYNOPSIS
    Reads which attributes the schema files of this server declare as encrypted, those of third parties included.

    .PARAMETER Problem
    A list that receives schema files that cannot be read.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[object]]
        $Problem
    )

    $schema = New-Object -TypeName WebfarmEncryptedSchema
    $folder = Join-Path -Path (Get-WebfarmConfigurationFolder) -ChildPath 'schema'
    $paths = @()
    if ([System.IO.Directory]::Exists($folder)) {
        $paths = @([System.IO.Directory]::GetFiles($folder, '*.xml') | Sort-Object)
    }
    if ($paths.Count -eq 0) {
        $Problem.Add([ordered]@{
                part = 'schema'
                message = "There is no schema file in '$folder': which attributes should be encrypted is not known."
            })
    }
    foreach ($path in $paths) {
        try {
            $schema.Add([System.IO.File]::ReadAllBytes($path), [System.IO.Path]::GetFileName($path))
        }
        catch {
            $Problem.Add([ordered]@{
                    part = 'schema'
                    message = "The schema file '$path' cannot be read: $(Get-WebfarmErrorText -ErrorRecord $_)"
                })
        }
    }
    $schema
}

Function Get-WebfarmFileName {
    <#
    .SYNOPSIS
    Returns name and path of every file that is looked at.
    #>
    [CmdletBinding()]
    param ()

    $folder = Get-WebfarmConfigurationFolder
    foreach ($name in @('applicationHost.config', 'administration.config', 'redirection.config', 'applicationHost.config.tmp')) {
        [ordered]@{
            name = $name
            path = Join-Path -Path $folder -ChildPath $name
        }
    }
    # What every ASP.NET application of the machine inherits.
    foreach ($bits in 'Framework64', 'Framework') {
        $path = Join-Path -Path ([System.Environment]::GetFolderPath('Windows')) -ChildPath "Microsoft.NET\$bits\v4.0.30319\Config\web.config"
        if ([System.IO.File]::Exists($path)) {
            [ordered]@{
                name = "$bits\web.config"
                path = $path
            }
        }
    }
}

Function Get-WebfarmFileFact {
    <#
    .SYNOPSIS
    Describes the local configuration files, the unusable ones included, and what in them is or should be encrypted.

    .DESCRIPTION
    Returns one object with Files, Encrypted, and Warnings about files that cannot be used.

    .PARAMETER Ignore
    Paths of attributes and elements that do not count for the canonical digest.

    .PARAMETER Override
    Paths of attributes whose value is this server's own.

    .PARAMETER RunKey
    Makes secrets in clear comparable within one run.

    .PARAMETER WithAttribute
    Return the comparable value of every attribute as well.

    .PARAMETER Problem
    A list that receives schema files that cannot be read.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [AllowEmptyCollection()]
        [string[]]
        $Ignore = @(),

        [Parameter()]
        [AllowEmptyCollection()]
        [string[]]
        $Override = @(),

        [Parameter()]
        [AllowNull()]
        [byte[]]
        $RunKey,

        [Parameter()]
        [switch]
        $WithAttribute,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[object]]
        $Problem
    )

    $schema = Get-WebfarmSchema -Problem $Problem
    $parent = $null
    $encrypted = New-Object -TypeName System.Collections.Generic.List[object]
    $files = foreach ($one in Get-WebfarmFileName) {
        $name = $one.name
        $path = $one.path
        $result = [ordered]@{
            name = $name
            path = $path
            exists = [System.IO.File]::Exists($path)
            size = $null
            sha256 = $null
            encoding = $null
            byte_order_mark = $null
            new_line = $null
            read_only = $null
            modified = $null
            protected_values = $null
            locations = @()
            canonical_digest = $null
            canonical_keyed_digest = $null
            canonical_attributes = $null
            message = $null
            fix = $null
        }
        if ($name -eq 'applicationHost.config.tmp') {
            if ($result.exists) {
                $result.message = "A left-over '$path' stops WAS from starting (events 5215 and 5005)."
                $result.fix = 'Delete it after a look at what it holds.'
                $result
            }
            continue
        }
        if (-not $result.exists) {
            if ($name -eq 'applicationHost.config') {
                $result.message = "'$path' does not exist."
                $result.fix = 'Is IIS installed here? Otherwise put the file back from a backup or from inetpub\history.'
            }
            $result
            continue
        }
        try {
            $info = New-Object -TypeName System.IO.FileInfo -ArgumentList $path
            $result.size = $info.Length
            $result.read_only = $info.IsReadOnly
            $result.modified = ConvertTo-WebfarmTimeText -Time $info.LastWriteTimeUtc
            $bytes = [System.IO.File]::ReadAllBytes($path)
            $result.sha256 = [WebfarmKeyContainer]::Sha256($bytes)
            $result.encoding = [WebfarmCanonical]::EncodingOf($bytes)
            $file = [WebfarmConfiguration]::Load($path)
            if ($name -eq 'applicationHost.config') {
                $parent = $file
            }
            elseif ($null -ne $parent) {
                $file = $file.Under($parent)
            }
            $result.byte_order_mark = $file.ByteOrderMark
            $result.new_line = $file.NewLine
            $result.protected_values = $file.Values.Count
            $form = New-Object -TypeName WebfarmCanonical -ArgumentList $file.Bytes, $schema, $Ignore, $Override, $RunKey
            $result.canonical_digest = $form.Digest
            $result.canonical_keyed_digest = $form.KeyedDigest
            if ($WithAttribute) {
                $result.canonical_attributes = ConvertTo-WebfarmPackedText -Content ([System.Text.Encoding]::UTF8.GetBytes($form.Attributes))
            }
            $result.locations = @(
                foreach ($location in $form.Locations) {
                    [ordered]@{
                        path = $location.Path
                        line = $location.Line
                        override_mode = $location.OverrideMode
                        sections = @($location.Sections)
                    }
                }
            )
            foreach ($attribute in $form.Encrypted) {
                $encrypted.Add((ConvertTo-WebfarmEncryptedFact -Attribute $attribute -File $file -Name $name))
            }
        }
        catch {
            $result.message = "'$path' cannot be used: $(Get-WebfarmErrorText -ErrorRecord $_)"
            $result.fix = 'Mend it, or put it back from a backup or from inetpub\history.'
        }
        $result
    }
    [PSCustomObject]@{
        Files = @($files)
        Encrypted = $encrypted.ToArray()
        Warnings = @($files | Where-Object -FilterScript { $_.message } | ForEach-Object -Process { "$($_.message) $($_.fix)".Trim() })
    }
}

Function ConvertTo-WebfarmEncryptedFact {
    <#
    .SYNOPSIS
    Turns an attribute that is or should be encrypted into plain facts. Its value is not among them.

    .PARAMETER Attribute
    What WebfarmCanonical found.

    .PARAMETER File
    The configuration file, which knows the providers.

    .PARAMETER Name
    The name of the file in results.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Attribute,

        [Parameter(Mandatory = $true)]
        [object]
        $File,

        [Parameter(Mandatory = $true)]
        [string]
        $Name
    )

    $container = $null
    if ($Attribute.Provider) {
        $provider = $File.Provider($Attribute.Provider)
        if ($null -ne $provider) {
            $container = $provider.Container
        }
    }
    [ordered]@{
        file = $Name
        path = $Attribute.Path
        line = $Attribute.Line
        provider = $Attribute.Provider
        container = $container
        state = $Attribute.State
        schema = $Attribute.Schema
    }
}

Function Get-WebfarmSharedConfigurationFact {
    <#
    .SYNOPSIS
    Returns what redirection.config says about the shared configuration.
    #>
    [CmdletBinding()]
    param ()

    $path = Join-Path -Path (Get-WebfarmConfigurationFolder) -ChildPath 'redirection.config'
    $result = [ordered]@{
        state = 'absent'
        file = $path
        path = $null
        user_name = $null
        password = 'none'
        provider = $null
        unc_polling = $false
        polling_period = '00:03:00'
        message = $null
    }
    if (-not [System.IO.File]::Exists($path)) {
        return $result
    }
    $result.state = 'disabled'
    try {
        $document = New-Object -TypeName System.Xml.XmlDocument
        $document.XmlResolver = $null
        $stream = New-Object -TypeName System.IO.MemoryStream -ArgumentList @(, [WebfarmConfiguration]::Load($path).Bytes)
        $document.Load($stream)
    }
    catch {
        $result.state = 'unreadable'
        $result.message = "'$path' cannot be used, so that it is not known which configuration IIS reads: $(Get-WebfarmErrorText -ErrorRecord $_)"
        return $result
    }
    $element = $document.SelectSingleNode('/configuration/configurationRedirection')
    if ($null -eq $element) {
        return $result
    }
    if ($element.GetAttribute('enabled') -eq 'true') {
        $result.state = 'enabled'
    }
    if ($element.GetAttribute('path')) {
        $result.path = $element.GetAttribute('path')
    }
    if ($element.GetAttribute('userName')) {
        $result.user_name = $element.GetAttribute('userName')
    }
    $result.unc_polling = $element.GetAttribute('enableUncPolling') -eq 'true'
    if ($element.GetAttribute('pollingPeriod')) {
        $result.polling_period = $element.GetAttribute('pollingPeriod')
    }
    $password = $element.GetAttribute('password')
    if ($password -match '^\[enc:([^:]+):.+:enc\]$') {
        $result.password = 'encrypted'
        $result.provider = $Matches[1]
    }
    elseif ($password -and $password -notmatch '^\[enc:[^:]*::enc\]$') {
        $result.password = 'clear'
    }
    $result
}

Export-ModuleMember -Function @(
    'ConvertTo-WebfarmRunKey'
    'Get-WebfarmFileFact'
    'Get-WebfarmSchema'
    'Get-WebfarmSharedConfigurationFact'
)
