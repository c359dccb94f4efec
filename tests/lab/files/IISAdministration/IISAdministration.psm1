# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The four cmdlets for shared configuration as Microsoft's pages describe them. The key file has a format of its own, but it
# carries the host's RSA keys, encrypted with the password, so that an import really changes the containers. Wine has no accounts:
# a user name is written to redirection.config, not used. Whether Microsoft's key file carries the CNG keys is not documented: here it
# does on a host with the file C:\lab\carry-cng.

$script:containers = @('iisWasKey', 'iisConfigurationKey', 'NetFrameworkConfigurationKey')
$script:config = Join-Path -Path ([Environment]::SystemDirectory) -ChildPath 'inetsrv\config'
$script:backup = Join-Path -Path $script:config -ChildPath 'localKeys.backup'
# Real Windows protects its backup by other means.
$script:backupSecret = 'Backup-of-the-1ab'

function Open-Container {
    param ([string]$Name, [bool]$Existing)

    $csp = New-Object -TypeName System.Security.Cryptography.CspParameters -ArgumentList 24
    $csp.KeyContainerName = $Name
    $csp.KeyNumber = 1
    $csp.Flags = [System.Security.Cryptography.CspProviderFlags]::UseMachineKeyStore
    if ($Existing) {
        $csp.Flags = $csp.Flags -bor [System.Security.Cryptography.CspProviderFlags]::UseExistingKey
    }
    New-Object -TypeName System.Security.Cryptography.RSACryptoServiceProvider -ArgumentList $csp
}

function Get-Clear {
    param ([System.Security.SecureString]$Secret)

    (New-Object -TypeName System.Management.Automation.PSCredential -ArgumentList 'x', $Secret).GetNetworkCredential().Password
}

function New-Cipher {
    param ([string]$Secret, [byte[]]$Salt)

    $derive = New-Object -TypeName System.Security.Cryptography.Rfc2898DeriveBytes -ArgumentList $Secret, $Salt, 5000,
        ([System.Security.Cryptography.HashAlgorithmName]::SHA256)
    $aes = [System.Security.Cryptography.Aes]::Create()
    $aes.Key = $derive.GetBytes(32)
    $aes.IV = $derive.GetBytes(16)
    $aes
}

function Get-CngKeyFile {
    # iisCngConfigurationKey and iisCngWasKey; the names end in the number of the machine.
    Get-ChildItem -LiteralPath (Join-Path -Path $env:ProgramData -ChildPath 'Microsoft\Crypto\Keys') -File |
        Where-Object -FilterScript { $_.Name -match '^(f0e91f6485ac2d09485e4ec18135601e|597367cc37b886d7ee6c493e3befb421)_' }
}

function Write-KeyFile {
    param ([string]$Path, [string]$Secret)

    $lines = @(
        foreach ($name in $script:containers) {
            try {
                $rsa = Open-Container -Name $name -Existing $true
                "$name $([Convert]::ToBase64String($rsa.ExportCspBlob($true)))"
                $rsa.Dispose()
            }
            catch {
                if ($_.Exception.GetBaseException().HResult -ne -2146893802) {
                    throw "The RSA key container $name could not be exported: $($_.Exception.GetBaseException().Message)"
                }
            }
        }
    )
    if (Test-Path -LiteralPath 'C:\lab\carry-cng') {
        foreach ($file in Get-CngKeyFile) {
            $lines += "$($file.Name.Split('_')[0]) $([Convert]::ToBase64String([System.IO.File]::ReadAllBytes($file.FullName)))"
        }
    }
    $salt = New-Object -TypeName byte[] -ArgumentList 16
    $random = [System.Security.Cryptography.RandomNumberGenerator]::Create()
    $random.GetBytes($salt)
    $aes = New-Cipher -Secret $Secret -Salt $salt
    $clear = [System.Text.Encoding]::UTF8.GetBytes("LABKEYS`n" + ($lines -join "`n"))
    $data = $aes.CreateEncryptor().TransformFinalBlock($clear, 0, $clear.Length)
    [System.IO.File]::WriteAllBytes($Path, [byte[]]($salt + $data))
}

function Read-KeyFile {
    param ([string]$Path, [string]$Secret)

    $all = [System.IO.File]::ReadAllBytes($Path)
    $text = ''
    try {
        $aes = New-Cipher -Secret $Secret -Salt ([byte[]]$all[0..15])
        $text = [System.Text.Encoding]::UTF8.GetString($aes.CreateDecryptor().TransformFinalBlock($all, 16, $all.Length - 16))
    }
    catch {
        $text = ''
    }
    if (-not $text.StartsWith("LABKEYS`n")) {
        throw 'The encryption key password is incorrect.'
    }
    foreach ($line in $text.Split("`n")) {
        $name, $blob = $line.Split(' ')
        if ($blob -and $script:containers -notcontains $name) {
            $file = Get-CngKeyFile | Where-Object -FilterScript { $_.Name.StartsWith("${name}_") }
            [System.IO.File]::WriteAllBytes($file.FullName, [Convert]::FromBase64String($blob))
        }
        elseif ($blob) {
            $rsa = Open-Container -Name $name -Existing $false
            $rsa.ImportCspBlob([Convert]::FromBase64String($blob))
            $rsa.Dispose()
        }
    }
}

function Get-Redirection {
    $document = New-Object -TypeName System.Xml.XmlDocument
    $document.PreserveWhitespace = $true
    $document.Load((Join-Path -Path $script:config -ChildPath 'redirection.config'))
    $document
}

