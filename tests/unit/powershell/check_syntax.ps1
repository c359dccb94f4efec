# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Walks the syntax tree of PowerShell files and reports what Windows PowerShell 5.1 does not understand, and what the
# layout rules forbid. Runs in PowerShell 7 on any system; reads the paths, one a line, from the file that is its only
# argument, and writes one JSON array of findings.

param (
    [string]
    $List
)

$ErrorActionPreference = 'Stop'

# Cmdlets that only one of the two editions has.
$commands = @(
    'ConvertFrom-CliXml', 'ConvertFrom-Markdown', 'ConvertTo-CliXml', 'Disable-ExperimentalFeature', 'Enable-ExperimentalFeature',
    'Get-Error', 'Get-ExperimentalFeature', 'Get-MarkdownOption', 'Get-PSSubsystem', 'Get-SecureRandom', 'Get-Uptime',
    'Invoke-SSHCommand', 'Join-String', 'Remove-Alias', 'Remove-Service', 'Set-MarkdownOption', 'Show-Markdown',
    'Start-ThreadJob', 'Switch-Process', 'Test-Json',
    'Clear-EventLog', 'Get-EventLog', 'Get-WmiObject', 'Invoke-WmiMethod', 'Limit-EventLog', 'New-EventLog',
    'New-WebServiceProxy', 'Register-WmiEvent', 'Remove-EventLog', 'Remove-WmiObject', 'Set-WmiInstance', 'Write-EventLog'
)

# Parameters that came after 5.1. '*' is any cmdlet.
$parameters = @{
    '*' = @('AsByteStream', 'SkipCertificateCheck', 'ProgressAction')
    'ConvertFrom-Json' = @('AsHashtable', 'DateKind', 'Depth', 'NoEnumerate')
    'ConvertFrom-SecureString' = @('AsPlainText')
    'ConvertTo-Csv' = @('IncludeTypeInformation', 'QuoteFields', 'UseQuotes')
    'ConvertTo-Json' = @('AsArray', 'EnumsAsStrings', 'EscapeHandling')
    'Export-Csv' = @('IncludeTypeInformation', 'QuoteFields', 'UseQuotes')
    'ForEach-Object' = @('AsJob', 'Parallel', 'ThrottleLimit', 'TimeoutSeconds', 'UseNewRunspace')
    'Get-ChildItem' = @('FollowSymlink')
    'Get-Date' = @('AsUTC', 'UnixTimeSeconds')
    'Get-Random' = @('Shuffle')
    'Get-Unique' = @('CaseInsensitive')
    'Import-PowerShellDataFile' = @('SkipLimitCheck')
    'Invoke-RestMethod' = @('Authentication', 'Form', 'NoProxy', 'SkipHttpErrorCheck', 'StatusCodeVariable', 'Token')
    'Invoke-WebRequest' = @('Authentication', 'Form', 'NoProxy', 'SkipHttpErrorCheck', 'Token')
    'Join-Path' = @('AdditionalChildPath', 'Extension')
    'Measure-Object' = @('AllStats')
    'New-Service' = @('SecurityDescriptorSddl')
    'Select-Object' = @('CaseInsensitive')
    'Select-String' = @('NoEmphasis', 'Raw')
    'Set-Service' = @('Credential', 'SecurityDescriptorSddl', 'Force')
    'Sort-Object' = @('Bottom', 'Stable', 'Top')
    'Split-Path' = @('Extension', 'LeafBase')
    'Start-Process' = @('Environment')
    'Test-Connection' = @('TargetName', 'TcpPort')
    'Where-Object' = @('Not')
}
# The same, hidden in a hashtable that is splatted.
$splatted = @('AsByteStream', 'AsHashtable', 'Parallel', 'SkipCertificateCheck', 'SkipHttpErrorCheck')

$variables = @('IsWindows', 'IsLinux', 'IsMacOS', 'IsCoreCLR', 'PSStyle', 'EnabledExperimentalFeatures', 'PSNativeCommandUseErrorActionPreference')

