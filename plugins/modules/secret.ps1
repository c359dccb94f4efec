#!powershell

# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

#AnsibleRequires -CSharpUtil Ansible.Basic
#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Protection
#AnsibleRequires -PowerShell ..module_utils._Change
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._Host
#AnsibleRequires -PowerShell ..module_utils._KeyPlan

$spec = @{
    options = @{
        app_pool = @{
            type = 'str'
        }
        file = @{
            type = 'str'
            choices = @('applicationHost', 'administration', 'redirection')
            default = 'applicationHost'
        }
        path = @{
            type = 'str'
        }
        provider = @{
            type = 'str'
        }
        restart = @{
            type = 'bool'
            default = $true
        }
        undo_expiry_hours = @{
            type = 'int'
            default = 72
        }
        value = @{
            type = 'str'
            required = $true
            no_log = $true
        }
        virtual_directory = @{
            type = 'dict'
            options = @{
                application = @{
                    type = 'str'
                    default = '/'
                }
                path = @{
                    type = 'str'
                    default = '/'
                }
                site = @{
                    type = 'str'
                    required = $true
                }
            }
        }
        without_undo = @{
            type = 'bool'
            default = $false
        }
    }
    mutually_exclusive = @(
        , @('app_pool', 'path', 'virtual_directory')
    )
    required_one_of = @(
        , @('app_pool', 'path', 'virtual_directory')
    )
    supports_check_mode = $true
}

$module = [Ansible.Basic.AnsibleModule]::Create($args, $spec, @(Get-WebfarmServiceSpec))

$module.Result.changed = $false
$module.Result.file = $null
$module.Result.path = $null
$module.Result.provider = $null
$module.Result.previous_provider = $null
$module.Result.services = @()
$module.Result.app_pools = @()
$module.Result.sites = @()
$module.Result.steps = @()
$module.Result.transaction = @{ outcome = 'none' }

# Only WAS reads this attribute, and only under one of its own two keys. Every other one is read by worker processes.
$wasOnlyPattern = '^system\.applicationHost/applicationPools/(add(\[.*\])?|applicationPoolDefaults)/processModel/@password$'
# What the schema files of IIS, of FTP, of URL Rewrite and of Application Request Routing mark as encrypted.
$encryptedNames = @('password', 'adPassword', 'adminPassword', 'clientCertPassword', 'encryptedValue')

