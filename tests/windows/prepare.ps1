# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

<#
.SYNOPSIS
Makes a throw-away Windows machine ready for the collection's playbooks: IIS, WinRM over HTTPS, a user, logging, canaries.

.DESCRIPTION
For the Windows workflow only: it opens WinRM to the machine itself and switches on every log of PowerShell. It has
never run.
#>

[CmdletBinding()]
param(
    # The file that carries environment variables to the next steps.
    [Parameter(Mandatory = $true)]
    [string]
    $EnvironmentFile
)

$ErrorActionPreference = 'Stop'
$inetsrv = Join-Path -Path $env:SystemRoot -ChildPath 'System32\inetsrv'

# IIS with its management service, as the collection expects it.
$features = 'Web-Server', 'Web-Mgmt-Service', 'Web-Ftp-Server', 'Web-Scripting-Tools', 'Web-Asp-Net45'
$null = Install-WindowsFeature -Name $features

# Every log of PowerShell, before the first call of a module.
$policies = 'HKLM:\SOFTWARE\Policies\Microsoft\Windows\PowerShell'
$null = New-Item -Path "$policies\ModuleLogging\ModuleNames" -Force
$null = New-ItemProperty -Path "$policies\ModuleLogging" -Name EnableModuleLogging -Value 1 -PropertyType DWord -Force
$null = New-ItemProperty -Path "$policies\ModuleLogging\ModuleNames" -Name '*' -Value '*' -PropertyType String -Force
$null = New-Item -Path "$policies\ScriptBlockLogging" -Force
$null = New-ItemProperty -Path "$policies\ScriptBlockLogging" -Name EnableScriptBlockLogging -Value 1 -PropertyType DWord -Force
$null = New-Item -Path "$policies\Transcription" -Force
$null = New-Item -Path 'C:\transcripts' -ItemType Directory -Force
foreach ($name in 'EnableTranscripting', 'EnableInvocationHeader') {
    $null = New-ItemProperty -Path "$policies\Transcription" -Name $name -Value 1 -PropertyType DWord -Force
}
$null = New-ItemProperty -Path "$policies\Transcription" -Name OutputDirectory -Value 'C:\transcripts' -PropertyType String -Force
foreach ($log in 'Microsoft-Windows-PowerShell/Operational', 'Windows PowerShell') {
    & wevtutil.exe set-log $log /maxsize:268435456
}

# An administrator of this run.
$bytes = New-Object -TypeName byte[] -ArgumentList 24
$generator = [System.Security.Cryptography.RandomNumberGenerator]::Create()
$generator.GetBytes($bytes)
$secret = 'aA1!' + [System.Convert]::ToBase64String($bytes)
$null = & net.exe user webfarm $secret /add
$null = & net.exe localgroup Administrators webfarm /add
"::add-mask::$secret"
Add-Content -Path $EnvironmentFile -Value "WINDOWS_USER=webfarm", "WINDOWS_SECRET=$secret"

# WinRM over HTTPS.
Enable-PSRemoting -SkipNetworkProfileCheck -Force
$certificate = New-SelfSignedCertificate -DnsName localhost -CertStoreLocation 'Cert:\LocalMachine\My'
$listener = @{
    Path = 'WSMan:\localhost\Listener'
    Transport = 'HTTPS'
    Address = '*'
    CertificateThumbPrint = $certificate.Thumbprint
    Force = $true
}
$null = New-Item @listener
$elevated = @{
    Path = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System'
    Name = 'LocalAccountTokenFilterPolicy'
    Value = 1
    PropertyType = 'DWord'
    Force = $true
}
$null = New-ItemProperty @elevated

# A pool with a password that IIS itself encrypts. The word is looked for at the end, so it is known to everybody.
& "$inetsrv\appcmd.exe" add apppool /name:Canary /autoStart:false
& "$inetsrv\appcmd.exe" set apppool Canary /processModel.identityType:SpecificUser /processModel.userName:webfarm /processModel.password:Canary-4711-secret