# Members of .NET that .NET Framework 4.6 lacks: name and number of arguments, -1 = any.
$members = @(
    @('Clamp', -1), @('Contains', 2), @('EndsInDirectorySeparator', -1), @('FromHexString', -1), @('GetRelativePath', -1),
    @('HashData', -1), @('IsPathFullyQualified', -1), @('Replace', 3), @('ToHexString', -1), @('TrimEndingDirectorySeparator', -1)
)

$aliases = @(
    '%', '?', 'cat', 'cd', 'clc', 'copy', 'cp', 'curl', 'del', 'dir', 'echo', 'fl', 'foreach', 'ft', 'gc', 'gci', 'gi', 'gp', 'group',
    'gwmi', 'iex', 'ls', 'measure', 'mv', 'ni', 'rm', 'sc', 'select', 'sleep', 'sls', 'sort', 'tee', 'wget', 'where', 'write'
)

# Verbs of 5.1 that this kind of code uses; Build and Deploy came later.
$verbs = @(
    'Add', 'Assert', 'Backup', 'Checkpoint', 'Clear', 'Close', 'Compare', 'Complete', 'Confirm', 'Convert', 'ConvertFrom', 'ConvertTo', 'Copy',
    'Disable', 'Dismount', 'Enable', 'Enter', 'Exit', 'Expand', 'Export', 'Find', 'Format', 'Get', 'Group', 'Import', 'Initialize', 'Install',
    'Invoke', 'Join', 'Limit', 'Lock', 'Measure', 'Merge', 'Mount', 'Move', 'New', 'Open', 'Optimize', 'Out', 'Ping', 'Pop', 'Protect',
    'Publish', 'Push', 'Read', 'Redo', 'Register', 'Remove', 'Rename', 'Repair', 'Request', 'Reset', 'Resize', 'Resolve', 'Restart',
    'Restore', 'Resume', 'Revoke', 'Save', 'Search', 'Select', 'Send', 'Set', 'Show', 'Skip', 'Split', 'Start', 'Step', 'Stop', 'Submit',
    'Suspend', 'Switch', 'Sync', 'Test', 'Trace', 'Unblock', 'Undo', 'Uninstall', 'Unlock', 'Unprotect', 'Unpublish', 'Unregister',
    'Update', 'Use', 'Wait', 'Watch', 'Write'
)

$findings = New-Object -TypeName System.Collections.Generic.List[object]

Function Add-Finding {
    param (
        [string]
        $Path,

        [int]
        $Line,

        [string]
        $Rule,

        [string]
        $Text
    )

    $findings.Add(@{ file = $Path; line = $Line; rule = $Rule; text = $Text })
}

Function Test-Command {
    param (
        [string]
        $Path,

        [System.Management.Automation.Language.CommandAst]
        $Command
    )

    $line = $Command.Extent.StartLineNumber
    $name = $Command.GetCommandName()
    if (-not $name) {
        return
    }
    if ($name -in $commands) {
        Add-Finding -Path $Path -Line $line -Rule 'cmdlet' -Text "$name is not in both editions of PowerShell"
    }
    if ($name -in $aliases) {
        Add-Finding -Path $Path -Line $line -Rule 'alias' -Text "$name is an alias"
    }
    $forbidden = @()
    if ($parameters.ContainsKey($name)) {
        $forbidden = $parameters[$name]
    }
    foreach ($element in $Command.CommandElements) {
        if ($element -is [System.Management.Automation.Language.CommandParameterAst]) {
            $used = $element.ParameterName
            # A parameter may be shortened.
            $hits = @($forbidden | Where-Object -FilterScript { $_ -eq $used -or ($used.Length -ge 4 -and $_ -like "$used*") })
            if ($used -in $parameters['*'] -or $hits.Count -gt 0) {
                Add-Finding -Path $Path -Line $line -Rule 'parameter' -Text "$name -$used came after 5.1"
            }
        }
        elseif ($name -in @('Out-File', 'Set-Content', 'Add-Content') -and $element.Extent.Text -match '^[''"]?utf8(No)?BOM[''"]?$') {
            Add-Finding -Path $Path -Line $line -Rule 'parameter' -Text "$name -Encoding $($element.Extent.Text) came after 5.1"
        }
    }
    if ($name -eq 'Join-Path') {
        $plain = @($Command.CommandElements | Select-Object -Skip 1 | Where-Object -FilterScript {
                $_ -isnot [System.Management.Automation.Language.CommandParameterAst]
            })
        if ($plain.Count -gt 2) {
            Add-Finding -Path $Path -Line $line -Rule 'parameter' -Text 'Join-Path with more than two parts came after 5.1'
        }
    }
}

