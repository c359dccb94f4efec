// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// FOR INTERNAL COLLECTION USE ONLY
// The interfaces in this file are meant for use within the webfarm.iis collection
// and may change in any release, even a bugfix release.

// The CNG keys of IIS 10 as NCrypt shows them: does the key open, what may be exported, who may use it. Nothing is created, exported or
// used for decryption. Not verified on Windows: written after the documentation and tested against recorded answers. A host whose NCrypt
// cannot do it says so, and the key file remains what is known.

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;

//TypeAccelerator -Name WebfarmCngKey -TypeName WebfarmCngKey
//TypeAccelerator -Name WebfarmCngInfo -TypeName WebfarmCngInfo
//TypeAccelerator -Name WebfarmCngCalls -TypeName WebfarmCngCalls

namespace ansible_collections.webfarm.iis.plugins.module_utils._CngKey
{
    /// <summary>What NCrypt says about one machine key.</summary>
    public class WebfarmCngInfo
    {
        /// <summary>
        /// opened; other (a key opened, but it is not the file that was expected: a CryptoAPI container of the same name); missing; denied;
        /// damaged; unavailable (this host's NCrypt cannot tell).
        /// </summary>
        public string State { get; internal set; }
        /// <summary>The file name of the key that opened.</summary>
        public string UniqueName { get; internal set; }
        public string Algorithm { get; internal set; }
        /// <summary>NCRYPT_ALLOW_EXPORT_FLAG and so on, null when it cannot be read.</summary>
        public int? ExportPolicy { get; internal set; }
        /// <summary>The policy in words: export, plaintext_export, archiving, plaintext_archiving.</summary>
        public string[] ExportPolicyNames { get; internal set; }
        /// <summary>Owner, group and DACL.</summary>
        public string Sddl { get; internal set; }
        /// <summary>HRESULT of what failed, 0 when nothing did.</summary>
        public uint Error { get; internal set; }
        public string ErrorMessage { get; internal set; }
    }

    /// <summary>The calls into NCrypt, one place to replace them in tests.</summary>
    public class WebfarmCngCalls
    {
        public virtual uint OpenProvider(out IntPtr provider)
        {
            // The default is the Microsoft Software Key Storage Provider, which IIS uses.
            return CngNative.NCryptOpenStorageProvider(out provider, null, 0);
        }

        public virtual uint OpenKey(IntPtr provider, string name, uint flags, out IntPtr key)
        {
            return CngNative.NCryptOpenKey(provider, out key, name, 0, flags);
        }

        public virtual uint GetProperty(IntPtr handle, string name, byte[] data, out int length, uint flags)
        {
            return CngNative.NCryptGetProperty(handle, name, data, data == null ? 0 : data.Length, out length, flags);
        }

        public virtual void Free(IntPtr handle)
        {
            CngNative.NCryptFreeObject(handle);
        }

        /// <summary>SDDL of a security descriptor.</summary>
        public virtual string Sddl(byte[] descriptor, uint parts)
        {
            IntPtr text;
            uint length;
            if (!CngNative.ConvertSecurityDescriptorToStringSecurityDescriptorW(descriptor, 1, parts, out text, out length)) return null;
            try
            {
                return Marshal.PtrToStringUni(text);
            }
            finally
            {
                CngNative.LocalFree(text);
            }
        }
    }

