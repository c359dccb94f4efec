# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# A file that decrypts can still stop a server: whether a candidate fits this one, asked before anything is stopped.

#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._Fit
#AnsibleRequires -PowerShell ..module_utils._Facts

# How many findings a message lists; the result has all of them.
$script:shownFindings = 8

Function Get-WebfarmPendingReboot {
    <#
    .SYNOPSIS
    Returns why Windows waits for a restart, one text each; nothing where it does not.

    .DESCRIPTION
    Of the pending file operations only renames count: a file that waits to be deleted changes nothing that IIS loads.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param ()

    $machine = [Microsoft.Win32.RegistryKey]::OpenBaseKey('LocalMachine', 'Registry64')
    try {
        $present = [ordered]@{
            'SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootPending' = 'a feature or an update was installed or removed'
            'SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootInProgress' = 'an update is being installed'
            'SOFTWARE\Microsoft\Windows\CurrentVersion\WindowsUpdate\Auto Update\RebootRequired' = 'Windows Update installed something'
        }
        foreach ($path in $present.Keys) {
            $key = $machine.OpenSubKey($path)
            if ($null -ne $key) {
                $key.Dispose()
                "$($present[$path]) (HKLM\$path)"
            }
        }
        $value = Get-WebfarmMachineValue -Machine $machine -Path 'SYSTEM\CurrentControlSet\Control\Session Manager' -Name PendingFileRenameOperations
        $operations = @($value | Where-Object -FilterScript { $null -ne $_ })
        for ($at = 0; $at + 1 -lt $operations.Count; $at += 2) {
            if ($operations[$at + 1]) {
                "a file is replaced at the next start: $($operations[$at]) (PendingFileRenameOperations)"
                break
            }
        }
        $control = 'SYSTEM\CurrentControlSet\Control\ComputerName'
        $active = Get-WebfarmMachineValue -Machine $machine -Path "$control\ActiveComputerName" -Name ComputerName
        $next = Get-WebfarmMachineValue -Machine $machine -Path "$control\ComputerName" -Name ComputerName
        if ($active -and $next -and $active -ne $next) {
            "the computer is going to be called $next instead of $active"
        }
        if (Get-WebfarmMachineValue -Machine $machine -Path 'SYSTEM\CurrentControlSet\Services\Netlogon' -Name JoinDomain) {
            'the computer joined a domain'
        }
    }
    finally {
        $machine.Dispose()
    }
}

Function Get-WebfarmMachineValue {
    <#
    .SYNOPSIS
    Returns a value of the registry, or nothing.

    .PARAMETER Machine
    The opened hive.

    .PARAMETER Path
    The key.

    .PARAMETER Name
    The value.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [Microsoft.Win32.RegistryKey]
        $Machine,

        [Parameter(Mandatory = $true)]
        [string]
        $Path,

        [Parameter(Mandatory = $true)]
        [string]
        $Name
    )

    $key = $Machine.OpenSubKey($Path)
    if ($null -ne $key) {
        try {
            $key.GetValue($Name)
        }
        finally {
            $key.Dispose()
        }
    }
}

Function Get-WebfarmHostAddress {
    <#
    .SYNOPSIS
    Returns the IP addresses of this host as text, without scope.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param ()

    foreach ($card in [System.Net.NetworkInformation.NetworkInterface]::GetAllNetworkInterfaces()) {
        foreach ($one in $card.GetIPProperties().UnicastAddresses) {
            ([string]$one.Address -split '%')[0]
        }
    }
}

Function Get-WebfarmAccountFinding {
    <#
    .SYNOPSIS
    Returns a finding for every account of the file that this host cannot resolve.

    .PARAMETER Reference
    From WebfarmFit.References.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [object[]]
        $Reference = @()
    )

    $asked = @{}
    foreach ($item in $Reference) {
        $name = $item.Value
        # The identities of pools are known only once the pool is.
        if ($name -like 'IIS APPPOOL\*') {
            continue
        }
        if (-not $asked.ContainsKey($name)) {
            $asked[$name] = [WebfarmAccount]::Resolve($name)
        }
        if ($asked[$name] -eq 0) {
            continue
        }
        $code = 'pool_user_unknown'
        $what = 'the application pool cannot start'
        if ($item.Kind -eq 'folder_user') {
            $code = 'folder_user_unknown'
            $what = 'the folder cannot be read'
        }
        $text = "the account $name does not resolve on this host; $what"
        $fix = 'Create the account, join this server to its domain, or give another one for this server in overrides.'
        if ($asked[$name] -ne 1332) {
            $text = "the account $name could not be looked up (Win32 error $($asked[$name])); $what if it does not exist"
            $fix = 'Check that this server reaches a controller of the domain (nltest /sc_query), and run again.'
        }
        [WebfarmFit]::HostFinding($code, 'error', $item.Path, $item.Line, $text, $fix)
    }
}

