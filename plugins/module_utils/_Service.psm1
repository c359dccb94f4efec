# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

# The services, application pools and sites that read the configuration: record what runs, stop it, start it again as it
# was, and see whether it serves.

#AnsibleRequires -CSharpUtil ..module_utils._KeyContainer
#AnsibleRequires -CSharpUtil ..module_utils._Configuration
#AnsibleRequires -CSharpUtil ..module_utils._Health
#AnsibleRequires -CSharpUtil ..module_utils._ServiceControl
#AnsibleRequires -PowerShell ..module_utils._Appcmd
#AnsibleRequires -PowerShell ..module_utils._Diagnosis
#AnsibleRequires -PowerShell ..module_utils._EventLog
#AnsibleRequires -PowerShell ..module_utils._Facts

# The services that hold keys or configuration open, in the order in which they are stopped. The others that depend on one
# of them are found on the host. AppHostSvc is last: it would save a half-written file to the history.
$script:consumers = @('WMSVC', 'FTPSVC', 'MsDepSvc', 'W3SVC', 'WAS', 'AppHostSvc')
$script:startOrder = @('AppHostSvc', 'WAS', 'W3SVC', 'FTPSVC', 'WMSVC', 'MsDepSvc')
$script:active = @('running', 'paused', 'start_pending', 'continue_pending', 'pause_pending')

# What IIS logs when a worker or WAS cannot read its configuration, or a pool its identity.
$script:badEvents = @(2307, 5021, 5057, 5059, 5172, 5189)

# How long a site may answer 503 or refuse connections right after the start, before that counts.
$script:settleSeconds = 10

Function Get-WebfarmRunState {
    <#
    .SYNOPSIS
    Records which services, application pools and sites run now.

    .DESCRIPTION
    Returns a dictionary of plain values, which fits into the journal: services (in stop order), pools, sites. Pools and
    sites have a runtime state only while WAS runs.

    .PARAMETER TimeoutSeconds
    How long a service that is just starting or stopping may take to settle.

    .PARAMETER AsIs
    Do not wait for one, take the state as it is.

    .PARAMETER Repair
    The configuration may be unreadable, so that pools and sites have no state that could be asked for: they are left out then.
    #>
    [CmdletBinding()]
    param (
        [Parameter()]
        [int]
        $TimeoutSeconds = 60,

        [Parameter()]
        [switch]
        $AsIs,

        [Parameter()]
        [switch]
        $Repair
    )

    $end = [DateTime]::UtcNow.AddSeconds($TimeoutSeconds)
    $services = New-Object -TypeName System.Collections.Generic.List[object]
    foreach ($name in [WebfarmService]::StopOrder($script:consumers)) {
        $service = [WebfarmService]::Query($name)
        while ($service.Status -like '*_pending' -and -not $AsIs -and [DateTime]::UtcNow -lt $end) {
            Start-Sleep -Milliseconds 250
            $service = [WebfarmService]::Query($name)
        }
        if ($service.Status -like '*_pending' -and -not $AsIs) {
            throw "The service $name has been $($service.Status) for $TimeoutSeconds seconds. Find out why it hangs, and run again."
        }
        $services.Add([ordered]@{
                name = $name
                status = $service.Status
                start_type = $service.StartType
            })
    }
    $state = [ordered]@{
        services = $services.ToArray()
        pools = @()
        sites = @()
    }
    if (Test-WebfarmRunning -State $state -Name 'WAS') {
        try {
            $state.pools = @(Get-WebfarmRuntimeObject -Kind apppool)
            $state.sites = @(Get-WebfarmRuntimeObject -Kind site)
        }
        catch {
            if (-not $Repair) {
                throw
            }
        }
    }
    return $state
}

Function Get-WebfarmStartType {
    <#
    .SYNOPSIS
    Lists the services that start with Windows and read keys or configuration, or need one that does.
    #>
    [CmdletBinding()]
    param ()

    foreach ($name in [WebfarmService]::StopOrder($script:consumers)) {
        $service = [WebfarmService]::Query($name)
        if ($service.StartType -eq 'auto') {
            [ordered]@{
                name = $name
                start_type = $service.StartType
            }
        }
    }
}

