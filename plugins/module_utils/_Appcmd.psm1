# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# What runs in IIS, asked of appcmd.exe.

Function Invoke-WebfarmAppcmd {
    <#
    .SYNOPSIS
    Runs appcmd.exe and returns its exit code and what it printed.

    .PARAMETER Argument
    The arguments; names with spaces are quoted here.

    .PARAMETER TimeoutSeconds
    When to give up.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string[]]
        $Argument,

        [Parameter()]
        [int]
        $TimeoutSeconds = 60
    )

    $program = Join-Path -Path ([Environment]::SystemDirectory) -ChildPath 'inetsrv\appcmd.exe'
    if (-not [System.IO.File]::Exists($program)) {
        throw "$program does not exist. It tells which application pools and sites run; install the IIS feature that brings it (Web-Server)."
    }
    $start = New-Object -TypeName System.Diagnostics.ProcessStartInfo
    $start.FileName = $program
    # Pool and site names cannot hold a quote.
    $start.Arguments = ($Argument | ForEach-Object -Process { '"' + $_ + '"' }) -join ' '
    $start.UseShellExecute = $false
    $start.CreateNoWindow = $true
    $start.RedirectStandardOutput = $true
    $process = [System.Diagnostics.Process]::Start($start)
    try {
        $reading = $process.StandardOutput.ReadToEndAsync()
        if (-not $process.WaitForExit($TimeoutSeconds * 1000)) {
            $process.Kill()
            throw "appcmd $($Argument -join ' ') did not end within $TimeoutSeconds seconds."
        }
        return @{
            Code = $process.ExitCode
            Text = $reading.Result.Trim()
        }
    }
    finally {
        $process.Dispose()
    }
}

Function Get-WebfarmRuntimeObject {
    <#
    .SYNOPSIS
    Lists application pools or sites with their runtime state, or worker processes with their pool.

    .PARAMETER Kind
    apppool, site or wp.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [ValidateSet('apppool', 'site', 'wp')]
        [string]
        $Kind
    )

    $element = $Kind.ToUpperInvariant()
    $answer = Invoke-WebfarmAppcmd -Argument 'list', $Kind, '/xml'
    $document = New-Object -TypeName System.Xml.XmlDocument
    $document.XmlResolver = $null
    try {
        $document.LoadXml($answer.Text)
    }
    catch {
        throw "appcmd list $Kind ended with code $($answer.Code) and said: $($answer.Text)"
    }
    # A list without an entry ends with code 1, but without an ERROR.
    $failure = $document.SelectSingleNode('//ERROR')
    if ($null -ne $failure) {
        throw "appcmd list $Kind said: $($failure.GetAttribute('message').Trim()) (code $($answer.Code))"
    }
    foreach ($node in $document.DocumentElement.ChildNodes) {
        if ($node.LocalName -ne $element) {
            continue
        }
        $found = [ordered]@{ name = $node.GetAttribute("$element.NAME") }
        if ($Kind -eq 'wp') {
            $found.pool = $node.GetAttribute('APPPOOL.NAME')
        }
        else {
            $found.state = $node.GetAttribute('state')
        }
        $found
    }
}

Export-ModuleMember -Function @(
    'Get-WebfarmRuntimeObject'
    'Invoke-WebfarmAppcmd'
)