Function Get-WebfarmFolderFinding {
    <#
    .SYNOPSIS
    Returns a finding for every local folder of the file that is not on this host, and a note for every share.

    .DESCRIPTION
    Shares are not asked: another account reads them than the one of this connection, and a file server that is away would keep the task waiting.

    .PARAMETER Reference
    From WebfarmFit.References.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [object[]]
        $Reference = @()
    )

    foreach ($item in $Reference) {
        $path = [Environment]::ExpandEnvironmentVariables($item.Value)
        if ($path.StartsWith('\\')) {
            [WebfarmFit]::Share($item.Path, $item.Line, $path)
            continue
        }
        if ([System.IO.Directory]::Exists($path)) {
            continue
        }
        $code = 'folder_absent'
        $fix = 'Bring the content to this server, or give another folder for it in overrides.'
        if ($item.Kind -eq 'log_folder') {
            $code = 'log_folder_absent'
            $fix = 'Create the folder, or give another one for this server in overrides.'
        }
        [WebfarmFit]::HostFinding($code, 'warning', $item.Path, $item.Line, "the folder $path is not on this server", $fix)
    }
}

Function Get-WebfarmBindingFinding {
    <#
    .SYNOPSIS
    Returns findings for bindings to an address that this host does not have, and https bindings without a certificate.

    .PARAMETER Binding
    From WebfarmFit.Bindings.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [object[]]
        $Binding = @()
    )

    $own = @(Get-WebfarmHostAddress)
    $any = '*', '0.0.0.0', '::'
    $certificates = $null
    if (@($Binding | Where-Object -FilterScript { $_.Protocol -eq 'https' }).Count -gt 0) {
        $certificates = [WebfarmCertificateBinding]::List()
    }
    foreach ($use in $Binding) {
        $shown = "$($use.Protocol) binding of site $($use.Site)"
        $ip = $null
        if ($any -notcontains $use.Address -and [System.Net.IPAddress]::TryParse($use.Address, [ref]$ip)) {
            if (-not [System.Net.IPAddress]::IsLoopback($ip) -and $own -notcontains ([string]$ip -split '%')[0]) {
                $text = "the $shown is for $($use.Address), which is no address of this server"
                $fix = 'Give the address of this server in overrides, or add it to a network card.'
                [WebfarmFit]::HostFinding('address_absent', 'warning', $use.Path, $use.Line, $text, $fix)
            }
        }
        if ($use.Protocol -ne 'https') {
            continue
        }
        if ($null -eq $certificates) {
            $text = "http.sys could not be asked for the certificate of the $shown"
            [WebfarmFit]::HostFinding('certificate_not_checked', 'warning', $use.Path, $use.Line, $text, 'Look with netsh http show sslcert.')
            continue
        }
        # 2: the central certificate store answers for the name.
        if ($use.SslFlags -band 2) {
            continue
        }
        $fitting = @("0.0.0.0:$($use.Port)", "[::]:$($use.Port)")
        if ($null -ne $ip) {
            $fitting += "$($use.Address):$($use.Port)", "[$($use.Address)]:$($use.Port)"
        }
        if ($use.SslFlags -band 1) {
            $fitting += "$($use.HostName):$($use.Port)"
            $fitting += "$($use.HostName -replace '^[^.]*', '*'):$($use.Port)"
        }
        if (@($fitting | Where-Object -FilterScript { $certificates -contains $_ }).Count -eq 0) {
            $text = "http.sys has no certificate for the $shown ($($use.Address):$($use.Port):$($use.HostName))"
            $fix = 'Import the certificate and bind it on this server (IIS Manager, or netsh http add sslcert); ' +
            'bindings to certificates do not travel with the file.'
            [WebfarmFit]::HostFinding('certificate_absent', 'warning', $use.Path, $use.Line, $text, $fix)
        }
    }
}