    internal static class CngNative
    {
        [DllImport("ncrypt.dll", CharSet = CharSet.Unicode)]
        [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
        internal static extern uint NCryptOpenStorageProvider(out IntPtr provider, string name, uint flags);

        [DllImport("ncrypt.dll", CharSet = CharSet.Unicode)]
        [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
        internal static extern uint NCryptOpenKey(IntPtr provider, out IntPtr key, string name, uint legacySpec, uint flags);

        [DllImport("ncrypt.dll", CharSet = CharSet.Unicode)]
        [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
        internal static extern uint NCryptGetProperty(IntPtr handle, string name, byte[] data, int size, out int length, uint flags);

        [DllImport("ncrypt.dll")]
        [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
        internal static extern uint NCryptFreeObject(IntPtr handle);

        [DllImport("advapi32.dll", SetLastError = true, CharSet = CharSet.Unicode)]
        internal static extern bool ConvertSecurityDescriptorToStringSecurityDescriptorW(byte[] descriptor, uint revision, uint parts, out IntPtr text,
            out uint length);

        [DllImport("kernel32.dll")]
        internal static extern IntPtr LocalFree(IntPtr memory);
    }

    public static class WebfarmCngKey
    {
        private const uint MachineKey = 0x20, Silent = 0x40;
        private const uint SecurityParts = 7; // owner, group, DACL
        private const uint NteBadKeySet = 0x80090016, NteNotFound = 0x80090011, NteNoKey = 0x8009000D;
        private const uint NtePerm = 0x80090010, AccessDenied = 0x80070005;
        private const uint NteBadData = 0x80090005, NteBadKeyState = 0x8009000B, NteKeySetEntryBad = 0x8009001A, NteDecryption = 0x8009002C;
        private static readonly string[] PolicyNames = { "export", "plaintext_export", "archiving", "plaintext_archiving" };

        /// <summary>Looks at a machine key. Opens an existing key only, silently. Never throws for the key's own trouble.</summary>
        /// <param name="expectedFile">the file name that the key has by the naming rule</param>
        public static WebfarmCngInfo Inspect(string name, string expectedFile)
        {
            return Inspect(name, expectedFile, new WebfarmCngCalls());
        }

        public static WebfarmCngInfo Inspect(string name, string expectedFile, WebfarmCngCalls calls)
        {
            WebfarmCngInfo info = new WebfarmCngInfo();
            info.ExportPolicyNames = new string[0];
            IntPtr provider = IntPtr.Zero;
            IntPtr key = IntPtr.Zero;
            try
            {
                uint status = calls.OpenProvider(out provider);
                if (status != 0) return Unavailable(info, status, "NCrypt opens no key storage provider");
                status = calls.OpenKey(provider, name, MachineKey | Silent, out key);
                if (status != 0) return Failed(info, status);
                Read(info, calls, key);
                if (info.UniqueName == null)
                {
                    // Without the file name it is not known which key opened.
                    info.State = "unavailable";
                    info.ErrorMessage = "NCrypt does not tell the file name of the key that it opened";
                }
                else if (!String.Equals(info.UniqueName, expectedFile, StringComparison.OrdinalIgnoreCase))
                {
                    // NCrypt falls back to a CryptoAPI container of the same name.
                    info.State = "other";
                    info.ErrorMessage = String.Format("NCrypt opened {0}, which is not a CNG key of that name", info.UniqueName);
                }
                else
                {
                    info.State = "opened";
                }
                return info;
            }
            catch (DllNotFoundException e)
            {
                return Unavailable(info, 0, e.Message);
            }
            catch (EntryPointNotFoundException e)
            {
                return Unavailable(info, 0, e.Message);
            }
            finally
            {
                if (key != IntPtr.Zero) calls.Free(key);
                if (provider != IntPtr.Zero) calls.Free(provider);
            }
        }

        private static WebfarmCngInfo Unavailable(WebfarmCngInfo info, uint status, string message)
        {
            info.State = "unavailable";
            info.Error = Code(status);
            info.ErrorMessage = message;
            return info;
        }

        private static WebfarmCngInfo Failed(WebfarmCngInfo info, uint status)
        {
            uint code = Code(status);
            info.Error = code;
            info.ErrorMessage = String.Format("NCryptOpenKey failed: 0x{0:X8}", code);
            if (code == NteBadKeySet || code == NteNotFound) info.State = "missing";
            else if (code == NtePerm || code == AccessDenied) info.State = "denied";
            else if (code == NteBadData || code == NteBadKeyState || code == NteKeySetEntryBad || code == NteDecryption || code == NteNoKey) info.State = "damaged";
            else info.State = "unavailable";
            return info;
        }

        // NCrypt returns a status instead of setting the last error; plain Win32 codes become HRESULTs.
        private static uint Code(uint status)
        {
            return status != 0 && (status & 0x80000000) == 0 ? 0x80070000 | (status & 0xFFFF) : status;
        }

        private static void Read(WebfarmCngInfo info, WebfarmCngCalls calls, IntPtr key)
        {
            info.UniqueName = Text(Property(calls, key, "Unique Name", 0));
            info.Algorithm = Text(Property(calls, key, "Algorithm Name", 0));
            byte[] policy = Property(calls, key, "Export Policy", 0);
            if (policy != null && policy.Length == 4)
            {
                info.ExportPolicy = BitConverter.ToInt32(policy, 0);
                List<string> names = new List<string>();
                for (int bit = 0; bit < PolicyNames.Length; bit++)
                    if ((info.ExportPolicy.Value & (1 << bit)) != 0) names.Add(PolicyNames[bit]);
                info.ExportPolicyNames = names.ToArray();
            }
            byte[] descriptor = Property(calls, key, "Security Descr", SecurityParts);
            if (descriptor != null && descriptor.Length >= 20) info.Sddl = calls.Sddl(descriptor, SecurityParts);
        }

        // A property that a key does not have, as the length of a key-derivation key, is simply not known.
        private static byte[] Property(WebfarmCngCalls calls, IntPtr key, string name, uint flags)
        {
            int length;
            if (calls.GetProperty(key, name, null, out length, flags) != 0 || length <= 0 || length > 65536) return null;
            byte[] data = new byte[length];
            if (calls.GetProperty(key, name, data, out length, flags) != 0 || length < 0 || length > data.Length) return null;
            if (length == data.Length) return data;
            byte[] part = new byte[length];
            Buffer.BlockCopy(data, 0, part, 0, length);
            return part;
        }

        private static string Text(byte[] data)
        {
            if (data == null) return null;
            string text = Encoding.Unicode.GetString(data, 0, data.Length - data.Length % 2).TrimEnd('\0');
            return text.Length == 0 ? null : text;
        }
    }
}
