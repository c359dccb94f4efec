# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# What aspnet_regiis.exe does, tried with scratch containers and scratch files. Exit codes and what is there afterwards count; its texts are
# in the language of the server and are not read.

#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._ScratchKey

$script:programSeconds = 120

Function Get-WebfarmRegiisPath {
    <#
    .SYNOPSIS
    Returns the path of the 64-bit aspnet_regiis.exe, whether it exists or not.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param ()

    $windows = [Environment]::GetFolderPath([Environment+SpecialFolder]::Windows)
    return [System.IO.Path]::Combine($windows, 'Microsoft.NET\Framework64\v4.0.30319\aspnet_regiis.exe')
}

Function Invoke-WebfarmRegiis {
    <#
    .SYNOPSIS
    Runs aspnet_regiis with a scratch container and returns its exit code. Refuses every other container.

    .PARAMETER Switch
    -pc, -pz, -px or -pi.

    .PARAMETER Container
    The container.

    .PARAMETER Argument
    What follows.

    .PARAMETER Folder
    The folder in which it runs: names of files start there.
    #>
    [CmdletBinding()]
    [OutputType([int])]
    param (
        [Parameter(Mandatory = $true)]
        [ValidateSet('-pc', '-pz', '-px', '-pi')]
        [string]
        $Switch,

        [Parameter(Mandatory = $true)]
        [string]
        $Container,

        [Parameter()]
        [string[]]
        $Argument = @(),

        [Parameter(Mandatory = $true)]
        [string]
        $Folder
    )

    [WebfarmScratch]::Require($Container)
    $start = New-Object -TypeName System.Diagnostics.ProcessStartInfo
    $start.FileName = Get-WebfarmRegiisPath
    $start.Arguments = (@($Switch, $Container) + $Argument | ForEach-Object -Process { '"' + $_ + '"' }) -join ' '
    $start.WorkingDirectory = $Folder
    $start.UseShellExecute = $false
    $start.CreateNoWindow = $true
    $start.RedirectStandardOutput = $true
    $process = [System.Diagnostics.Process]::Start($start)
    try {
        $reading = $process.StandardOutput.ReadToEndAsync()
        if (-not $process.WaitForExit($script:programSeconds * 1000)) {
            $process.Kill()
            throw "aspnet_regiis $Switch did not end within $script:programSeconds seconds."
        }
        $null = $reading.Result
        return $process.ExitCode
    }
    finally {
        $process.Dispose()
    }
}

Function Get-WebfarmRegiisTrial {
    <#
    .SYNOPSIS
    Tries the switches and returns what was observed: Exit (a list of case, exit code, expected code), and what the containers held.

    .PARAMETER Folder
    The scratch folder. It must be empty of files of an earlier trial.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Folder
    )

    $first, $second, $third, $fourth = [WebfarmScratch]::Containers
    $exits = New-Object -TypeName System.Collections.Generic.List[object]
    $run = {
        param ($Case, $Expected, $Switch, $Container, $Argument)
        $code = Invoke-WebfarmRegiis -Switch $Switch -Container $Container -Argument @($Argument) -Folder $Folder
        $exits.Add([ordered]@{ case = $Case; exit = $code; expected = $Expected })
    }
    $look = {
        param ($Container)
        [WebfarmKeyContainer]::Inspect($Container, 'cryptoapi')
    }
    $found = [ordered]@{}

    & $run 'pc: a new container' 0 '-pc' $first @('-exp')
    $found.new_bits = (& $look $first).Bits
    & $run 'pc: the container exists' 1 '-pc' $first @('-exp')
    & $run 'pc -size 4096' 0 '-pc' $second @('-size', '4096', '-exp')
    $found.size_4096_bits = (& $look $second).Bits
    & $run 'px: the folder is missing' 1 '-px' $first @('missing\one.xml', '-pri')
    & $run 'px: the container is missing' 1 '-px' $third @('three.xml')
    & $run 'pz: the container is missing' 1 '-pz' $third @()
    & $run 'pi: the file is missing' 1 '-pi' $third @('missing.xml')
    $found.state_after_missing_file = (& $look $third).State

    & $run 'px with the private key' 0 '-px' $first @('one.xml', '-pri')
    & $run 'px without the private key' 0 '-px' $second @('two-public.xml')
    $before = (& $look $first).Fingerprint
    & $run 'pi: a public key over an existing container' 0 '-pi' $first @('two-public.xml')
    $found.public_only_changed_the_key = (& $look $first).Fingerprint -ne $before
    & $run 'pi: a public key into a missing container' 0 '-pi' $third @('two-public.xml')
    $made = & $look $third
    $found.public_only_made = $made.State
    $found.public_only_made_another_key = $made.State -eq 'present' -and $made.Fingerprint -ne (& $look $second).Fingerprint
    if ($made.State -ne 'missing') {
        & $run 'pz: a container' 0 '-pz' $third @()
    }
    $bad = [System.IO.Path]::Combine($Folder, 'bad.xml')
    [System.IO.File]::WriteAllText($bad, '<RSAKeyValue><Modulus>AQAB</Modulus></RSAKeyValue>')
    & $run 'pi: a file without a whole key' 1 '-pi' $third @('bad.xml')
    $found.state_after_bad_file = (& $look $third).State

    [WebfarmKeyContainer]::SetSddl($second, 'D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FR;;;LS)')
    $list = [WebfarmKeyContainer]::GetSddl($second)
    & $run 'pi over an existing container' 0 '-pi' $second @('one.xml', '-exp')
    $found.import_replaced_the_key = (& $look $second).Fingerprint -eq $before
    $found.import_kept_the_access_list = [WebfarmKeyContainer]::GetSddl($second) -eq $list
    & $run 'pi into a missing container' 0 '-pi' $fourth @('one.xml')
    $new = & $look $fourth
    $found.import_new_sddl = $new.Sddl
    $found.import_without_exp_is_exportable = $new.Exportable
    & $run 'px with the private key: not exportable' 1 '-px' $fourth @('four.xml', '-pri')
    return @{
        Exit = $exits.ToArray()
        Found = $found
    }
}

Export-ModuleMember -Function Get-WebfarmRegiisPath, Get-WebfarmRegiisTrial, Invoke-WebfarmRegiis