Function ConvertTo-PathLiteral {
    <#
    .SYNOPSIS
    Writes a name the way it stands in an attribute path.

    .PARAMETER Text
    The name.
    #>
    param (
        [string]
        $Text
    )

    if (-not $Text.Contains("'")) {
        return "'$Text'"
    }
    if (-not $Text.Contains('"')) {
        return "`"$Text`""
    }
    return "'$($Text.Replace("'", '&apos;'))'"
}

Function Get-SecretPath {
    <#
    .SYNOPSIS
    Returns the attribute path that the options mean.

    .PARAMETER Option
    The options path, app_pool and virtual_directory; one of them is given.
    #>
    param (
        [hashtable]
        $Option
    )

    if ($Option.app_pool) {
        return "system.applicationHost/applicationPools/add[@name=$(ConvertTo-PathLiteral -Text $Option.app_pool)]/processModel/@password"
    }
    $directory = $Option.virtual_directory
    if ($directory) {
        return "system.applicationHost/sites/site[@name=$(ConvertTo-PathLiteral -Text $directory.site)]" +
        "/application[@path=$(ConvertTo-PathLiteral -Text $directory.application)]" +
        "/virtualDirectory[@path=$(ConvertTo-PathLiteral -Text $directory.path)]/@password"
    }
    if ($Option.path -notmatch '.+/@[\w.-]+$') {
        throw "path: '$($Option.path)' is no attribute path; give one as the results of key_info show it, ending in /@ and the attribute's name."
    }
    return $Option.path
}

Function Get-SecretProvider {
    <#
    .SYNOPSIS
    Chooses the provider, and throws where it does not suit those who read the attribute.

    .PARAMETER File
    The configuration file, and applicationHost.config where that is another one.

    .PARAMETER WasOnly
    Only WAS reads the attribute.

    .PARAMETER Wanted
    The option provider; may be empty.

    .PARAMETER Present
    The protected value that is there now; $null when there is none.
    #>
    param (
        [object[]]
        $File,

        [bool]
        $WasOnly,

        [string]
        $Wanted,

        [object]
        $Present
    )

    $name = $Wanted
    if (-not $name -and $null -ne $Present) {
        $name = $Present.Provider
    }
    $container = 'iisConfigurationKey'
    if ($WasOnly) {
        $container = 'iisWasKey'
    }
    if (-not $name) {
        $name = $File.Providers | Where-Object -FilterScript { $_.Kind -eq 'aes' -and $_.Container -eq $container } |
            Select-Object -First 1 -ExpandProperty Name
        if (-not $name) {
            throw "provider: no AES provider with the container $container is declared. Name the provider."
        }
    }
    # It looks into applicationHost.config by itself where the file declares no such provider.
    $provider = $File[0].Provider($name)
    if ($null -eq $provider) {
        $declared = @($File.Providers | ForEach-Object -Process { $_.Name } | Select-Object -Unique)
        throw "provider: '$name' is not declared in configProtectedData; declared are $($declared -join ', ')."
    }
    if ($provider.Kind -eq 'unsupported') {
        throw "provider: '$name' has the type '$($provider.Type)', which this module cannot encrypt with."
    }
    if ($WasOnly -and -not $provider.WasOnly) {
        throw "provider: '$($provider.Name)' uses the container $($provider.Container), which worker processes can read, " +
        'and an application pool password is for WAS alone. Choose a provider with the container iisWasKey or iisCngWasKey.'
    }
    if (-not $WasOnly -and $provider.WasOnly) {
        throw "provider: '$($provider.Name)' uses the container $($provider.Container), which only WAS can read, " +
        'but worker processes need this attribute: they would answer 500.19. Choose a provider with the container iisConfigurationKey or ' +
        'iisCngConfigurationKey.'
    }
    return $provider
}

Function Get-UnreadablePath {
    <#
    .SYNOPSIS
    Returns the paths of other values that do not open now either: they are not made worse.

    .PARAMETER File
    The configuration file.

    .PARAMETER Path
    The path that is set.
    #>
    param (
        [object]
        $File,

        [string]
        $Path
    )

    foreach ($verdict in [WebfarmProtection]::Prove($File, $null)) {
        if ($verdict.Verdict -ne 'ok' -and $verdict.Path -cne $Path) {
            $verdict.Path
        }
    }
}

Function Get-SecretFile {
    <#
    .SYNOPSIS
    Reads one configuration file of IIS.

    .PARAMETER Name
    Its name.
    #>
    param (
        [string]
        $Name
    )

    $full = [System.IO.Path]::Combine((Get-WebfarmConfigurationFolder), $Name)
    if (-not [System.IO.File]::Exists($full)) {
        throw "file: $full does not exist."
    }
    if ([System.IO.File]::GetAttributes($full) -band [System.IO.FileAttributes]::ReadOnly) {
        throw "$full is read-only. Find out who set that, remove it (attrib -r), and run again."
    }
    [WebfarmConfiguration]::Load($full)
}

$given = @{
    undo_expiry_hours = $module.Params.undo_expiry_hours
    without_undo = $module.Params.without_undo
}
foreach ($name in 'deadman_minutes', '_settler', 'start_services', 'start_timeout', 'stop_timeout', 'verify_urls', 'warm_up') {
    $given[$name] = $module.Params[$name]
}
$change = New-WebfarmChange -Parameter $given -CheckMode $module.CheckMode
$failure = $null
try {
    Assert-WebfarmHost
    if (-not $module.Params.value) {
        throw 'value is empty. An empty password locks the account out sooner or later; check the variable that it comes from.'
    }
    $fileName = "$($module.Params.file).config"
    if ($fileName -ne 'redirection.config') {
        Assert-WebfarmNotRedirected
    }
    if ($fileName -ne 'applicationHost.config' -and -not $module.Params.path) {
        throw "file: app_pool and virtual_directory are in applicationHost.config, not in $fileName. Use path for another file."
    }
    $option = @{
        app_pool = $module.Params.app_pool
        path = $module.Params.path
        virtual_directory = $module.Params.virtual_directory
    }
    $path = Get-SecretPath -Option $option
    $module.Result.path = $path
    Open-WebfarmChange -Change $change
    $main = Get-SecretFile -Name 'applicationHost.config'
    $file = $main
    $sources = @($main)
    if ($fileName -ne $main.Name) {
        # The other files use the providers of applicationHost.config where they declare none of that name.
        $file = (Get-SecretFile -Name $fileName).Under($main)
        $sources = @($file, $main)
    }
    $full = [System.IO.Path]::Combine((Get-WebfarmConfigurationFolder), $fileName)
    $module.Result.file = $full
    $present = $file.Values | Where-Object -FilterScript { $_.Path -ceq $path } | Select-Object -First 1
    $attribute = $path.Substring($path.LastIndexOf('@') + 1)
    if ($null -eq $present -and $encryptedNames -cnotcontains $attribute) {
        throw "path: the attribute $attribute is not encrypted now and is none that IIS is known to encrypt; " +
        'IIS would take the encrypted text for the value itself.'
    }
    $wasOnly = $path -cmatch $wasOnlyPattern
    $provider = Get-SecretProvider -File $sources -WasOnly $wasOnly -Wanted $module.Params.provider -Present $present
    $module.Result.provider = $provider.Name
    $previous = ''
    if ($null -ne $present) {
        $previous = [string]$present.Provider
        $module.Result.previous_provider = $present.Provider
    }
    # A method of C#, not a cmdlet: module logging would write a cmdlet's arguments into the event log.
    $bytes = [WebfarmProtection]::SetValue($file, $null, $path, $provider.Name, $module.Params.value)
    $module.Diff.before = @{ file = $full; path = $path; provider = $previous }
    $module.Diff.after = @{ file = $full; path = $path; provider = $provider.Name }
    if ($null -ne $bytes) {
        $others = @(Get-UnreadablePath -File $file -Path $path)
        foreach ($other in $others) {
            $module.Warn("${fileName}: $other does not open on this host either and has to be entered again.")
        }
        $module.Diff.after.value = 'changed'
        $change.KeySet = New-Object -TypeName WebfarmKeySet
        $change.Dependent = @(
            @{
                path = $full
                store = 'file'
                name = $fileName
                backup = ''
                before = $file.Bytes
                before_sha256 = $file.Sha256
                after = $bytes
                after_sha256 = [WebfarmKeyContainer]::Sha256($bytes)
                accepted = $others
            }
        )
        $change.SameContent = $false
    }
    Invoke-WebfarmChange -Change $change -InService:$module.Params.restart
}
catch {
    $failure = $_
}
finally {
    Close-WebfarmChange -Change $change
}

foreach ($name in $change.Result.Keys) {
    if (-not $name.StartsWith('_')) {
        $module.Result[$name] = $change.Result[$name]
    }
}
foreach ($text in $change.Warning) {
    $module.Warn($text)
}
if ($null -ne $failure) {
    $message = Get-WebfarmSentence -ErrorRecord $failure
    if ($module.Result.transaction.outcome -eq 'none' -and -not $message.Contains('Nothing was changed')) {
        $message += ' Nothing was changed.'
    }
    $module.FailJson($message, $failure)
}
$module.ExitJson()
