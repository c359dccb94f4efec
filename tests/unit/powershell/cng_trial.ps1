# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs the self-test's trial with CNG keys against a small key store of its own, in the variants that Windows might turn out to be. The argument
# is a JSON file: csharp (the C# files), add_type (Ansible's compiler), library (_Selftest.psm1), variants. Prints for each what was found,
# the answers, and the keys that are left. The store uses .NET's classes for cryptography, not the collection's code.
param (
    [Parameter(Mandatory = $true)]
    [string]
    $Path
)

$ErrorActionPreference = 'Stop'
$store = @'
using System;
using System.Collections.Generic;
using System.Linq;
using System.Security.Cryptography;
using System.Text;
using ansible_collections.webfarm.iis.plugins.module_utils._ScratchKey;

//TypeAccelerator -Name WebfarmKeyStore -TypeName WebfarmKeyStore

namespace WebfarmTrial
{
    public class StoredKey
    {
        public byte[] Secret;
        public int Policy;
        public bool Persistent;
    }

    public class WebfarmKeyStore : WebfarmScratchCalls
    {
        public string Field = "sha256", Padding = "pkcs7", Refuse = "";
        public bool Verify = true, Dll = true;
        public Dictionary<string, StoredKey> Keys = new Dictionary<string, StoredKey>();
        public List<string> Names = new List<string>();
        private readonly Dictionary<IntPtr, string> handles = new Dictionary<IntPtr, string>();
        private int last = 100;
        public int Open { get { return handles.Count; } }

        private IntPtr Handle(string name)
        {
            IntPtr handle = new IntPtr(++last);
            handles[handle] = name;
            return handle;
        }

        private StoredKey Of(IntPtr handle) { return Keys[handles[handle]]; }

        public override uint OpenProvider(out IntPtr provider) { provider = Handle(""); return 0; }

        public override uint OpenKey(IntPtr provider, string name, uint flags, out IntPtr key)
        {
            Names.Add(name);
            key = IntPtr.Zero;
            if (!Keys.ContainsKey(name) || !Keys[name].Persistent) return 0x80090016;
            key = Handle(name);
            return 0;
        }

        public override uint CreateKey(IntPtr provider, string name, out IntPtr key)
        {
            Names.Add(name);
            key = IntPtr.Zero;
            if (Refuse == "create") return 0x80090029;
            if (Keys.ContainsKey(name)) return 0x8009000F;
            Keys[name] = new StoredKey { Secret = RandomNumberGenerator.GetBytes(32) };
            key = Handle(name);
            return 0;
        }

        public override uint SetProperty(IntPtr key, string name, byte[] value)
        {
            if (name == "KDFKeySecret" && Refuse == "secret") return 0x80090029;
            if (name == "KDFKeySecret") Of(key).Secret = (byte[])value.Clone();
            else Of(key).Policy = BitConverter.ToInt32(value, 0);
            return 0;
        }

        public override uint FinishKey(IntPtr key) { Of(key).Persistent = true; return 0; }

        public override uint GetProperty(IntPtr handle, string name, byte[] data, out int length, uint flags)
        {
            byte[] value = null;
            if (name == "Unique Name") value = Encoding.Unicode.GetBytes(FileName(handles[handle]) + "\0");
            if (name == "Export Policy") value = BitConverter.GetBytes(Of(handle).Policy);
            if (name == "Length") value = BitConverter.GetBytes(256);
            length = value == null ? 0 : value.Length;
            if (value == null) return 0x80090011;
            if (data != null) Array.Copy(value, data, Math.Min(value.Length, data.Length));
            return 0;
        }

        public override uint Export(IntPtr key, string type, byte[] data, out int length)
        {
            length = 0;
            if ((Of(key).Policy & 2) == 0) return 0x80090029;
            byte[] algorithm = Encoding.Unicode.GetBytes("SP800_108_CTR_HMAC\0");
            byte[] blob = BitConverter.GetBytes(16).Concat(Encoding.ASCII.GetBytes("KDF1")).Concat(BitConverter.GetBytes(algorithm.Length))
                .Concat(BitConverter.GetBytes(32)).Concat(algorithm).Concat(Of(key).Secret).ToArray();
            length = blob.Length;
            if (data != null) blob.CopyTo(data, 0);
            return 0;
        }

        public override uint Import(IntPtr provider, string type, string name, byte[] blob, out IntPtr key)
        {
            Names.Add(name);
            key = IntPtr.Zero;
            if (Refuse == "import") return 0x80090029;
            Keys[name] = new StoredKey { Secret = blob.Skip(blob.Length - 32).ToArray() };
            key = Handle(name);
            return 0;
        }