Function Set-WebfarmManualStart {
    <#
    .SYNOPSIS
    Makes the start of services manual, so that a host that is started meanwhile does not start them.

    .PARAMETER StartType
    From Get-WebfarmStartType.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter()]
        [object[]]
        $StartType = @()
    )

    foreach ($service in $StartType) {
        if ($PSCmdlet.ShouldProcess($service.name, 'start by hand')) {
            [WebfarmService]::SetStartType($service.name, 'manual')
        }
    }
}

Function Restore-WebfarmStartType {
    <#
    .SYNOPSIS
    Gives services their start type back. One that somebody changed in the meantime stays as it is.

    .PARAMETER StartType
    From Get-WebfarmStartType; $null where nothing was recorded.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter()]
        [AllowNull()]
        [object[]]
        $StartType = @()
    )

    foreach ($service in $StartType) {
        if ($null -ne $service -and [WebfarmService]::Query($service.name).StartType -eq 'manual' -and
            $PSCmdlet.ShouldProcess($service.name, 'restore start type')) {
            [WebfarmService]::SetStartType($service.name, $service.start_type)
        }
    }
}

Function Get-WebfarmWantedState {
    <#
    .SYNOPSIS
    Returns the recorded state with the services running that start with Windows, and those that they need.

    .DESCRIPTION
    A server whose key was missing has its services stopped although they are automatic: they could not start.

    .PARAMETER State
    From Get-WebfarmRunState; it stays as it is.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $State
    )

    $wanted = @($State.services | Where-Object -FilterScript { $_.start_type -eq 'auto' } | ForEach-Object -Process { $_.name })
    $needed = @($wanted | ForEach-Object -Process { [WebfarmService]::Query($_).DependsOn })
    $services = foreach ($service in $State.services) {
        $status = $service.status
        if ($wanted -contains $service.name -or $needed -contains $service.name) {
            $status = 'running'
        }
        [ordered]@{
            name = $service.name
            status = $status
            start_type = $service.start_type
        }
    }
    [ordered]@{
        services = @($services)
        pools = @($State.pools)
        sites = @($State.sites)
    }
}

Function Test-WebfarmRunning {
    <#
    .SYNOPSIS
    Tells whether a service ran when the state was recorded.

    .PARAMETER State
    From Get-WebfarmRunState.

    .PARAMETER Name
    The service.
    #>
    [CmdletBinding()]
    [OutputType([bool])]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $State,

        [Parameter(Mandatory = $true)]
        [string]
        $Name
    )

    foreach ($service in $State.services) {
        if ($service.name -eq $Name) {
            return $script:active -contains $service.status
        }
    }
    return $false
}

Function Get-WebfarmRunningConsumer {
    <#
    .SYNOPSIS
    Names the services that read keys and configuration and are not stopped now.

    .PARAMETER Name
    The services to ask. Default: the ones of IIS.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter()]
        [string[]]
        $Name = $script:consumers
    )

    foreach ($service in $Name) {
        $found = [WebfarmService]::Query($service)
        if ($found.Installed -and $found.Status -ne 'stopped') {
            $service
        }
    }
}

Function Assert-WebfarmRestartable {
    <#
    .SYNOPSIS
    Throws where a service runs that could not be started again.

    .PARAMETER State
    From Get-WebfarmRunState.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $State
    )

    foreach ($service in $State.services) {
        if ($service.start_type -eq 'disabled' -and $script:active -contains $service.status) {
            throw "The service $($service.name) runs, but its start type is disabled: it could not be started again after the change. " +
            'Enable it, or stop it, and run again.'
        }
    }
}

