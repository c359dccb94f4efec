# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

<#
.SYNOPSIS
Writes down what this IIS does where its behaviour is not documented. For a throw-away machine.

.DESCRIPTION
One text file per question. No private key is written: exports go to a file that is deleted at once. It has never run.
Not asked here, because they need a second machine or a worker at work: what IIS writes directly under an RSA key,
whether WAS takes a swapped key without a restart, and whether Disable-IISSharedConfig keeps imported CNG keys.
#>

[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)]
    [string]
    $Folder
)

$ErrorActionPreference = 'Continue'
$null = New-Item -Path $Folder -ItemType Directory -Force
$inetsrv = Join-Path -Path $env:SystemRoot -ChildPath 'System32\inetsrv'
$regiis = Join-Path -Path $env:SystemRoot -ChildPath 'Microsoft.NET\Framework64\v4.0.30319\aspnet_regiis.exe'
$machineKeys = Join-Path -Path $env:ProgramData -ChildPath 'Microsoft\Crypto\RSA\MachineKeys'
$cngKeys = Join-Path -Path $env:ProgramData -ChildPath 'Microsoft\Crypto\Keys'

function Write-Answer {
    <#
    .SYNOPSIS
    Carries out a question and keeps everything that it says.
    #>
    [CmdletBinding()]
    param(
        [string] $Name,
        [scriptblock] $Question
    )
    & $Question *>&1 | Out-String -Width 400 | Set-Content -Path (Join-Path -Path $Folder -ChildPath "$Name.txt") -Encoding UTF8
}

function Invoke-Regiis {
    <#
    .SYNOPSIS
    Runs aspnet_regiis and says with which exit code it ended.
    #>
    [CmdletBinding()]
    param([string[]] $Argument)
    "aspnet_regiis $Argument"
    & $regiis @Argument
    "exit code $LASTEXITCODE"
}

Write-Answer -Name '00-system' -Question {
    Get-CimInstance -ClassName Win32_OperatingSystem | Select-Object -Property Caption, Version, BuildNumber
    (Get-Item -Path "$inetsrv\w3wp.exe").VersionInfo.ProductVersion
}
Write-Answer -Name '01-cng-keys' -Question {
    & certutil.exe -csp 'Microsoft Software Key Storage Provider' -key
}
Write-Answer -Name '02-aspnet-regiis' -Question {
    $xml = Join-Path -Path $env:TEMP -ChildPath 'webfarm-scratch.xml'
    Invoke-Regiis -Argument '-pc', 'webfarmScratch', '-exp', '-size', '2048'
    Invoke-Regiis -Argument '-pc', 'webfarmScratch', '-exp'
    Invoke-Regiis -Argument '-px', 'webfarmScratch', $xml, '-pri'
    Invoke-Regiis -Argument '-pi', 'webfarmScratch', $xml
    Invoke-Regiis -Argument '-pi', 'webfarmScratch2', $xml
    if (Test-Path -Path $xml) {
        Remove-Item -Path $xml
    }
    Invoke-Regiis -Argument '-px', 'webfarmScratch', $xml
    Invoke-Regiis -Argument '-pi', 'webfarmScratch3', $xml
    Invoke-Regiis -Argument '-px', 'webfarmNoSuchContainer', $xml, '-pri'
    foreach ($name in 'webfarmScratch', 'webfarmScratch2', 'webfarmScratch3', 'webfarmNoSuchContainer') {
        Invoke-Regiis -Argument '-pz', $name
    }
    if (Test-Path -Path $xml) {
        Remove-Item -Path $xml
    }
}
Write-Answer -Name '03-access-lists' -Question {
    foreach ($top in $machineKeys, $cngKeys) {
        & icacls.exe $top
        Get-ChildItem -Path $top -File -Force | ForEach-Object -Process {
            & icacls.exe $_.FullName
        }
    }
}
Write-Answer -Name '05-export-iisconfiguration' -Question {
    $target = Join-Path -Path $env:TEMP -ChildPath 'webfarm-export'
    $null = New-Item -Path $target -ItemType Directory -Force
    Export-IISConfiguration -PhysicalPath $target -KeyEncryptionPassword (ConvertTo-SecureString -String 'weak' -AsPlainText -Force)
    Export-IISConfiguration -PhysicalPath $target -KeyEncryptionPassword (ConvertTo-SecureString -String 'Webfarm!4711scratch' -AsPlainText -Force) -Force
    Get-ChildItem -Path $target | Select-Object -Property Name, Length
    $key = Join-Path -Path $target -ChildPath 'configEncKey.key'
    if (Test-Path -Path $key) {
        [System.BitConverter]::ToString([System.IO.File]::ReadAllBytes($key), 0, 32)
    }
    Remove-Item -Path $target -Recurse -Force
}
Write-Answer -Name '06-shared-configuration' -Question {
    Get-IISSharedConfig
}
Write-Answer -Name '07-history' -Question {
    $history = Join-Path -Path $env:SystemDrive -ChildPath 'inetpub\history'
    Get-ChildItem -Path $history -Recurse -File | Select-Object -Property FullName, Length, LastWriteTimeUtc
    Stop-Service -Name WAS -Force
    & "$inetsrv\appcmd.exe" add apppool /name:WrittenWhileWasIsStopped
    Start-Sleep -Seconds 150
    'after a change while WAS was stopped:'
    Get-ChildItem -Path $history -Recurse -File | Select-Object -Property FullName, Length, LastWriteTimeUtc
    & "$inetsrv\appcmd.exe" delete apppool WrittenWhileWasIsStopped
    Start-Service -Name W3SVC
}