        private static byte[] Derived(byte[] secret)
        {
            byte[] input = new byte[] { 0, 0, 0, 1 }.Concat(Encoding.Unicode.GetBytes("EncryptionLabel\0")).Concat(new byte[] { 0 })
                .Concat(Encoding.Unicode.GetBytes("EncryptionContext\0")).Concat(new byte[] { 0, 0, 1, 0 }).ToArray();
            return HMACSHA256.HashData(secret, input);
        }

        public override uint Derive(IntPtr key, byte[] output) { Derived(Of(key).Secret).CopyTo(output, 0); return 0; }

        public override uint Delete(IntPtr key)
        {
            if (Refuse == "delete") return 0x80090010;
            Keys.Remove(handles[key]);
            handles.Remove(key);
            return 0;
        }

        public override void Free(IntPtr handle)
        {
            if (!handles.Remove(handle)) throw new InvalidOperationException("a handle was freed twice");
        }

        public override string Sddl(byte[] descriptor, uint parts) { return null; }

        private byte[] FieldOf(byte[] secret, byte[] ended)
        {
            byte[] text = ended.Take(ended.Length - 2).ToArray();
            if (Field == "sha256") return SHA256.HashData(text);
            if (Field == "hmac") return HMACSHA256.HashData(Derived(secret), ended);
            return SHA256.HashData(secret);
        }

        public override uint Encrypt(string name, byte[] text, byte[] output, out int length)
        {
            Names.Add(name);
            if (!Dll) throw new DllNotFoundException("cngkeyhelper.dll");
            int fill = 16 - text.Length % 16;
            byte[] clear = text.Concat(Enumerable.Repeat((byte)(Padding == "pkcs7" ? fill : 0), fill)).ToArray();
            length = 48 + clear.Length;
            if (output == null) return 0;
            byte[] iv = RandomNumberGenerator.GetBytes(16);
            using (Aes aes = Aes.Create())
            {
                aes.Key = Derived(Keys[name].Secret);
                iv.Concat(FieldOf(Keys[name].Secret, text)).Concat(aes.EncryptCbc(clear, iv, PaddingMode.None)).ToArray().CopyTo(output, 0);
            }
            return 0;
        }

        public override uint Decrypt(string name, byte[] data, ref int length)
        {
            Names.Add(name);
            using (Aes aes = Aes.Create())
            {
                aes.Key = Derived(Keys[name].Secret);
                byte[] clear = aes.DecryptCbc(data.Skip(48).ToArray(), data.Take(16).ToArray(), PaddingMode.None);
                int end = Enumerable.Range(0, clear.Length / 2).First(i => i == clear.Length / 2 - 1 || clear[2 * i] == 0 && clear[2 * i + 1] == 0) * 2 + 2;
                byte[] ended = clear.Take(end).ToArray();
                if (Verify && !FieldOf(Keys[name].Secret, ended).SequenceEqual(data.Skip(16).Take(32))) return 0x80090005;
                ended.CopyTo(data, 0);
                length = end;
            }
            return 0;
        }

        public override string FileName(string name) { return "prefix_" + name; }
        public override byte[] Sha256(byte[] data) { return SHA256.HashData(data); }
        public override byte[] Random(int length) { return RandomNumberGenerator.GetBytes(length); }

        public override byte[] OpenAes(byte[] key, byte[] iv, byte[] data)
        {
            using (Aes aes = Aes.Create())
            {
                aes.Key = key;
                return aes.DecryptCbc(data, iv, PaddingMode.None);
            }
        }
    }
}
'@
. ([System.IO.Path]::Combine($PSScriptRoot, 'work.ps1')) -List $Path -More $store
$library = [ScriptBlock]::Create([System.IO.File]::ReadAllText($work.library))
New-Module -Name Selftest -ScriptBlock $library | Import-Module -WarningAction SilentlyContinue

$results = foreach ($variant in $work.variants) {
    $keys = New-Object -TypeName WebfarmKeyStore
    foreach ($property in $variant.PSObject.Properties) {
        $keys.($property.Name) = $property.Value
    }
    $trial = New-Object -TypeName WebfarmCngTrial -ArgumentList $keys
    $trial.Run()
    $left = @($trial.Existing())
    $removed = try {
        @($trial.Remove())
    }
    catch {
        $_.Exception.GetBaseException().Message
    }
    @{
        found = $trial.Found
        answers = @(ConvertTo-WebfarmCngAnswer -Found $trial.Found)
        left = $left
        removed = @($removed)
        still = @($keys.Keys.Keys)
        handles = $keys.Open
        names = @($keys.Names | Sort-Object -Unique)
    }
}
$refused = foreach ($name in $work.names) {
    try {
        [WebfarmScratch]::Require($name)
        "$name is taken"
    }
    catch {
        $_.Exception.GetBaseException().Message
    }
}
ConvertTo-Json -InputObject @{ variants = @($results); refused = @($refused) } -Compress -Depth 6
