# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# Do the accounts of application pools log on with the passwords of a configuration? Every attempt with a wrong password counts towards
# the lockout of the account, in a domain on all servers together. So it is asked for by name, an account is tried once in a run and only
# where something changes, before IIS tries it too; settling an interrupted run never tries.

#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._Fit
#AnsibleRequires -CSharpUtil ..module_utils._Logon
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -PowerShell ..module_utils._Facts

Function Invoke-WebfarmLogon {
    <#
    .SYNOPSIS
    Tries one account, once; returns 0 or the error of Windows.

    .PARAMETER Account
    The account.

    .PARAMETER Password
    Its password.
    #>
    [CmdletBinding()]
    [OutputType([int])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Account,

        [Parameter(Mandatory = $true)]
        [System.Security.SecureString]
        $Password
    )

    return [WebfarmLogon]::Try($Account, $Password)
}

Function Get-WebfarmPoolPassword {
    <#
    .SYNOPSIS
    Returns the password beside the user name of an application pool, opened with the keys in their containers; $null for none, or one that
    does not open.

    .PARAMETER File
    The parsed applicationHost.config.

    .PARAMETER Path
    The attribute path of the user name.
    #>
    [CmdletBinding()]
    [OutputType([System.Security.SecureString])]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $File,

        [Parameter(Mandatory = $true)]
        [string]
        $Path
    )

    $beside = $Path -replace '@userName$', '@password'
    if (@($File.Values | ForEach-Object -Process { $_.Path }) -ccontains $beside) {
        return [WebfarmProtection]::OpenSecure($File, $beside)
    }
    return [WebfarmLogon]::Secure([WebfarmOverride]::Value($File, $beside))
}

Function Get-WebfarmLogonProblem {
    <#
    .SYNOPSIS
    Says which accounts of application pools do not log on with the passwords of a configuration.

    .DESCRIPTION
    Pools that do not run, and accounts without a password (managed ones), are left out.

    .PARAMETER File
    The parsed applicationHost.config.

    .PARAMETER Pool
    The pools before the change, with name and state.

    .PARAMETER Warning
    A list that receives warnings.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $File,

        [Parameter()]
        [AllowEmptyCollection()]
        [object[]]
        $Pool = @(),

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    $still = @($Pool | Where-Object -FilterScript { $_.state -ne 'Started' } | ForEach-Object -Process { $_.name })
    $tried = New-Object -TypeName 'System.Collections.Generic.HashSet[string]' -ArgumentList ([System.StringComparer]::OrdinalIgnoreCase)
    foreach ($reference in [WebfarmFit]::References($File)) {
        if ($reference.Kind -ne 'pool_user') {
            continue
        }
        $what = 'the defaults of application pools'
        if ($reference.Path -match "/add\[@name='(.+)'\]/processModel/@userName$") {
            if ($still -contains $Matches[1]) {
                continue
            }
            $what = "the application pool $($Matches[1])"
        }
        # A bare name is one of this computer.
        $account = $reference.Value
        $name = $account -replace "^(\.|$([regex]::Escape([Environment]::MachineName)))\\", ''
        if ($tried.Contains($name)) {
            continue
        }
        $password = Get-WebfarmPoolPassword -File $File -Path $reference.Path
        if ($null -eq $password) {
            continue
        }
        $null = $tried.Add($name)
        try {
            $code = Invoke-WebfarmLogon -Account $account -Password $password
        }
        finally {
            $password.Dispose()
        }
        $words = "$((New-Object -TypeName System.ComponentModel.Win32Exception -ArgumentList $code).Message.TrimEnd('.')) ($code)"
        switch ([WebfarmLogon]::Judge($code)) {
            'refused' {
                "$account, the account of $what, does not log on with its password in the new configuration: $words"
            }
            'unknown' {
                $Warning.Add("Whether $account, the account of $what, logs on could not be tried: $words.")
            }
        }
    }
}

Function Get-WebfarmLogonCheck {
    <#
    .SYNOPSIS
    Returns what a transaction calls before it starts the services (its option check); nothing where the user did not ask for it.

    .PARAMETER Parameter
    The parameters of the module.
    #>
    [CmdletBinding()]
    [OutputType([scriptblock])]
    param (
        [Parameter(Mandatory = $true)]
        [System.Collections.IDictionary]
        $Parameter
    )

    if (-not $Parameter['logon_test']) {
        return
    }
    return {
        param ($State, $Warning)
        $file = [WebfarmConfiguration]::Load((Get-WebfarmEffectivePath))
        Get-WebfarmLogonProblem -File $file -Pool @($State.pools) -Warning $Warning
    }
}

Export-ModuleMember -Function @(
    'Get-WebfarmLogonCheck'
    'Get-WebfarmLogonProblem'
)
