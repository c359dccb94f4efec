# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# A scheduled task of the host itself that settles the journal when the run that wrote it does not come back.
#
# Before anything is stopped the run puts a script into the protected folder, made of the same libraries that it uses
# itself, and registers a task that runs it as SYSTEM: when the time is over, and whenever the host starts. The script takes
# the same lock as a run, so that the two never settle at once; where it cannot settle, it is tried again every five minutes.
# Task and script go when the run ends, or when the journal has been settled by whoever comes first.

#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._ProtectedFolder
#AnsibleRequires -PowerShell ..module_utils._Facts
#AnsibleRequires -PowerShell ..module_utils._KeyPlan

$script:taskName = 'webfarm.iis-settle'
$script:again = 'PT5M'

Function Get-WebfarmDeadmanScript {
    <#
    .SYNOPSIS
    Returns the path of the script that the task runs.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param ()

    return [System.IO.Path]::Combine((Get-WebfarmStateFolder), 'settle.ps1')
}

Function Test-WebfarmDeadman {
    <#
    .SYNOPSIS
    Tells whether the task is registered.
    #>
    [CmdletBinding()]
    [OutputType([bool])]
    param ()

    # The Task Scheduler keeps each task of its root folder in a file of that name.
    return [System.IO.File]::Exists([System.IO.Path]::Combine([Environment]::SystemDirectory, 'Tasks', $script:taskName))
}

Function Invoke-WebfarmTaskCommand {
    <#
    .SYNOPSIS
    Runs schtasks.exe; throws with its words when it fails.

    .PARAMETER Argument
    The command line.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Argument
    )

    $start = New-Object -TypeName System.Diagnostics.ProcessStartInfo
    $start.FileName = [System.IO.Path]::Combine([Environment]::SystemDirectory, 'schtasks.exe')
    $start.Arguments = $Argument
    $start.UseShellExecute = $false
    $start.CreateNoWindow = $true
    $start.RedirectStandardOutput = $true
    $start.RedirectStandardError = $true
    $process = [System.Diagnostics.Process]::Start($start)
    try {
        $output = $process.StandardOutput.ReadToEndAsync()
        $errors = $process.StandardError.ReadToEndAsync()
        if (-not $process.WaitForExit(60000)) {
            $process.Kill()
            throw 'schtasks.exe did not end within 60 seconds'
        }
        if ($process.ExitCode -ne 0) {
            throw "schtasks.exe ended with code $($process.ExitCode): $(("$($errors.Result) $($output.Result)" -replace '\s+', ' ').Trim())"
        }
    }
    finally {
        $process.Dispose()
    }
}

Function Get-WebfarmDeadmanTask {
    <#
    .SYNOPSIS
    Returns the definition of the task as the Task Scheduler reads it.

    .PARAMETER Path
    The script.

    .PARAMETER Sha256
    Its hash: the task runs no other.

    .PARAMETER Due
    UTC time of the first start, besides the start of the host.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Path,

        [Parameter(Mandatory = $true)]
        [string]
        $Sha256,

        [Parameter(Mandatory = $true)]
        [DateTime]
        $Due
    )

    # The same PowerShell that runs this; under PowerShell Remoting the process itself is another one.
    $program = 'powershell.exe'
    if ($PSVersionTable.PSEdition -eq 'Core') {
        $program = 'pwsh.exe'
    }
    $program = [System.IO.Path]::Combine($PSHOME, $program)
    # What was read is what runs: the file is not opened again behind the check.
    $command = "`$b = [System.IO.File]::ReadAllBytes('$($Path.Replace("'", "''"))'); " +
    '$h = New-Object -TypeName System.Security.Cryptography.SHA256CryptoServiceProvider; ' +
    "if ([System.BitConverter]::ToString(`$h.ComputeHash(`$b)).Replace('-', '') -ne '$Sha256') { exit 3 }; " +
    '& ([ScriptBlock]::Create([System.Text.Encoding]::UTF8.GetString($b)))'
    $escape = { param ($Text) [System.Security.SecurityElement]::Escape($Text) }
    $start = $Due.ToString('yyyy-MM-ddTHH:mm:ss', [System.Globalization.CultureInfo]::InvariantCulture)
    $repetition = "<Repetition><Interval>$script:again</Interval><StopAtDurationEnd>false</StopAtDurationEnd></Repetition>"
    return @"
