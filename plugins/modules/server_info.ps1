#!powershell

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

#AnsibleRequires -CSharpUtil Ansible.Basic
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._Backup
#AnsibleRequires -PowerShell ..module_utils._Difference
#AnsibleRequires -PowerShell ..module_utils._EventLog
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._FileFacts
#AnsibleRequires -PowerShell ..module_utils._Host
#AnsibleRequires -PowerShell ..module_utils._ServerFacts
#AnsibleRequires -PowerShell ..module_utils._ServiceFacts
#AnsibleRequires -PowerShell ..module_utils._WebFacts

$subsets = @('all', 'keys', 'values', 'files', 'providers', 'services', 'history', 'backups', 'shared_config', 'events')
$spec = @{
    options = @{
        canonical_ignore = @{ type = 'list'; elements = 'str'; default = @() }
        canonical_overrides = @{ type = 'list'; elements = 'str'; default = @() }
        compare_attributes = @{ type = 'bool'; default = $false }
        containers = @{ type = 'list'; elements = 'str'; default = @() }
        decrypt = @{ type = 'str'; choices = @('none', 'session', 'all'); default = 'all' }
        event_hours = @{ type = 'int'; default = 24 }
        gather_subset = @{ type = 'list'; elements = 'str'; choices = $subsets; default = @('all') }
        run_key = @{ type = 'str'; no_log = $true }
        web_configurations = @{ type = 'str'; choices = @('none', 'sites'); default = 'none' }
        unreadable = @{ type = 'str'; choices = @('fail', 'report'); default = 'fail' }
    }
    supports_check_mode = $true
}

$module = [Ansible.Basic.AnsibleModule]::Create($args, $spec)

$module.Result.changed = $false
$module.Result.format_version = '1.2'
foreach ($name in @('host', 'redirection', 'run_key_id', 'shared_config', 'history', 'certificate_store', 'web_configurations', 'machine_keys', 'events')) {
    $module.Result[$name] = $null
}
foreach ($name in @('gathering_problems', 'key_containers', 'key_folders', 'session_keys', 'protected_values', 'encrypted_attributes',
        'configuration_files', 'configuration_providers', 'backups', 'services', 'app_pools', 'sites')) {
    $module.Result[$name] = @()
}

$warnings = New-Object -TypeName System.Collections.Generic.List[string]
$script:problems = New-Object -TypeName System.Collections.Generic.List[object]
$report = $module.Params.unreadable -eq 'report'
$web = $module.Params.web_configurations -eq 'sites'
$PSDefaultParameterValues['Invoke-WebfarmPart:Problem'] = $script:problems
$PSDefaultParameterValues['Invoke-WebfarmPart:Report'] = $report
$wanted = @{}
foreach ($name in $subsets) {
    $wanted[$name] = $module.Params.gather_subset -contains $name -or ($name -ne 'events' -and $module.Params.gather_subset -contains 'all')
}
$script:redirected = $false
$script:files = @()

try {
    Assert-WebfarmHost
    Invoke-WebfarmPart -Name host -Script { $module.Result.host = Get-WebfarmHostFact }
    Invoke-WebfarmPart -Name redirection -Script {
        $module.Result.redirection = Get-WebfarmRedirection
        $script:redirected = $module.Result.redirection.enabled
    }

    # What IIS reads lies elsewhere: the local files prove nothing.
    if ($script:redirected -and -not $report -and ($wanted['values'] -or $wanted['providers'])) {
        Assert-WebfarmNotRedirected -Advice 'A gather_subset without values and providers (keys, files, services) still works.'
    }
    if (-not $script:redirected -and ($wanted['values'] -or $wanted['providers'] -or $wanted['services'] -or $wanted['history'] -or $web)) {
        Invoke-WebfarmPart -Name configuration_files -Script {
            $kept = $null
            if ($report) {
                $kept = $script:problems
            }
            elseif (-not ($wanted['values'] -or $wanted['providers'] -or $wanted['services'] -or $web)) {
                # The history has a default place, whatever the file says.
                $kept = New-Object -TypeName System.Collections.Generic.List[object]
            }
            $script:files = @(Get-WebfarmConfigurationFile -Problem $kept)
        }
    }
    $main = @($script:files | Where-Object -FilterScript { $_.Name -eq 'applicationHost.config' }) | Select-Object -First 1

    if ($wanted['keys'] -or $wanted['values']) {
        Invoke-WebfarmPart -Name keys -Script {
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
        Invoke-WebfarmPart -Name key_folders -Script {
            $module.Result.key_folders = @(Get-WebfarmKeyFolderFact)
        }
    }
    if ($wanted['values']) {
        Invoke-WebfarmPart -Name certificate_store -Script {
            $module.Result.certificate_store = Get-WebfarmCertificateStoreFact -Decrypt $module.Params.decrypt
        }
    }
    $warnings.AddRange([string[]]@(Get-WebfarmSurroundingWarning -Folder $module.Result.key_folders -CertificateStore $module.Result.certificate_store))

    if ($wanted['providers']) {
        $module.Result.configuration_providers = @(Get-WebfarmProviderFact -File $script:files)
    }

    $runKey = ConvertTo-WebfarmRunKey -Text $module.Params.run_key
    $module.Result.run_key_id = [WebfarmCanonical]::IdOf($runKey)
    if ($wanted['files']) {
        $asked = @{
            Ignore = $module.Params.canonical_ignore
            Override = $module.Params.canonical_overrides
            RunKey = $runKey
            WithAttribute = $module.Params.compare_attributes
            Problem = $script:problems
        }
        $described = Get-WebfarmFileFact @asked
        $module.Result.configuration_files = $described.Files
        $module.Result.encrypted_attributes = $described.Encrypted
        $warnings.AddRange([string[]]$described.Warnings)
    }

    if ($wanted['services']) {
        Invoke-WebfarmPart -Name services -Script {
            $module.Result.services = @(Get-WebfarmServiceFact)
        }
        if ($script:redirected) {
            $warnings.Add("IIS reads its configuration from '$($module.Result.redirection.path)': application pools and sites are not listed.")
        }
        elseif ($null -ne $main) {
            Invoke-WebfarmPart -Name app_pools -Script {
                $module.Result.app_pools = @(Get-WebfarmPoolFact -File $main -State @(Get-WebfarmRuntimePool -Problem $script:problems))
                $module.Result.sites = @(Get-WebfarmSiteFact -File $main)
            }
        }
    }

    if ($web -and $null -ne $main) {
        Invoke-WebfarmPart -Name web_configurations -Script {
            $found = Get-WebfarmWebFact -File $main -Decrypt $module.Params.decrypt -RunKey $runKey
            $module.Result.web_configurations = $found.Files
            $module.Result.machine_keys = $found.MachineKeys
        }
    }
    if ($wanted['shared_config']) {
        $module.Result.shared_config = Get-WebfarmSharedConfigurationFact
    }
    if ($wanted['history']) {
        Invoke-WebfarmPart -Name history -Script {
            $module.Result.history = Get-WebfarmHistoryFact -File $main -Decrypt $module.Params.decrypt
            Add-WebfarmSnapshotDifference -History $module.Result.history -File $main
        }
    }
    if ($wanted['backups']) {
        Invoke-WebfarmPart -Name backups -Script {
            $module.Result.backups = @(Get-WebfarmBackupFact -Decrypt $module.Params.decrypt)
        }
    }
    if ($wanted['events']) {
        Invoke-WebfarmPart -Name events -Script {
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
