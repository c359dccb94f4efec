#!powershell

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

#AnsibleRequires -CSharpUtil Ansible.Basic
#AnsibleRequires -PowerShell ..module_utils._Access
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Host
#AnsibleRequires -PowerShell ..module_utils._ServerFacts

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
        identify = @{
            type = 'list'
            elements = 'str'
            default = @()
        }
    }
    supports_check_mode = $true
}

$module = [Ansible.Basic.AnsibleModule]::Create($args, $spec)

$module.Result.changed = $false
$module.Result.host = [System.Environment]::MachineName
$module.Result.machine_guid = $null
$module.Result.redirection = $null
$module.Result.key_containers = @()
$module.Result.key_folders = @()
$module.Result.identified_files = @()
$module.Result.session_keys = @()
$module.Result.protected_values = @()
$module.Result.certificate_store = $null

$warnings = @()
try {
    Assert-WebfarmHost
    $module.Result.machine_guid = [WebfarmKeyContainer]::MachineGuid()
    $module.Result.redirection = Get-WebfarmRedirection

    $files = @()
    if ($module.Result.redirection.enabled) {
        if ($module.Params.decrypt -ne 'none') {
            Assert-WebfarmNotRedirected -Advice 'Use decrypt: none for an inventory of the containers alone.'
        }
        $warnings += "IIS reads its configuration from '$($module.Result.redirection.path)': session keys and values of this server are not listed."
    }
    else {
        $files = @(Get-WebfarmConfigurationFile)
    }

    $inventory = @{
        Container = $module.Params.containers
        File = $files
        Decrypt = $module.Params.decrypt
    }
    $facts = Get-WebfarmInventory @inventory
    $module.Result.key_containers = $facts.KeyContainers
    $module.Result.session_keys = $facts.SessionKeys
    $module.Result.protected_values = $facts.ProtectedValues
    $warnings += $facts.Warnings

    $module.Result.key_folders = @(Get-WebfarmKeyFolderFact)
    $module.Result.certificate_store = Get-WebfarmCertificateStoreFact -Decrypt $module.Params.decrypt
    $warnings += @(Get-WebfarmSurroundingWarning -Folder $module.Result.key_folders -CertificateStore $module.Result.certificate_store)
    $module.Result.identified_files = @(Get-WebfarmIdentifiedFile -Name $module.Params.identify)
}
catch {
    $module.FailJson("The key inventory failed: $(Get-WebfarmErrorText -ErrorRecord $_)", $_)
}

foreach ($warning in $warnings) {
    $module.Warn($warning)
}

$module.ExitJson()