Function Get-WebfarmFitFinding {
    <#
    .SYNOPSIS
    Returns everything of a file that does not fit this server: errors, warnings, notes.

    .PARAMETER File
    The candidate.

    .PARAMETER Present
    The server's present applicationHost.config.

    .PARAMETER SchemaFolder
    inetsrv\config\schema
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $File,

        [Parameter(Mandatory = $true)]
        [object]
        $Present,

        [Parameter(Mandatory = $true)]
        [string]
        $SchemaFolder
    )

    $schema = [WebfarmSchema]::Load($SchemaFolder)
    $references = @([WebfarmFit]::References($File))
    $found = @(
        foreach ($text in $schema.Broken) {
            $fix = 'Repair the file; IIS reads it at every start.'
            [WebfarmFit]::HostFinding('schema_unreadable', 'error', $null, 0, "the schema file $text", $fix)
        }
        if ($schema.Count -eq 0) {
            $fix = 'Is IIS installed on this host? Repair its installation.'
            [WebfarmFit]::HostFinding('schema_unreadable', 'error', $null, 0, "there is no schema in $SchemaFolder", $fix)
        }
        else {
            [WebfarmFit]::Sections($File, $Present, $schema)
            [WebfarmFit]::Generation($File, $Present, $schema)
        }
        [WebfarmFit]::Modules($File)
        [WebfarmFit]::Programs($File)
        foreach ($text in @(Get-WebfarmPendingReboot)) {
            [WebfarmFit]::HostFinding('pending_reboot', 'error', $null, 0, "Windows waits for a restart: $text", 'Restart the server first, and run again.')
        }
        Get-WebfarmAccountFinding -Reference @($references | Where-Object -FilterScript { $_.Kind -like '*_user' })
        Get-WebfarmBindingFinding -Binding @([WebfarmFit]::Bindings($File))
        Get-WebfarmFolderFinding -Reference @($references | Where-Object -FilterScript { $_.Kind -like '*folder' })
    )
    foreach ($severity in 'error', 'warning', 'note') {
        @($found | Where-Object -FilterScript { $_.Severity -eq $severity })
    }
}

Function Get-WebfarmExpectation {
    <#
    .SYNOPSIS
    Returns what a file expects of its server, whether it is there or not: features, products, certificates, content.

    .PARAMETER File
    The candidate.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $File
    )

    $bindings = @([WebfarmFit]::Bindings($File) | Where-Object -FilterScript { $_.Protocol -eq 'https' })
    $folders = @([WebfarmFit]::References($File) | Where-Object -FilterScript { $_.Kind -eq 'folder' })
    [ordered]@{
        features = @([WebfarmFit]::Features($File))
        products = @([WebfarmFit]::Products($File))
        certificates = @($bindings | ForEach-Object -Process { "$($_.Address):$($_.Port):$($_.HostName) (site $($_.Site))" } | Sort-Object -Unique)
        content = @($folders | ForEach-Object -Process { [Environment]::ExpandEnvironmentVariables($_.Value) } | Sort-Object -Unique)
    }
}

Function ConvertTo-WebfarmFitFact {
    <#
    .SYNOPSIS
    Returns the findings as facts, with what was accepted.

    .PARAMETER Finding
    From Get-WebfarmFitFinding.

    .PARAMETER Accepted
    The option accept_unfit.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [object[]]
        $Finding = @(),

        [Parameter()]
        [AllowNull()]
        [object[]]
        $Accepted = @()
    )

    foreach ($one in $Finding) {
        $match = $null
        foreach ($entry in $Accepted) {
            if ($entry.code -eq $one.Code -and (-not $entry.path -or $entry.path -ceq $one.Path)) {
                $match = $entry
            }
        }
        $reason = $null
        if ($null -ne $match) {
            $reason = $match.reason
        }
        $line = $null
        if ($one.Line -gt 0) {
            $line = $one.Line
        }
        [ordered]@{
            code = $one.Code
            severity = $one.Severity
            path = $one.Path
            line = $line
            message = $one.Message
            fix = $one.Fix
            feature = $one.Feature
            accepted = $null -ne $match
            reason = $reason
        }
    }
}

Function Format-WebfarmFit {
    <#
    .SYNOPSIS
    Describes findings for a message.

    .PARAMETER Fact
    From ConvertTo-WebfarmFitFact.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [object[]]
        $Fact
    )

    $lines = @(
        foreach ($one in @($Fact | Select-Object -First $script:shownFindings)) {
            $where = ''
            if ($one.path) {
                $where = " $($one.path)"
            }
            if ($one.line) {
                $where += " (line $($one.line))"
            }
            "[$($one.code)]$($where): $($one.message). $($one.fix)"
        }
    )
    if ($Fact.Count -gt $script:shownFindings) {
        $lines += "And $($Fact.Count - $script:shownFindings) more, see fit in the result."
    }
    return $lines -join ' '
}