Function Wait-WebfarmService {
    <#
    .SYNOPSIS
    Waits until a service has a status; returns the last state seen.

    .PARAMETER Name
    The service.

    .PARAMETER Status
    Ends the wait.

    .PARAMETER End
    UTC time of giving up.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Name,

        [Parameter(Mandatory = $true)]
        [string[]]
        $Status,

        [Parameter(Mandatory = $true)]
        [DateTime]
        $End
    )

    while ($true) {
        $service = [WebfarmService]::Query($Name)
        if ($Status -contains $service.Status -or [DateTime]::UtcNow -ge $End) {
            return $service
        }
        Start-Sleep -Milliseconds 200
    }
}

Function Stop-WebfarmConsumer {
    <#
    .SYNOPSIS
    Stops every service of the recorded state, in order, and never by force.

    .PARAMETER State
    From Get-WebfarmRunState.

    .PARAMETER TimeoutSeconds
    What each service may take.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $State,

        [Parameter(Mandatory = $true)]
        [int]
        $TimeoutSeconds
    )

    # The service manager's answers while a service or one of its dependents is on its way.
    $transient = @(1051, 1061)
    foreach ($recorded in $State.services) {
        $name = $recorded.name
        $end = [DateTime]::UtcNow.AddSeconds($TimeoutSeconds)
        $asked = $false
        while ($true) {
            $service = [WebfarmService]::Query($name)
            if ($service.Status -eq 'stopped') {
                break
            }
            if (-not $asked -and $service.Status -ne 'stop_pending') {
                if (-not $PSCmdlet.ShouldProcess($name, 'stop service')) {
                    break
                }
                try {
                    [WebfarmService]::Stop($name)
                    $asked = $true
                }
                catch {
                    $reason = $_.Exception.GetBaseException()
                    $code = 0
                    if ($reason -is [System.ComponentModel.Win32Exception]) {
                        $code = $reason.NativeErrorCode
                    }
                    if ($transient -notcontains $code) {
                        throw "The service $name could not be stopped: $($reason.Message)"
                    }
                }
            }
            if ([DateTime]::UtcNow -ge $end) {
                throw "The service $name did not stop within $TimeoutSeconds seconds (stop_timeout); it is $($service.Status). It was not killed."
            }
            Start-Sleep -Milliseconds 200
        }
    }
}

Function Start-WebfarmConsumer {
    <#
    .SYNOPSIS
    Starts the services that ran when the state was recorded, in order. Returns their names.

    .PARAMETER State
    From Get-WebfarmRunState.

    .PARAMETER TimeoutSeconds
    What each service may take.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $State,

        [Parameter(Mandatory = $true)]
        [int]
        $TimeoutSeconds
    )

    $wanted = @($State.services | Where-Object -FilterScript { $script:active -contains $_.status } | ForEach-Object -Process { $_.name })
    $others = @($wanted | Where-Object -FilterScript { $script:startOrder -notcontains $_ })
    [array]::Reverse($others)
    $order = @($script:startOrder | Where-Object -FilterScript { $wanted -contains $_ }) + $others
    # One that does not start is no reason to leave the others down.
    $failures = New-Object -TypeName System.Collections.Generic.List[string]
    foreach ($name in $order) {
        if ($PSCmdlet.ShouldProcess($name, 'start service')) {
            $failure = Start-WebfarmService -Name $name -TimeoutSeconds $TimeoutSeconds
            if ($failure) {
                $failures.Add($failure)
                continue
            }
            $name
        }
    }
    if ($failures.Count -gt 0) {
        throw ($failures -join ' ')
    }
}

Function Start-WebfarmService {
    <#
    .SYNOPSIS
    Starts one service and waits until it runs. Returns why it does not; nothing when it runs.

    .PARAMETER Name
    The service.

    .PARAMETER TimeoutSeconds
    What it may take.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Name,

        [Parameter(Mandatory = $true)]
        [int]
        $TimeoutSeconds
    )

    $end = [DateTime]::UtcNow.AddSeconds($TimeoutSeconds)
    # One that is still on its way down must arrive before it can be started.
    $service = Wait-WebfarmService -Name $Name -Status 'stopped', 'running', 'paused', 'start_pending' -End $end
    if ($service.Status -eq 'running' -or -not $PSCmdlet.ShouldProcess($Name, 'start service')) {
        return
    }
    try {
        [WebfarmService]::Start($Name)
    }
    catch {
        return "The service $Name could not be started: $($_.Exception.GetBaseException().Message.TrimEnd('.'))."
    }
    $service = Wait-WebfarmService -Name $Name -Status 'running', 'stopped' -End $end
    if ($service.Status -eq 'stopped') {
        return "The service $Name stopped again while starting: $(Get-WebfarmServiceFailure -Service $service)"
    }
    if ($service.Status -ne 'running') {
        return "The service $Name did not start within $TimeoutSeconds seconds (start_timeout); it is $($service.Status)."
    }
}