<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Author>webfarm.iis</Author>
    <Description>Completes or undoes an interrupted change of keys and configuration of IIS. It removes itself afterwards.</Description>
  </RegistrationInfo>
  <Triggers>
    <TimeTrigger>$repetition<StartBoundary>${start}Z</StartBoundary></TimeTrigger>
    <BootTrigger>$repetition</BootTrigger>
  </Triggers>
  <Principals>
    <Principal id="System"><UserId>S-1-5-18</UserId><RunLevel>HighestAvailable</RunLevel></Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <AllowHardTerminate>false</AllowHardTerminate>
    <StartWhenAvailable>true</StartWhenAvailable>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <Priority>5</Priority>
  </Settings>
  <Actions Context="System">
    <Exec>
      <Command>$(& $escape $program)</Command>
      <Arguments>-NoLogo -NoProfile -NonInteractive -ExecutionPolicy Bypass -Command "$(& $escape $command)"</Arguments>
    </Exec>
  </Actions>
</Task>
"@
}

Function Set-WebfarmDeadman {
    <#
    .SYNOPSIS
    Puts the settling script into the protected folder and registers the task that runs it. Returns when it is due, in UTC.

    .PARAMETER Settler
    The script, gzip and base64, as the controller sent it.

    .PARAMETER Minutes
    When it runs, besides the start of the host.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    [OutputType([DateTime])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Settler,

        [Parameter(Mandatory = $true)]
        [int]
        $Minutes
    )

    $path = Get-WebfarmDeadmanScript
    if (-not $PSCmdlet.ShouldProcess($script:taskName, 'register scheduled task')) {
        return
    }
    $due = [DateTime]::UtcNow.AddMinutes($Minutes)
    $description = "$path.xml"
    try {
        $packed = New-Object -TypeName System.IO.MemoryStream -ArgumentList (, [Convert]::FromBase64String($Settler))
        $unpacked = New-Object -TypeName System.IO.MemoryStream
        $stream = New-Object -TypeName System.IO.Compression.GZipStream -ArgumentList $packed, ([System.IO.Compression.CompressionMode]::Decompress)
        $stream.CopyTo($unpacked)
        $content = $unpacked.ToArray()
        [WebfarmProtectedFolder]::WriteFile($path, $content)
        $task = Get-WebfarmDeadmanTask -Path $path -Sha256 ([WebfarmKeyContainer]::Sha256($content)) -Due $due
        $encoding = [System.Text.Encoding]::Unicode
        [WebfarmProtectedFolder]::WriteFile($description, [byte[]]($encoding.GetPreamble() + $encoding.GetBytes($task)))
        Invoke-WebfarmTaskCommand -Argument "/Create /TN ""$script:taskName"" /XML ""$description"" /F"
        [System.IO.File]::Delete($description)
    }
    catch {
        $reason = Get-WebfarmErrorText -ErrorRecord $_
        try {
            Clear-WebfarmDeadman
        }
        catch {
            Write-Verbose -Message "Left over: $_"
        }
        throw "The scheduled task $script:taskName, which would settle an interrupted run, cannot be registered: $($reason.TrimEnd('.')). " +
        'Make the Task Scheduler work, or set deadman_minutes to 0: then only the next run of a module settles an interrupted one.'
    }
    return $due
}

Function Clear-WebfarmDeadman {
    <#
    .SYNOPSIS
    Removes the task and its script, where there are any.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param ()

    if (-not $PSCmdlet.ShouldProcess($script:taskName, 'remove scheduled task')) {
        return
    }
    if (Test-WebfarmDeadman) {
        try {
            Invoke-WebfarmTaskCommand -Argument "/Delete /TN ""$script:taskName"" /F"
        }
        catch {
            if (Test-WebfarmDeadman) {
                throw
            }
        }
    }
    # The script is last: as long as it is there, something may be registered.
    $path = Get-WebfarmDeadmanScript
    foreach ($name in "$path.xml.new", "$path.xml", "$path.new", $path) {
        if ([System.IO.File]::Exists($name)) {
            [System.IO.File]::Delete($name)
        }
    }
}

Export-ModuleMember -Function @(
    'Clear-WebfarmDeadman'
    'Set-WebfarmDeadman'
    'Test-WebfarmDeadman'
)
