#!powershell

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

#AnsibleRequires -CSharpUtil Ansible.Basic
#AnsibleRequires -CSharpUtil ..module_utils._ServiceControl
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._Backup
#AnsibleRequires -PowerShell ..module_utils._Diagnosis
#AnsibleRequires -PowerShell ..module_utils._Difference
#AnsibleRequires -PowerShell ..module_utils._EventLog
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Host
#AnsibleRequires -PowerShell ..module_utils._ServerFacts
#AnsibleRequires -PowerShell ..module_utils._Service

$spec = @{
    options = @{
        containers = @{
            type = 'list'
            elements = 'str'
            default = @()
        }
        decrypt = @{
            type = 'str'
            choices = @('none', 'session', 'all')
            default = 'all'
        }
        event_hours = @{
            type = 'int'
            default = 24
        }
        gather_subset = @{
            type = 'list'
            elements = 'str'
            choices = @('all', 'keys', 'values', 'files', 'providers', 'services', 'history', 'backups', 'events')
            default = @('all')
        }
        unreadable = @{
            type = 'str'
            choices = @('fail', 'report')
            default = 'fail'
        }
    }
    supports_check_mode = $true
}

$module = [Ansible.Basic.AnsibleModule]::Create($args, $spec)

$module.Result.changed = $false
$module.Result.format_version = '1.1'
$module.Result.host = $null
$module.Result.redirection = $null
$module.Result.gathering_problems = @()
$module.Result.key_containers = @()
$module.Result.key_folders = @()
$module.Result.session_keys = @()
$module.Result.protected_values = @()
$module.Result.certificate_store = $null
$module.Result.configuration_files = @()
$module.Result.configuration_providers = @()
$module.Result.services = @()
$module.Result.app_pools = @()
$module.Result.sites = @()
$module.Result.history = $null
$module.Result.backups = @()
$module.Result.events = $null

Function Get-ServiceFact {
    <#
    .SYNOPSIS
    Returns the services that read the configuration, each with its state and what it ended with.
    #>
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

Function Get-RuntimePool {
    <#
    .SYNOPSIS
    Returns the application pools with their runtime state; nothing where WAS does not run or appcmd cannot tell.
    #>
    param ()

    if ([WebfarmService]::Query('WAS').Status -ne 'running') {
        return
    }
    try {
        Get-WebfarmRuntimeObject -Kind apppool
    }
    catch {
        $script:problems.Add([ordered]@{
                part = 'app_pools'
                message = "The state of the application pools is not known: $(Get-WebfarmErrorText -ErrorRecord $_)"
            })
    }
}

Function Invoke-Part {
    <#
    .SYNOPSIS
    Gathers one part. With unreadable: report its failure is kept in gathering_problems and the others go on.

    .PARAMETER Name
    The part, as gathering_problems names it.

    .PARAMETER Script
    What gathers it.
    #>
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Name,

        [Parameter(Mandatory = $true)]
        [scriptblock]
        $Script
    )

    try {
        . $Script
    }
    catch {
        if ($module.Params.unreadable -ne 'report') {
            throw
        }
        $script:problems.Add([ordered]@{
                part = $Name
                message = Get-WebfarmErrorText -ErrorRecord $_
            })
    }
}

$warnings = New-Object -TypeName System.Collections.Generic.List[string]
$script:problems = New-Object -TypeName System.Collections.Generic.List[object]
$report = $module.Params.unreadable -eq 'report'
$wanted = @{}
foreach ($name in @('keys', 'values', 'files', 'providers', 'services', 'history', 'backups', 'events')) {
    $wanted[$name] = $module.Params.gather_subset -contains $name -or ($name -ne 'events' -and $module.Params.gather_subset -contains 'all')
}
$script:redirected = $false
$script:files = @()

