# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# What every module asks of the process that it runs in, before it looks at anything.

Function Get-WebfarmProcessFact {
    <#
    .SYNOPSIS
    Tells what kind of process this is.
    #>
    [CmdletBinding()]
    [OutputType([hashtable])]
    param ()

    $identity = [System.Security.Principal.WindowsIdentity]::GetCurrent()
    try {
        $principal = New-Object -TypeName System.Security.Principal.WindowsPrincipal -ArgumentList $identity
        $elevated = $principal.IsInRole([System.Security.Principal.WindowsBuiltInRole]::Administrator)
        if ($identity.IsSystem) {
            $elevated = $true
        }
        return @{
            System64 = [Environment]::Is64BitOperatingSystem
            Process64 = [Environment]::Is64BitProcess
            Elevated = $elevated
            User = $identity.Name
        }
    }
    finally {
        $identity.Dispose()
    }
}

Function Assert-WebfarmHost {
    <#
    .SYNOPSIS
    Throws where the process cannot see what IIS sees.

    .DESCRIPTION
    A 32-bit process on 64-bit Windows is redirected to another inetsrv folder and another registry view. A token that is
    not elevated opens no machine key and would take "denied" for "missing".

    .PARAMETER Fact
    The facts to judge, for tests. Default: those of this process.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [hashtable]
        $Fact = (Get-WebfarmProcessFact)
    )

    if ($Fact.System64 -and -not $Fact.Process64) {
        throw "This is a 32-bit PowerShell on 64-bit Windows: it sees another inetsrv\config folder and another registry than IIS. " +
        'Connect to the 64-bit PowerShell: use the default session configuration (Microsoft.PowerShell, not Microsoft.PowerShell32), ' +
        'or for SSH set the DefaultShell to System32\WindowsPowerShell\v1.0\powershell.exe.'
    }
    if (-not $Fact.System64) {
        throw 'This is a 32-bit Windows. IIS 10 on 64-bit Windows is supported.'
    }
    if (-not $Fact.Elevated) {
        throw "The account $($Fact.User) runs without administrator rights here, so no machine key can be opened or told from a missing one. " +
        'Connect with an administrator whose token is elevated: a domain account that is a local administrator, the built-in Administrator, ' +
        'or become with become_method runas and a local administrator account ' +
        '(for other local accounts UAC filters the token of remote logons: LocalAccountTokenFilterPolicy).'
    }
}

Export-ModuleMember -Function Assert-WebfarmHost, Get-WebfarmProcessFact