Function Get-WebfarmServiceFailure {
    <#
    .SYNOPSIS
    Says in words why a service ended, from its exit code.

    .PARAMETER Service
    From [WebfarmService]::Query.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $Service
    )

    if ($Service.ExitCode -eq 0) {
        return 'it gave no error code; look into the System event log.'
    }
    if (-not $Service.OwnExitCode) {
        $text = (New-Object -TypeName System.ComponentModel.Win32Exception -ArgumentList ([int]$Service.ExitCode)).Message
        return "error $($Service.ExitCode), $($text.TrimEnd('.'))."
    }
    # IIS gives the HRESULT of the key or file that did not open.
    $diagnosis = Get-WebfarmDiagnosis -Code $Service.ExitCode -Context service
    $text = "error $(Format-WebfarmCode -Code $Service.ExitCode)"
    if ($diagnosis.name) {
        $text += " $($diagnosis.name). $($diagnosis.cause) $($diagnosis.fix)"
    }
    return "$($text.TrimEnd('.'))."
}

Function Restore-WebfarmRuntime {
    <#
    .SYNOPSIS
    Gives application pools and sites the runtime state that they had: one stopped by hand is stopped again.

    .DESCRIPTION
    What no longer exists is left out, what is new keeps the state that its configuration gave it. Returns sentences about
    what could not be restored.

    .PARAMETER State
    From Get-WebfarmRunState.
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $State
    )

    if (-not (Test-WebfarmRunning -State $State -Name 'WAS')) {
        return
    }
    foreach ($kind in 'apppool', 'site') {
        $recorded = if ($kind -eq 'apppool') { $State.pools } else { $State.sites }
        $now = @{}
        foreach ($item in Get-WebfarmRuntimeObject -Kind $kind) {
            $now[$item.name] = $item.state
        }
        foreach ($item in $recorded) {
            if (-not $now.ContainsKey($item.name) -or $now[$item.name] -eq $item.state) {
                continue
            }
            $verb = if ($item.state -eq 'Started') { 'start' } else { 'stop' }
            if ($verb -eq 'stop' -and $item.state -ne 'Stopped') {
                continue
            }
            if (-not $PSCmdlet.ShouldProcess("$kind $($item.name)", $verb)) {
                continue
            }
            $answer = Invoke-WebfarmAppcmd -Argument $verb, $kind, "/$kind.name:$($item.name)"
            if ($answer.Code -ne 0) {
                "The $kind $($item.name) could not be brought to the state $($item.state): $($answer.Text) (code $($answer.Code))"
            }
        }
    }
}

Function Get-WebfarmNoAutoStart {
    <#
    .SYNOPSIS
    Names the application pools that the configuration does not start by itself.

    .PARAMETER Path
    The applicationHost.config.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [string]
        $Path
    )

    $document = New-Object -TypeName System.Xml.XmlDocument
    $document.XmlResolver = $null
    $document.Load($Path)
    $pools = 'configuration/system.applicationHost/applicationPools'
    $default = 'true'
    $node = $document.SelectSingleNode("$pools/applicationPoolDefaults/@autoStart")
    if ($null -ne $node) {
        $default = $node.Value
    }
    foreach ($pool in $document.SelectNodes("$pools/add")) {
        $own = $pool.GetAttribute('autoStart')
        if (-not $own) {
            $own = $default
        }
        if ($own -eq 'false') {
            $pool.GetAttribute('name')
        }
    }
}