try {
    Assert-WebfarmHost
    Invoke-Part -Name host -Script {
        $module.Result.host = Get-WebfarmHostFact
    }
    Invoke-Part -Name redirection -Script {
        $module.Result.redirection = Get-WebfarmRedirection
        $script:redirected = $module.Result.redirection.enabled
    }

    # What IIS reads lies elsewhere: the local files prove nothing.
    if ($script:redirected -and -not $report -and ($wanted['values'] -or $wanted['providers'])) {
        Assert-WebfarmNotRedirected -Advice 'A gather_subset without values and providers (keys, files, services) still works.'
    }
    if (-not $script:redirected -and ($wanted['values'] -or $wanted['providers'] -or $wanted['services'] -or $wanted['history'])) {
        Invoke-Part -Name configuration_files -Script {
            if ($report) {
                $script:files = @(Get-WebfarmConfigurationFile -Problem $script:problems)
            }
            elseif ($wanted['values'] -or $wanted['providers'] -or $wanted['services']) {
                $script:files = @(Get-WebfarmConfigurationFile)
            }
            else {
                # The history has a default place, whatever the file says.
                $ignored = New-Object -TypeName System.Collections.Generic.List[object]
                $script:files = @(Get-WebfarmConfigurationFile -Problem $ignored)
            }
        }
    }
    $main = @($script:files | Where-Object -FilterScript { $_.Name -eq 'applicationHost.config' }) | Select-Object -First 1

    if ($wanted['keys'] -or $wanted['values']) {
        Invoke-Part -Name keys -Script {
            $decrypt = 'none'
            $proven = @()
            if ($wanted['values']) {
                $decrypt = $module.Params.decrypt
                $proven = $script:files
            }
            $inventory = @{
                Container = $module.Params.containers
                File = $proven
                Decrypt = $decrypt
                WithoutContainer = -not $wanted['keys']
            }
            $facts = Get-WebfarmInventory @inventory
            $module.Result.key_containers = $facts.KeyContainers
            $module.Result.session_keys = $facts.SessionKeys
            $module.Result.protected_values = $facts.ProtectedValues
            $warnings.AddRange([string[]]@($facts.Warnings))
        }
    }
    if ($wanted['keys']) {
        Invoke-Part -Name key_folders -Script {
            $module.Result.key_folders = @(Get-WebfarmKeyFolderFact)
        }
    }
    if ($wanted['values']) {
        Invoke-Part -Name certificate_store -Script {
            $module.Result.certificate_store = Get-WebfarmCertificateStoreFact -Decrypt $module.Params.decrypt
        }
    }
    $surroundings = @{
        Folder = $module.Result.key_folders
        CertificateStore = $module.Result.certificate_store
    }
    $warnings.AddRange([string[]]@(Get-WebfarmSurroundingWarning @surroundings))

    if ($wanted['providers']) {
        $module.Result.configuration_providers = @(Get-WebfarmProviderFact -File $script:files)
    }

    if ($wanted['files']) {
        $module.Result.configuration_files = @(Get-WebfarmFileFact)
        foreach ($file in $module.Result.configuration_files) {
            if ($file.message) {
                $warnings.Add("$($file.message) $($file.fix)".Trim())
            }
        }
    }

    if ($wanted['services']) {
        Invoke-Part -Name services -Script {
            $module.Result.services = @(Get-ServiceFact)
        }
        if ($script:redirected) {
            $warnings.Add("IIS reads its configuration from '$($module.Result.redirection.path)': application pools and sites are not listed.")
        }
        elseif ($null -ne $main) {
            Invoke-Part -Name app_pools -Script {
                $module.Result.app_pools = @(Get-WebfarmPoolFact -File $main -State @(Get-RuntimePool))
                $module.Result.sites = @(Get-WebfarmSiteFact -File $main)
            }
        }
    }

    if ($wanted['history']) {
        Invoke-Part -Name history -Script {
            $module.Result.history = Get-WebfarmHistoryFact -File $main -Decrypt $module.Params.decrypt
            Add-WebfarmSnapshotDifference -History $module.Result.history -File $main
        }
    }
    if ($wanted['backups']) {
        Invoke-Part -Name backups -Script {
            $module.Result.backups = @(Get-WebfarmBackupFact -Decrypt $module.Params.decrypt)
        }
    }
    if ($wanted['events']) {
        Invoke-Part -Name events -Script {
            $module.Result.events = Get-WebfarmEventFact -Hours $module.Params.event_hours
        }
    }
}
catch {
    $module.FailJson("Gathering the facts of this server failed: $(Get-WebfarmErrorText -ErrorRecord $_)", $_)
}

$module.Result.gathering_problems = $script:problems.ToArray()
foreach ($problem in $script:problems) {
    # The files have said it themselves.
    if ($problem.part -notlike '*.config' -or -not $wanted['files']) {
        $warnings.Add("$($problem.part): $($problem.message)")
    }
}
foreach ($warning in $warnings) {
    $module.Warn($warning)
}

$module.ExitJson()
