# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# The interfaces in this file are meant for use within this collection and may change in any release, even a bugfix
# release.

#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -CSharpUtil ..module_utils._Rewrap
#AnsibleRequires -PowerShell ..module_utils._Facts

# What config_rewrap does on the source host: read a configuration, compare it with the copy on the controller, wrap its secrets
# for the public keys of other servers. Nothing is written here.

Function Get-WebfarmRewrapSpec {
    <#
    .SYNOPSIS
    Returns the options that only the controller reads, and those that the action plugin sets (with an underscore).
    #>
    [CmdletBinding()]
    [OutputType([hashtable])]
    param ()

    return @{
        options = @{
            bundle = @{
                type = 'path'
            }
            expected_fingerprints = @{
                type = 'dict'
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
            session_key = @{
                type = 'str'
                choices = 'shared', 'per_host'
                default = 'shared'
                no_log = $false
            }
            signer_certificate = @{
                type = 'path'
            }
            src = @{
                type = 'path'
            }
            targets = @{
                type = 'list'
                elements = 'dict'
                default = @()
                options = @{
                    dest = @{
                        type = 'path'
                        required = $true
                    }
                    expected_fingerprints = @{
                        type = 'dict'
                    }
                    name = @{
                        type = 'str'
                        required = $true
                    }
                    public_keys = @{
                        type = 'list'
                        elements = 'dict'
                        required = $true
                        no_log = $false
                    }
                }
            }
            _existing = @{
                type = 'str'
                no_log = $true
            }
            _targets = @{
                type = 'str'
                no_log = $true
            }
        }
    }
}

Function Read-WebfarmRewrapSource {
    <#
    .SYNOPSIS
    Reads the configuration, the live one when no path is given.

    .PARAMETER Path
    The option path.
    #>
    [CmdletBinding()]
    [OutputType([PSCustomObject])]
    param (
        [Parameter()]
        [AllowEmptyString()]
        [string]
        $Path
    )

    if (-not $Path) {
        Assert-WebfarmNotRedirected -Advice 'Name the effective file with the option path, as this server sees it.'
        $Path = Join-Path -Path (Get-WebfarmConfigurationFolder) -ChildPath 'applicationHost.config'
    }
    elseif (-not [System.IO.Path]::IsPathRooted($Path)) {
        throw "path: '$Path' is not an absolute path on the server."
    }
    try {
        $file = [WebfarmConfiguration]::Load($Path)
    }
    catch {
        throw "The configuration file '$Path' cannot be used: $(Get-WebfarmErrorText -ErrorRecord $_)"
    }
    [PSCustomObject]@{
        Path = $Path
        File = $file
    }
}

Function Get-WebfarmSameCopy {
    <#
    .SYNOPSIS
    Returns the SHA-256 of the copy on the controller when it already says what the new one says, else nothing.

    .PARAMETER Text
    The packed content of the copy on the controller.

    .PARAMETER File
    The new copy.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter()]
        [AllowEmptyString()]
        [string]
        $Text,

        [Parameter(Mandatory = $true)]
        [object]
        $File
    )

    if (-not $Text) {
        return
    }
    try {
        $existing = [WebfarmConfiguration]::Parse((ConvertFrom-WebfarmPackedText -Text $Text -Name 'the present copy'), $File.Name)
    }
    catch {
        # A damaged copy is simply replaced.
        return
    }
    if ([WebfarmProtection]::SameContent($existing, $null, $File, $null)) {
        return $existing.Sha256
    }
}

Function Get-WebfarmWrapping {
    <#
    .SYNOPSIS
    Wraps the secrets of the copy for the public keys of other servers. Private keys are used where they are, in this server's own
    containers; session keys and clear texts stay in C#.

    .PARAMETER Copy
    The packed content of the copy, as this server's keys open it.

    .PARAMETER Target
    The packed list of public keys.

    .PARAMETER Left
    Paths of session keys and values that stay as they are.

    .PARAMETER Fresh
    Every server gets session keys of its own.
    #>
    [CmdletBinding()]
    [OutputType([PSCustomObject])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Copy,

        [Parameter(Mandatory = $true)]
        [string]
        $Target,

        [Parameter()]
        [string[]]
        $Left = @(),

        [Parameter()]
        [switch]
        $Fresh
    )

    $bytes = ConvertFrom-WebfarmPackedText -Text $Copy -Name 'the copy'
    $file = [WebfarmConfiguration]::Parse($bytes, 'applicationHost.config')
    $request = [System.Text.Encoding]::UTF8.GetString((ConvertFrom-WebfarmPackedText -Text $Target -Name 'the list of public keys'))
    $rewrapper = New-Object -TypeName WebfarmRewrapper -ArgumentList $file, $Left, $Fresh.IsPresent
    try {
        [PSCustomObject]@{
            Sha256 = $file.Sha256
            Paths = $rewrapper.Paths
            Answer = ConvertTo-WebfarmPackedText -Content ([System.Text.Encoding]::UTF8.GetBytes($rewrapper.Answer($request)))
        }
    }
    finally {
        $rewrapper.Dispose()
    }
}

$export = @{
    Function = @(
        'Get-WebfarmRewrapSpec'
        'Get-WebfarmSameCopy'
        'Get-WebfarmWrapping'
        'Read-WebfarmRewrapSource'
    )
}
Export-ModuleMember @export