Function Get-WebfarmProbeAddress {
    <#
    .SYNOPSIS
    Returns the address at which a binding is asked.

    .PARAMETER Address
    The address of the binding, * for all.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [AllowEmptyString()]
        [string]
        $Address
    )

    $parsed = $null
    if ([System.Net.IPAddress]::TryParse($Address, [ref]$parsed) -and $Address -ne '0.0.0.0') {
        return $Address
    }
    return '127.0.0.1'
}

Function Get-WebfarmServiceProblem {
    <#
    .SYNOPSIS
    Says which services and pools are not in the state that they should have.

    .PARAMETER State
    From Get-WebfarmRunState, before the change.

    .PARAMETER Path
    The applicationHost.config.

    .PARAMETER Pool
    The pools now; from Get-WebfarmRuntimeObject.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $State,

        [Parameter(Mandatory = $true)]
        [string]
        $Path,

        [Parameter()]
        [object[]]
        $Pool = @()
    )

    foreach ($service in $State.services) {
        if ($script:active -contains $service.status) {
            $now = [WebfarmService]::Query($service.name)
            if ($now.Status -ne 'running') {
                "the service $($service.name) is $($now.Status): $(Get-WebfarmServiceFailure -Service $now)"
            }
        }
    }
    $before = @{}
    foreach ($item in $State.pools) {
        $before[$item.name] = $item.state
    }
    $notAutomatic = @(Get-WebfarmNoAutoStart -Path $Path)
    foreach ($item in $Pool) {
        $shouldRun = $notAutomatic -notcontains $item.name
        if ($before.ContainsKey($item.name)) {
            $shouldRun = $before[$item.name] -eq 'Started'
        }
        if ($shouldRun -and $item.state -ne 'Started') {
            "the application pool $($item.name) is $($item.state): WAS may have disabled it, see the System event log (5057, 5059, 5021)"
        }
    }
}

Function Get-WebfarmWarmUpTarget {
    <#
    .SYNOPSIS
    Lists one HTTP binding of every started site whose root application pool should run.

    .PARAMETER State
    From Get-WebfarmRunState, before the change.

    .PARAMETER Configuration
    The parsed applicationHost.config.

    .PARAMETER Site
    The sites now; from Get-WebfarmRuntimeObject.

    .PARAMETER Pool
    The pools now.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $State,

        [Parameter(Mandatory = $true)]
        [object]
        $Configuration,

        [Parameter()]
        [object[]]
        $Site = @(),

        [Parameter()]
        [object[]]
        $Pool = @()
    )

    $started = @($Site | Where-Object -FilterScript { $_.state -eq 'Started' } | ForEach-Object -Process { $_.name })
    # A pool that is stopped and was stopped: 503 is its right answer.
    $still = @($Pool | Where-Object -FilterScript { $_.state -ne 'Started' } | ForEach-Object -Process { $_.name })
    foreach ($item in $Configuration.Sites) {
        if ($started -notcontains $item.Name) {
            continue
        }
        if ($item.Pools.Count -gt 0 -and $still -contains $item.Pools[0]) {
            continue
        }
        $binding = @($item.Bindings | Where-Object -FilterScript { $_.Protocol -eq 'http' -and $_.Port -gt 0 })[0]
        if ($null -eq $binding) {
            continue
        }
        $hostName = $binding.HostName
        if (-not $hostName -or $hostName.StartsWith('*')) {
            $hostName = 'localhost'
        }
        [ordered]@{
            site = $item.Name
            pool = if ($item.Pools.Count -gt 0) { $item.Pools[0] } else { '' }
            status = 0
            address = Get-WebfarmProbeAddress -Address $binding.Address
            port = $binding.Port
            host = $hostName
        }
    }
}