Function Test-Node {
    param (
        [string]
        $Path,

        [System.Management.Automation.Language.Ast]
        $Node
    )

    $line = $Node.Extent.StartLineNumber
    # -WhatIf style switch on the type name: the types themselves are missing in older engines.
    switch ($Node.GetType().Name) {
        'TernaryExpressionAst' {
            Add-Finding -Path $Path -Line $line -Rule 'ternary' -Text $Node.Extent.Text
        }
        'PipelineChainAst' {
            Add-Finding -Path $Path -Line $line -Rule 'chain' -Text $Node.Extent.Text
        }
        'TypeDefinitionAst' {
            Add-Finding -Path $Path -Line $line -Rule 'class' -Text "$($Node.Name): Ansible runs scripts in which classes do not resolve"
        }
        'UsingStatementAst' {
            Add-Finding -Path $Path -Line $line -Rule 'using' -Text $Node.Extent.Text
        }
        'PipelineAst' {
            if ($Node.Background) {
                Add-Finding -Path $Path -Line $line -Rule 'background' -Text $Node.Extent.Text
            }
        }
        'ScriptBlockAst' {
            if ($null -ne $Node.CleanBlock) {
                Add-Finding -Path $Path -Line $Node.CleanBlock.Extent.StartLineNumber -Rule 'clean' -Text 'clean block'
            }
        }
        'BinaryExpressionAst' {
            if ($Node.Operator -eq 'QuestionQuestion') {
                Add-Finding -Path $Path -Line $line -Rule 'coalesce' -Text $Node.Extent.Text
            }
            if ($Node.Operator -eq 'DotDot' -and $Node.Left -is [System.Management.Automation.Language.StringConstantExpressionAst]) {
                Add-Finding -Path $Path -Line $line -Rule 'range' -Text $Node.Extent.Text
            }
            if ("$($Node.Operator)" -match 'replace$' -and $Node.Right -is [System.Management.Automation.Language.ArrayLiteralAst] -and
                $Node.Right.Elements[-1] -is [System.Management.Automation.Language.ScriptBlockExpressionAst]) {
                Add-Finding -Path $Path -Line $line -Rule 'replace' -Text $Node.Extent.Text
            }
            if ("$($Node.Operator)" -match '^[CI](eq|ne)$' -and $Node.Right.Extent.Text -eq '$null') {
                Add-Finding -Path $Path -Line $line -Rule 'null' -Text '$null belongs on the left'
            }
        }
        'AssignmentStatementAst' {
            if ($Node.Operator -eq 'QuestionQuestionEquals') {
                Add-Finding -Path $Path -Line $line -Rule 'coalesce' -Text $Node.Extent.Text
            }
        }
        'IndexExpressionAst' {
            if ($Node.NullConditional) {
                Add-Finding -Path $Path -Line $line -Rule 'conditional' -Text $Node.Extent.Text
            }
        }
        'MemberExpressionAst' {
            if ($Node.NullConditional) {
                Add-Finding -Path $Path -Line $line -Rule 'conditional' -Text $Node.Extent.Text
            }
        }
        'InvokeMemberExpressionAst' {
            if ($Node.NullConditional) {
                Add-Finding -Path $Path -Line $line -Rule 'conditional' -Text $Node.Extent.Text
            }
            $count = @($Node.Arguments | Where-Object -FilterScript { $null -ne $_ }).Count
            foreach ($member in $members) {
                if ($Node.Member.Extent.Text -eq $member[0] -and $member[1] -in @(-1, $count)) {
                    Add-Finding -Path $Path -Line $line -Rule 'member' -Text "$($member[0]) is not in .NET Framework 4.6"
                }
            }
        }
        'VariableExpressionAst' {
            if ($Node.VariablePath.UserPath -in $variables) {
                Add-Finding -Path $Path -Line $line -Rule 'variable' -Text "`$$($Node.VariablePath.UserPath) came after 5.1"
            }
            if ($Node.VariablePath.IsGlobal) {
                Add-Finding -Path $Path -Line $line -Rule 'global' -Text $Node.Extent.Text
            }
        }
        'ConstantExpressionAst' {
            if ($Node.Extent.Text -match '^(0b[01]+|[0-9.]+(e[+-]?[0-9]+)?|0x[0-9a-f]+)(y|uy|s|us|u|ul|n)?([kmgtp]b)?$' -and
                ($Matches[3] -or $Matches[1].StartsWith('0b'))) {
                Add-Finding -Path $Path -Line $line -Rule 'number' -Text $Node.Extent.Text
            }
        }
        { $_ -in @('StringConstantExpressionAst', 'ExpandableStringExpressionAst') } {
            if ("$($Node.StringConstantType)" -like 'DoubleQuoted*' -and $Node.Extent.Text -cmatch '(?<!`)(``)*`(e|u\{)') {
                Add-Finding -Path $Path -Line $line -Rule 'escape' -Text $Node.Extent.Text
            }
        }
        'CatchClauseAst' {
            if ($Node.Body.Statements.Count -eq 0) {
                Add-Finding -Path $Path -Line $line -Rule 'catch' -Text 'empty catch block'
            }
        }
        'HashtableAst' {
            foreach ($pair in $Node.KeyValuePairs) {
                if ($pair.Item1.Extent.Text.Trim('''', '"') -in $splatted) {
                    Add-Finding -Path $Path -Line $pair.Item1.Extent.StartLineNumber -Rule 'parameter' -Text "$($pair.Item1.Extent.Text) came after 5.1"
                }
            }
        }
        'FunctionDefinitionAst' {
            $verb = $Node.Name.Split('-')[0]
            if (-not $Node.Name.Contains('-') -or $verb -cnotin $verbs) {
                Add-Finding -Path $Path -Line $line -Rule 'verb' -Text $Node.Name
            }
        }
        'CommandAst' {
            Test-Command -Path $Path -Command $Node
        }
    }
}

Function Test-Layout {
    param (
        [string]
        $Path,

        [string]
        $Text,

        [System.Management.Automation.Language.Token[]]
        $Token,

        [System.Management.Automation.Language.Ast]
        $Tree
    )

    if ($Text.Contains("`r")) {
        Add-Finding -Path $Path -Line 1 -Rule 'newline' -Text 'line ends are not LF'
    }
    if (-not $Text.EndsWith("`n") -or $Text.EndsWith("`n`n")) {
        Add-Finding -Path $Path -Line 1 -Rule 'newline' -Text 'the file does not end with exactly one line end'
    }

    # Lines inside here-strings and block comments keep their own indentation.
    $free = New-Object -TypeName System.Collections.Generic.HashSet[int]
    foreach ($one in $Token) {
        if ($one.Kind -in @('HereStringLiteral', 'HereStringExpandable', 'Comment') -and $one.Extent.EndLineNumber -gt $one.Extent.StartLineNumber) {
            foreach ($number in ($one.Extent.StartLineNumber + 1)..$one.Extent.EndLineNumber) {
                $null = $free.Add($number)
            }
        }
    }
    $number = 0
    foreach ($line in $Text.Split("`n")) {
        $number++
        if ($line.Length -gt 160) {
            Add-Finding -Path $Path -Line $number -Rule 'length' -Text "$($line.Length) columns"
        }
        if ($line -match '\s$') {
            Add-Finding -Path $Path -Line $number -Rule 'trailing' -Text 'white space at the end of the line'
        }
        if ($line.Contains("`t")) {
            Add-Finding -Path $Path -Line $number -Rule 'tab' -Text 'tabulator'
        }
        if (-not $free.Contains($number) -and ($line.Length - $line.TrimStart(' ').Length) % 4 -ne 0) {
            Add-Finding -Path $Path -Line $number -Rule 'indent' -Text 'the indentation is no multiple of 4'
        }
    }

    # A script block may begin a line, as the condition of a switch does.
    $starts = New-Object -TypeName System.Collections.Generic.HashSet[int]
    $isBlock = { param ($node) $node -is [System.Management.Automation.Language.ScriptBlockExpressionAst] }
    foreach ($block in $Tree.FindAll($isBlock, $true)) {
        $null = $starts.Add($block.Extent.StartOffset)
    }
    $open = New-Object -TypeName System.Collections.Generic.Stack[int]
    $closedOnOneLine = $false
    for ($i = 0; $i -lt $Token.Count; $i++) {
        $one = $Token[$i]
        $line = $one.Extent.StartLineNumber
        $before = $null
        if ($i -gt 0) {
            $before = $Token[$i - 1]
        }
        $after = $null
        if ($i + 1 -lt $Token.Count) {
            $after = $Token[$i + 1]
        }
        switch ($one.Kind) {
            'LineContinuation' {
                Add-Finding -Path $Path -Line $line -Rule 'backtick' -Text 'back-tick continuation: splat instead'
            }
            'Semi' {
                if ($null -eq $after -or $after.Kind -in @('NewLine', 'EndOfInput', 'Comment')) {
                    Add-Finding -Path $Path -Line $line -Rule 'semicolon' -Text 'semicolon at the end of a line'
                }
            }
            { $_ -in @('LCurly', 'AtCurly', 'DollarParen', 'AtParen', 'LParen') } {
                $open.Push($line)
            }
            { $_ -in @('RCurly', 'RParen') } {
                if ($open.Count -gt 0) {
                    $closedOnOneLine = $open.Pop() -eq $line
                }
            }
            'LCurly' {
                if ($null -ne $before -and $before.Kind -eq 'NewLine' -and -not $starts.Contains($one.Extent.StartOffset)) {
                    Add-Finding -Path $Path -Line $line -Rule 'brace' -Text 'the opening brace belongs on the line before'
                }
            }
            { $_ -in @('Else', 'ElseIf', 'Catch', 'Finally') } {
                # Blocks that are one line altogether may stay there.
                if ($null -ne $before -and $before.Kind -eq 'RCurly' -and -not $closedOnOneLine) {
                    Add-Finding -Path $Path -Line $line -Rule 'brace' -Text 'a closing brace ends its line'
                }
            }
        }
    }
}

foreach ($path in [System.IO.File]::ReadAllLines($List)) {
    $tokens = $null
    $errors = $null
    $text = [System.IO.File]::ReadAllText($path)
    $tree = [System.Management.Automation.Language.Parser]::ParseInput($text, [ref]$tokens, [ref]$errors)
    foreach ($problem in $errors) {
        Add-Finding -Path $path -Line $problem.Extent.StartLineNumber -Rule 'parse' -Text $problem.Message
    }
    foreach ($node in $tree.FindAll({ $true }, $true)) {
        Test-Node -Path $path -Node $node
    }
    Test-Layout -Path $path -Text $text -Token $tokens -Tree $tree
}

ConvertTo-Json -InputObject $findings.ToArray() -Depth 3 -Compress
