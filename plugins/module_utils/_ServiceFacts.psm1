# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# The interfaces in this file are meant for use within this collection and may change in any release, even a bugfix
# release.

#AnsibleRequires -CSharpUtil ..module_utils._ServiceControl
#AnsibleRequires -PowerShell ..module_utils._Appcmd
#AnsibleRequires -PowerShell ..module_utils._Diagnosis
#AnsibleRequires -PowerShell ..module_utils._Facts

# What server_info says about services and the runtime state of application pools. Nothing here changes the server.

Function Get-WebfarmServiceFact {
    <#
    .SYNOPSIS
    Returns the services that read the configuration, each with its state and what it ended with.
    #>
    [CmdletBinding()]
    param ()

    foreach ($name in @('WAS', 'W3SVC', 'AppHostSvc', 'WMSVC', 'FTPSVC', 'IISADMIN')) {
        $service = [WebfarmService]::Query($name)
        # The metabase of IIS 6 is rarely installed; its absence says nothing.
        if ($name -eq 'IISADMIN' -and -not $service.Installed) {
            continue
        }
        $result = [ordered]@{
            name = $name
            state = 'absent'
            start_mode = $null
            hresult = $null
            message = $null
            cause = $null
            fix = $null
        }
        if ($service.Installed) {
            $result.state = $service.Status
            $result.start_mode = $service.StartType
            # 1077: not started since the system started.
            if ($service.Status -eq 'stopped' -and $service.ExitCode -ne 0 -and $service.ExitCode -ne 1077) {
                $diagnosis = Get-WebfarmDiagnosis -Code $service.ExitCode -Context service
                $result.hresult = $diagnosis.hresult
                $result.message = "The service $name ended with $("$($diagnosis.hresult) $($diagnosis.name)".Trim()): $($diagnosis.message)"
                $result.cause = $diagnosis.cause
                $result.fix = $diagnosis.fix
            }
        }
        $result
    }
}

Function Get-WebfarmRuntimePool {
    <#
    .SYNOPSIS
    Returns the application pools with their runtime state; nothing where WAS does not run or appcmd cannot tell.

    .PARAMETER Problem
    A list that receives why appcmd could not tell.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[object]]
        $Problem
    )

    if ([WebfarmService]::Query('WAS').Status -ne 'running') {
        return
    }
    try {
        Get-WebfarmRuntimeObject -Kind apppool
    }
    catch {
        $Problem.Add([ordered]@{
                part = 'app_pools'
                message = "The state of the application pools is not known: $(Get-WebfarmErrorText -ErrorRecord $_)"
            })
    }
}

Export-ModuleMember -Function @(
    'Get-WebfarmRuntimePool'
    'Get-WebfarmServiceFact'
)