Function Get-WebfarmWarmUpProblem {
    <#
    .SYNOPSIS
    Sends one request to each target; says which sites do not serve.

    .DESCRIPTION
    503 and a 500.19 page are failures: the pool or the worker could not read its configuration. Other answers, even other
    errors, are the application's own and none of a key's business. No answer in time only gives a warning: applications
    may need minutes for their first request.

    .PARAMETER Target
    From Get-WebfarmWarmUpTarget.

    .PARAMETER TimeoutSeconds
    What all requests together may take.

    .PARAMETER Warning
    A list that receives warnings.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter()]
        [object[]]
        $Target = @(),

        [Parameter(Mandatory = $true)]
        [int]
        $TimeoutSeconds,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    $end = [DateTime]::UtcNow.AddSeconds($TimeoutSeconds)
    $settled = [DateTime]::UtcNow.AddSeconds([Math]::Min($script:settleSeconds, $TimeoutSeconds))
    foreach ($item in $Target) {
        $where = "the site $($item.site) (http://$($item.host):$($item.port)/ at $($item.address))"
        while ($true) {
            $left = [int][Math]::Max(1000, ($end - [DateTime]::UtcNow).TotalMilliseconds)
            $answer = [WebfarmHttp]::Get($false, $item.address, $item.port, $item.host, '/', $left)
            $unready = $answer.Status -eq 503 -or $answer.Failure -eq 'connect'
            if (-not $unready -or [DateTime]::UtcNow -ge $settled) {
                break
            }
            Start-Sleep -Milliseconds 500
        }
        $item.status = $answer.Status
        if ($answer.KeyFailure) {
            "$where answers 500.19: its worker process cannot read the configuration, see event 2307 in the Application log"
        }
        elseif ($answer.Status -eq 503) {
            "$where answers 503: its application pool does not run"
        }
        elseif ($answer.Failure -eq 'timeout') {
            $Warning.Add("No answer came from $where in time; its application may still be starting.")
        }
        elseif ($answer.Failure) {
            "$where does not answer: $($answer.Message)"
        }
    }
}

Function Get-WebfarmWorkerProblem {
    <#
    .SYNOPSIS
    Says which application pools have no worker process although one of their sites has just answered.

    .PARAMETER Target
    From Get-WebfarmWarmUpTarget, after the requests.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter()]
        [object[]]
        $Target = @()
    )

    # 400 and 503 come from HTTP.sys itself, without a worker.
    $waiting = @($Target | Where-Object -FilterScript { $_.pool -and $_.status -and @(400, 503) -notcontains $_.status })
    $end = [DateTime]::UtcNow.AddSeconds($script:settleSeconds)
    while ($waiting.Count -gt 0) {
        $workers = @(Get-WebfarmRuntimeObject -Kind wp | ForEach-Object -Process { $_.pool })
        $waiting = @($waiting | Where-Object -FilterScript { $workers -notcontains $_.pool })
        if ($waiting.Count -eq 0 -or [DateTime]::UtcNow -ge $end) {
            break
        }
        Start-Sleep -Milliseconds 500
    }
    foreach ($item in $waiting) {
        "the application pool $($item.pool) has no worker process although the site $($item.site) was asked and answered $($item.status)"
    }
}