Function Confirm-WebfarmFit {
    <#
    .SYNOPSIS
    Throws for a candidate that decrypts and would still stop this server. Where nothing changes it only warns.

    .DESCRIPTION
    It only warns as well for a configuration of the server's own past: nothing may keep a server from going back to one.

    .PARAMETER Candidate
    The parsed candidate, proven.

    .PARAMETER Present
    The parsed configuration that the server has.

    .PARAMETER Changes
    The server gets another configuration or other keys.

    .PARAMETER OwnPast
    The candidate is a configuration that this server had.

    .PARAMETER Accepted
    What accept_unfit names.

    .PARAMETER Result
    Receives fit, expects and missing_features.

    .PARAMETER Warning
    A list that receives warnings.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Candidate,

        [Parameter(Mandatory = $true)]
        [object]
        $Present,

        [Parameter()]
        [switch]
        $Changes,

        [Parameter()]
        [switch]
        $OwnPast,

        [Parameter()]
        [AllowNull()]
        [object[]]
        $Accepted,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.IDictionary]
        $Result,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    foreach ($entry in $Accepted) {
        if (-not "$($entry.reason)".Trim()) {
            throw "accept_unfit: $($entry.code) needs a reason. Nothing was changed."
        }
    }
    $schema = [System.IO.Path]::Combine((Get-WebfarmConfigurationFolder), 'schema')
    $findings = @(Get-WebfarmFitFinding -File $Candidate -Present $Present -SchemaFolder $schema)
    $facts = @(ConvertTo-WebfarmFitFact -Finding $findings -Accepted $Accepted)
    $Result.fit = $facts
    $Result.expects = Get-WebfarmExpectation -File $Candidate
    $open = @($facts | Where-Object -FilterScript { -not $_.accepted })
    $features = @($open | Where-Object -FilterScript { $_.feature } | ForEach-Object -Process { $_.feature } | Sort-Object -Unique)
    $Result.missing_features = $features
    foreach ($entry in $Accepted) {
        $used = @($facts | Where-Object -FilterScript { $_.code -eq $entry.code -and (-not $entry.path -or $entry.path -ceq $_.path) })
        if ($used.Count -eq 0) {
            $Warning.Add("accept_unfit: there is no finding $($entry.code) $($entry.path)".TrimEnd() + ' any more.')
        }
    }
    $install = ''
    if ($features.Count -gt 0) {
        $install = " Missing Windows features: Install-WindowsFeature -Name $($features -join ', ')"
    }
    $errors = @($open | Where-Object -FilterScript { $_.severity -eq 'error' })
    $warnings = @($open | Where-Object -FilterScript { $_.severity -eq 'warning' })
    if ($errors.Count -gt 0 -and $Changes -and -not $OwnPast) {
        throw "$($Candidate.Name) does not fit this server, $($errors.Count) errors: $(Format-WebfarmFit -Fact $errors)$install " +
        'Nothing was changed. What is to be taken as it is goes into accept_unfit with its code and the reason.'
    }
    if ($errors.Count -gt 0) {
        $known = 'The server has this configuration already'
        if ($Changes) {
            $known = 'This configuration is one that the server had'
        }
        $Warning.Add("$known, and it does not fit: $(Format-WebfarmFit -Fact $errors)$install")
    }
    if ($warnings.Count -gt 0) {
        $Warning.Add("$($Candidate.Name) on this server: $(Format-WebfarmFit -Fact $warnings)")
    }
}

Function Get-WebfarmFitSpec {
    <#
    .SYNOPSIS
    Returns the option of every module that refuses a configuration which does not fit.
    #>
    [CmdletBinding()]
    [OutputType([hashtable])]
    param ()

    return @{
        options = @{
            accept_unfit = @{
                type = 'list'
                elements = 'dict'
                default = @()
                options = @{
                    code = @{
                        type = 'str'
                        required = $true
                        choices = @(
                            'folder_user_unknown'
                            'iis_express'
                            'module_dll_missing'
                            'newer_generation'
                            'not_in_schema'
                            'older_generation'
                            'pending_reboot'
                            'pool_user_unknown'
                            'schema_unreadable'
                            'section_without_schema'
                            'address_absent'
                            'certificate_absent'
                            'certificate_not_checked'
                            'folder_absent'
                            'isapi_cgi_absent'
                            'isapi_filter_absent'
                            'log_folder_absent'
                            'share_not_checked'
                        )
                    }
                    path = @{
                        type = 'str'
                    }
                    reason = @{
                        type = 'str'
                        required = $true
                    }
                }
            }
        }
    }
}

Export-ModuleMember -Function Confirm-WebfarmFit, Get-WebfarmFitFinding, Get-WebfarmFitSpec, Get-WebfarmPendingReboot