function Save-Redirection {
    param ([System.Xml.XmlDocument]$Document)

    $Document.Save((Join-Path -Path $script:config -ChildPath 'redirection.config'))
}

function Assert-Forced {
    param ($Caller, [bool]$Force, [string]$What)

    # Without -Force Microsoft's cmdlets ask, which ends a session that nobody sits before.
    if (-not $Force -and -not $Caller.ShouldContinue($What, 'Confirm')) {
        throw 'The operation was cancelled.'
    }
}

function Export-IISConfiguration {
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true, Position = 0)] [string]$PhysicalPath,
        [Parameter(Position = 1)] [string]$UserName,
        [Parameter(Position = 2)] [System.Security.SecureString]$Password,
        [Parameter(Position = 3)] [System.Security.SecureString]$KeyEncryptionPassword,
        [switch]$DontExportKeys,
        [switch]$Force
    )

    if (-not [System.IO.Directory]::Exists($PhysicalPath)) {
        throw "Could not find a part of the path '$PhysicalPath'."
    }
    $key = Join-Path -Path $PhysicalPath -ChildPath 'configEncKey.key'
    if (Test-Path -LiteralPath (Join-Path -Path $PhysicalPath -ChildPath 'applicationHost.config')) {
        Assert-Forced -Caller $PSCmdlet -Force $Force -What 'Configuration files exist. Overwrite them?'
    }
    foreach ($name in 'applicationHost.config', 'administration.config') {
        [System.IO.File]::Copy((Join-Path -Path $script:config -ChildPath $name), (Join-Path -Path $PhysicalPath -ChildPath $name), $true)
    }
    # With -DontExportKeys an old key file stays where it is.
    if (-not $DontExportKeys) {
        if (-not $KeyEncryptionPassword) {
            throw 'KeyEncryptionPassword is required.'
        }
        Write-KeyFile -Path $key -Secret (Get-Clear -Secret $KeyEncryptionPassword)
    }
}

function Enable-IISSharedConfig {
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true, Position = 0)] [string]$PhysicalPath,
        [Parameter(Position = 1)] [string]$UserName,
        [Parameter(Position = 2)] [System.Security.SecureString]$Password,
        [Parameter(Position = 3)] [System.Security.SecureString]$KeyEncryptionPassword,
        [switch]$DontCopyRemoteKeys,
        [switch]$Force
    )

    if ([bool]$KeyEncryptionPassword -eq [bool]$DontCopyRemoteKeys) {
        throw 'Parameter set cannot be resolved using the specified named parameters.'
    }
    Assert-Forced -Caller $PSCmdlet -Force $Force -What "Enable shared configuration from $PhysicalPath?"
    $document = Get-Redirection
    $node = $document.SelectSingleNode('/configuration/configurationRedirection')
    if (-not $DontCopyRemoteKeys) {
        Write-KeyFile -Path $script:backup -Secret $script:backupSecret
        Read-KeyFile -Path (Join-Path -Path $PhysicalPath -ChildPath 'configEncKey.key') -Secret (Get-Clear -Secret $KeyEncryptionPassword)
    }
    if (Test-Path -LiteralPath 'C:\lab\fail-enable') {
        throw 'Failed to commit configuration changes.'
    }
    $node.SetAttribute('enabled', 'true')
    $node.SetAttribute('path', $PhysicalPath)
    if ($UserName) {
        $node.SetAttribute('userName', $UserName)
    }
    Save-Redirection -Document $document
    Write-Warning -Message 'Restart the Management Service for the change to take effect.'
}

function Disable-IISSharedConfig {
    [CmdletBinding(SupportsShouldProcess = $true, ConfirmImpact = 'High')]
    param (
        [switch]$DontRestoreBackedUpKeys,
        [switch]$CopyRemoteConfigToLocalFiles
    )

    if (-not $PSCmdlet.ShouldProcess('shared configuration')) {
        return
    }
    $document = Get-Redirection
    $node = $document.SelectSingleNode('/configuration/configurationRedirection')
    if ($node.GetAttribute('enabled') -ne 'true') {
        throw 'Shared configuration is not enabled.'
    }
    $there = Test-Path -LiteralPath $script:backup
    if ($CopyRemoteConfigToLocalFiles) {
        foreach ($name in 'applicationHost.config', 'administration.config') {
            [System.IO.File]::Copy((Join-Path -Path $node.GetAttribute('path') -ChildPath $name), (Join-Path -Path $script:config -ChildPath $name), $true)
        }
    }
    elseif (-not $DontRestoreBackedUpKeys) {
        if (-not $there) {
            Write-Warning -Message 'There are no backed up keys.'
            throw 'Shared configuration could not be disabled.'
        }
        Read-KeyFile -Path $script:backup -Secret $script:backupSecret
    }
    if ($there) {
        Remove-Item -LiteralPath $script:backup -Force
    }
    $node.SetAttribute('enabled', 'false')
    Save-Redirection -Document $document
}

function Get-IISSharedConfig {
    [CmdletBinding()]
    param ()

    $node = (Get-Redirection).SelectSingleNode('/configuration/configurationRedirection')
    "Enabled = $($node.GetAttribute('enabled') -eq 'true')"
    "Physical Path = $($node.GetAttribute('path'))"
    "UserName = $($node.GetAttribute('userName'))"
}
