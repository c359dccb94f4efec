# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Plays answers of NCrypt to WebfarmCngKey. The argument is a JSON file: source (the C# file), cases (status of the two calls, properties as
# base64). Prints what was understood, as JSON. No part of Windows is called, so that it runs anywhere.
param (
    [Parameter(Mandatory = $true)]
    [string]
    $Path
)

$ErrorActionPreference = 'Stop'
$plan = ConvertFrom-Json -InputObject ([System.IO.File]::ReadAllText($Path))
$code = [System.IO.File]::ReadAllText($plan.source) + @'

namespace WebfarmRecording
{
    public class Recording : ansible_collections.webfarm.iis.plugins.module_utils._CngKey.WebfarmCngCalls
    {
        public uint Provider, Key;
        public uint Flags;
        public string Missing;
        public int Freed;
        public Dictionary<string, string> Properties = new Dictionary<string, string>();

        public override uint OpenProvider(out IntPtr provider)
        {
            if (Missing != null) throw new DllNotFoundException(Missing);
            provider = new IntPtr(Provider == 0 ? 11 : 0);
            return Provider;
        }

        public override uint OpenKey(IntPtr provider, string name, uint flags, out IntPtr key)
        {
            Flags = flags;
            key = new IntPtr(Key == 0 ? 12 : 0);
            return Key;
        }

        public override uint GetProperty(IntPtr handle, string name, byte[] data, out int length, uint flags)
        {
            length = 0;
            string recorded;
            if (handle != new IntPtr(12) || !Properties.TryGetValue(name, out recorded)) return 0x80090011;
            byte[] bytes = Convert.FromBase64String(recorded);
            length = bytes.Length;
            if (data == null) return 0;
            if (data.Length < bytes.Length) return 0x80090028;
            Buffer.BlockCopy(bytes, 0, data, 0, bytes.Length);
            return 0;
        }

        public override void Free(IntPtr handle)
        {
            Freed++;
        }

        public override string Sddl(byte[] descriptor, uint parts)
        {
            return "parts " + parts + ", " + descriptor.Length + " bytes";
        }
    }
}
'@
Add-Type -TypeDefinition $code
$answers = foreach ($case in $plan.cases) {
    $calls = New-Object -TypeName WebfarmRecording.Recording
    $calls.Provider = [System.Convert]::ToUInt32($case.provider, 16)
    $calls.Key = [System.Convert]::ToUInt32($case.key, 16)
    if ($case.missing) {
        # $null would become an empty string.
        $calls.Missing = $case.missing
    }
    foreach ($property in $case.properties.PSObject.Properties) {
        $calls.Properties[$property.Name] = $property.Value
    }
    $info = [ansible_collections.webfarm.iis.plugins.module_utils._CngKey.WebfarmCngKey]::Inspect('iisCngWasKey', $plan.expected, $calls)
    @{
        state = $info.State
        unique_name = $info.UniqueName
        algorithm = $info.Algorithm
        policy = $info.ExportPolicy
        names = @($info.ExportPolicyNames)
        sddl = $info.Sddl
        error = '0x{0:X8}' -f $info.Error
        flags = $calls.Flags
        freed = $calls.Freed
    }
}
ConvertTo-Json -InputObject @($answers) -Compress -Depth 4
