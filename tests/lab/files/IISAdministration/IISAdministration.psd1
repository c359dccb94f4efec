# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
@{
    RootModule = 'IISAdministration.psm1'
    ModuleVersion = '1.0.0.0'
    GUID = '2f4f8d5c-8b0e-4c0f-9a57-6c5d0a1f7e11'
    Author = 'the webfarm.iis authors'
    Description = 'Stands in for the module of Microsoft in the lab'
    PowerShellVersion = '5.1'
    # Without this PowerShell 7 would look for a Windows PowerShell beside it, which the lab has not.
    CompatiblePSEditions = @('Desktop', 'Core')
    FunctionsToExport = @('Export-IISConfiguration', 'Enable-IISSharedConfig', 'Disable-IISSharedConfig', 'Get-IISSharedConfig')
    CmdletsToExport = @()
    VariablesToExport = @()
    AliasesToExport = @()
}