Function Get-WebfarmUrlProblem {
    <#
    .SYNOPSIS
    Asks the URLs that the user named, on this server, and says which do not answer as they should.

    .PARAMETER Url
    Dictionaries with url, status and host_header.

    .PARAMETER Configuration
    The parsed applicationHost.config: its bindings tell the address.

    .PARAMETER TimeoutSeconds
    What each URL may take until it answers as it should.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter()]
        [object[]]
        $Url = @(),

        [Parameter(Mandatory = $true)]
        [object]
        $Configuration,

        [Parameter(Mandatory = $true)]
        [int]
        $TimeoutSeconds
    )

    foreach ($item in $Url) {
        $uri = [Uri]$item.url
        $hostName = $uri.DnsSafeHost
        if ($item.host_header) {
            $hostName = $item.host_header
        }
        $address = $null
        $literal = $null
        if ([System.Net.IPAddress]::TryParse($uri.DnsSafeHost, [ref]$literal)) {
            $address = $uri.DnsSafeHost
        }
        else {
            # The name may lead to a load balancer; the binding leads to this server.
            $bindings = @($Configuration.Sites | ForEach-Object -Process { $_.Bindings } |
                    Where-Object -FilterScript { $_.Protocol -eq $uri.Scheme -and $_.Port -eq $uri.Port })
            $exact = @($bindings | Where-Object -FilterScript { $_.HostName -eq $hostName })
            $chosen = @($exact + $bindings)[0]
            $address = '127.0.0.1'
            if ($null -ne $chosen) {
                $address = Get-WebfarmProbeAddress -Address $chosen.Address
            }
        }
        $end = [DateTime]::UtcNow.AddSeconds($TimeoutSeconds)
        $good = $false
        while (-not $good) {
            $left = [int][Math]::Max(1000, ($end - [DateTime]::UtcNow).TotalMilliseconds)
            $answer = [WebfarmHttp]::Get(($uri.Scheme -eq 'https'), $address, $uri.Port, $hostName, $uri.PathAndQuery, $left)
            $good = $item.status -contains $answer.Status
            # A worker that cannot read its configuration does not learn to by waiting.
            if ($good -or $answer.KeyFailure -or [DateTime]::UtcNow -ge $end) {
                break
            }
            Start-Sleep -Milliseconds 500
        }
        if ($answer.KeyFailure -and -not $good) {
            "$($item.url) answers 500.19: its worker process cannot read the configuration"
        }
        elseif (-not $good) {
            $got = if ($answer.Status) { "answers $($answer.Status)" } else { "does not answer ($($answer.Message))" }
            "$($item.url) at $address $got, expected $($item.status -join ' or ') (verify_urls)"
        }
    }
}

Function Get-WebfarmEventProblem {
    <#
    .SYNOPSIS
    Says which events of IIS tell that something could not be read or started. Nothing where the log cannot be read.

    .DESCRIPTION
    What the log said in the same words within the day before is no trouble of this start: a pool that was broken before stays so.

    .PARAMETER Since
    UTC time from which events count.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [DateTime]
        $Since
    )

    # Both are texts of one form, to the second.
    $first = ConvertTo-WebfarmTimeText -Time $Since
    $entries = @((Get-WebfarmEventFact -Hours 24 -Limit 200).entries | Where-Object -FilterScript { $script:badEvents -contains $_.id })
    $said = @{}
    foreach ($entry in $entries) {
        if ([string]::CompareOrdinal($entry.time, $first) -lt 0) {
            $said[$entry.message] = $true
        }
    }
    foreach ($entry in $entries) {
        if ([string]::CompareOrdinal($entry.time, $first) -ge 0 -and -not $said.ContainsKey($entry.message)) {
            $said[$entry.message] = $true
            "the $($entry.log) log has the new event $($entry.id) of $($entry.source): $($entry.message.TrimEnd('.'))"
        }
    }
}

Function Wait-WebfarmSite {
    <#
    .SYNOPSIS
    Lists the sites once those that were started are started again, or once they had time enough. due marks the latter.

    .PARAMETER State
    From Get-WebfarmRunState, before the change.

    .PARAMETER TimeoutSeconds
    When to stop waiting, at the latest.
    #>
    [CmdletBinding()]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $State,

        [Parameter(Mandatory = $true)]
        [int]
        $TimeoutSeconds
    )

    $before = @($State.sites | Where-Object -FilterScript { $_.state -eq 'Started' } | ForEach-Object -Process { $_.name })
    $end = [DateTime]::UtcNow.AddSeconds([Math]::Min($script:settleSeconds, $TimeoutSeconds))
    while ($true) {
        $sites = @(Get-WebfarmRuntimeObject -Kind site)
        $waiting = 0
        foreach ($site in $sites) {
            $site.due = $before -contains $site.name
            if ($site.due -and $site.state -ne 'Started') {
                $waiting++
            }
        }
        if ($waiting -eq 0 -or [DateTime]::UtcNow -ge $end) {
            return $sites
        }
        Start-Sleep -Milliseconds 500
    }
}

