# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Faults at the changing calls of a library. A copy of it is made in which every such call (a file, a key container, a service, a
# registry value, a scheduled task, a pool) is put into Invoke-Step, which counts, and fails where it is told to. A killed process is one
# whose calls all fail from there on: it changes nothing any more, whatever its handlers try.

$global:Steps = @{ Count = 0; At = 0; Kind = ''; Dead = $false; Trace = $null; Hit = '' }

Function global:Invoke-Step {
    param ($Function, $Name, $Operation)
    $steps = $global:Steps
    $steps.Count++
    $label = "$Function $Name"
    if ($null -ne $steps.Trace) {
        $steps.Trace.Add($label)
    }
    if ($steps.Dead) {
        throw 'crash'
    }
    if ($null -ne $steps.Meanwhile) {
        & $steps.Meanwhile
    }
    if ($steps.Count -eq $steps.At) {
        $steps.Hit = $label
    }
    $now = $steps.Count -eq $steps.At
    if ($now -and $steps.Kind -eq 'before') {
        $steps.Dead = $true
        throw 'crash'
    }
    if ($now -and $steps.Kind -eq 'during') {
        $steps.Dead = $true
        if ($Name -like '*File.WriteFile' -or $Name -like '*Folder.WriteFile' -or $Name -like '*WebfarmConfiguration.WriteFile') {
            # Half of the new content lies beside the file.
            $target = & $Operation 'target'
            $beside = if ($Name -like '*Folder.WriteFile') { "$target.new" } else { "$target.0123abcd.webfarm" }
            [System.IO.File]::WriteAllText($beside, '{ half')
        }
        elseif ($Name -like '*File.WriteAllBytes') {
            # Written in place: a half of it is all there is.
            [System.IO.File]::WriteAllText((& $Operation 'target'), '{ half')
        }
        else {
            # It was done, or the service was asked, and nobody waited for it.
            $null = & $Operation
        }
        throw 'crash'
    }
    $persists = $steps.Kind -eq 'stays' -and $steps.Count -ge $steps.At -and $label -eq $steps.Hit
    $full = $steps.Kind -eq 'full' -and $steps.Count -ge $steps.At -and $Name -like '*.Write*'
    if (($now -and $steps.Kind -eq 'once') -or $persists -or $full) {
        if ($Name -like 'WebfarmService.*') {
            throw (New-Object -TypeName System.ComponentModel.Win32Exception -ArgumentList 1053)
        }
        if ($Name -like 'WebfarmKeyContainer.*') {
            throw (New-Object -TypeName System.Security.Cryptography.CryptographicException -ArgumentList 'Access is denied.')
        }
        $text = if ($full) { 'There is not enough space on the disk.' } else { 'The file is being used by another process.' }
        throw (New-Object -TypeName System.IO.IOException -ArgumentList $text)
    }
    & $Operation
}

Function Get-Changing {
    # The calls that change something, with the function that they stand in.
    param ($Tree)
    $changes = '^(Write|Delete|Import|Set|Start$|Stop$|Copy|Move|Ensure$)'
    # Of objects, in the stand-in for Microsoft's cmdlets.
    $objects = 'ImportCspBlob', 'Save'
    $commands = 'Set-ItemProperty', 'Invoke-WebfarmTaskCommand'
    $Tree.FindAll({
            param ($Node)
            if ($Node -is [System.Management.Automation.Language.InvokeMemberExpressionAst]) {
                $member = $Node.Member.Extent.Text
                return ($Node.Static -and $Node.Expression.Extent.Text -match '^\[(Webfarm|System\.IO\.(File|Directory)\])' -and
                    $member -match $changes) -or (-not $Node.Static -and $objects -ccontains $member)
            }
            $Node -is [System.Management.Automation.Language.CommandAst] -and ($commands -contains $Node.GetCommandName() -or
                ($Node.GetCommandName() -eq 'Invoke-WebfarmAppcmd' -and $Node.Extent.Text -notmatch "'list'"))
        }, $true)
}

Function Copy-Library {
    # The library with its changing calls inside Invoke-Step. Answers where the copy lies.
    param ($Source, $Folder)
    $text = [System.IO.File]::ReadAllText($Source)
    $tree = [System.Management.Automation.Language.Parser]::ParseInput($text, [ref]$null, [ref]$null)
    foreach ($call in @(Get-Changing -Tree $tree | Sort-Object -Property { $_.Extent.StartOffset } -Descending)) {
        $function = $call.Parent
        while ($null -ne $function -and $function -isnot [System.Management.Automation.Language.FunctionDefinitionAst]) {
            $function = $function.Parent
        }
        $body = $call.Extent.Text
        $name = $call.Extent.Text
        $first = '$null'
        if ($call -is [System.Management.Automation.Language.CommandAst]) {
            $name = $call.GetCommandName()
        }
        else {
            $name = "$($call.Expression.Extent.Text.Trim('[', ']')).$($call.Member.Extent.Text)"
            $first = "($($call.Arguments[0].Extent.Text))"
        }
        $name = $name.Replace('System.IO.', '')
        $step = "(Invoke-Step -Function '$($function.Name)' -Name '$name' -Operation { param (`$What) if (`$What) { $first } else { $body } })"
        $text = $text.Remove($call.Extent.StartOffset, $body.Length).Insert($call.Extent.StartOffset, $step)
    }
    $copy = "$Folder\$([System.IO.Path]::GetFileName($Source))"
    [System.IO.File]::WriteAllText($copy, $text)
    $copy
}