Function Get-WebfarmHealthProblem {
    <#
    .SYNOPSIS
    Says everything that is wrong with a server after its services were started; nothing when it serves.

    .PARAMETER State
    From Get-WebfarmRunState, before the change.

    .PARAMETER Path
    The applicationHost.config.

    .PARAMETER WarmUp
    Send a request to every started site.

    .PARAMETER Url
    URLs to verify.

    .PARAMETER TimeoutSeconds
    What the requests may take.

    .PARAMETER Since
    UTC time at which the services were started: the event log is read from there on.

    .PARAMETER Warning
    A list that receives warnings.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [object]
        $State,

        [Parameter(Mandatory = $true)]
        [string]
        $Path,

        [Parameter(Mandatory = $true)]
        [DateTime]
        $Since,

        [Parameter()]
        [bool]
        $WarmUp = $true,

        [Parameter()]
        [object[]]
        $Url = @(),

        [Parameter(Mandatory = $true)]
        [int]
        $TimeoutSeconds,

        [Parameter(Mandatory = $true)]
        [AllowEmptyCollection()]
        [System.Collections.Generic.List[string]]
        $Warning
    )

    $was = Test-WebfarmRunning -State $State -Name 'WAS'
    $pools = @()
    if ($was -and [WebfarmService]::Query('WAS').Status -eq 'running') {
        $pools = @(Get-WebfarmRuntimeObject -Kind apppool)
    }
    $problems = @(Get-WebfarmServiceProblem -State $State -Path $Path -Pool $pools)
    # Requests tell nothing new about a server whose services are down.
    if ($problems.Count -gt 0) {
        return $problems
    }
    if (-not (Test-WebfarmRunning -State $State -Name 'W3SVC')) {
        return
    }
    $configuration = [WebfarmConfiguration]::Load($Path)
    $found = New-Object -TypeName System.Collections.Generic.List[string]
    $sites = @(Wait-WebfarmSite -State $State -TimeoutSeconds $TimeoutSeconds)
    foreach ($site in $sites) {
        if ($site.due -and $site.state -ne 'Started') {
            $found.Add("the site $($site.name) is $($site.state), it was Started")
        }
    }
    if ($WarmUp -and $found.Count -eq 0) {
        $targets = @(Get-WebfarmWarmUpTarget -State $State -Configuration $configuration -Site $sites -Pool $pools)
        foreach ($problem in Get-WebfarmWarmUpProblem -Target $targets -TimeoutSeconds $TimeoutSeconds -Warning $Warning) {
            $found.Add($problem)
        }
        if ($found.Count -eq 0) {
            foreach ($problem in Get-WebfarmWorkerProblem -Target $targets) {
                $found.Add($problem)
            }
        }
    }
    foreach ($problem in Get-WebfarmUrlProblem -Url $Url -Configuration $configuration -TimeoutSeconds $TimeoutSeconds) {
        $found.Add($problem)
    }
    if ($WarmUp -and $was -and $found.Count -eq 0) {
        # The first request makes a pool start its worker: one whose identity is wrong is disabled only now.
        $pools = @(Get-WebfarmRuntimeObject -Kind apppool)
        foreach ($problem in Get-WebfarmServiceProblem -State $State -Path $Path -Pool $pools) {
            $found.Add($problem)
        }
    }
    foreach ($problem in Get-WebfarmEventProblem -Since $Since) {
        $found.Add($problem)
    }
    return $found.ToArray()
}

Export-ModuleMember -Function @(
    'Assert-WebfarmRestartable'
    'Get-WebfarmHealthProblem'
    'Get-WebfarmRunningConsumer'
    'Get-WebfarmRunState'
    'Get-WebfarmStartType'
    'Get-WebfarmWantedState'
    'Restore-WebfarmRuntime'
    'Restore-WebfarmStartType'
    'Set-WebfarmManualStart'
    'Start-WebfarmConsumer'
    'Stop-WebfarmConsumer'
    'Test-WebfarmRunning'
)
