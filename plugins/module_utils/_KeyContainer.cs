// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// FOR INTERNAL COLLECTION USE ONLY
// The interfaces in this file are meant for use within the webfarm.iis collection
// and may change in any release, even a bugfix release.

// CryptoAPI key containers of the machine: look, export, import, delete, access, transport.
// Only CryptoAPI is called, by P/Invoke: it is what IIS itself uses, it works under the FIPS policy (no managed
// algorithm classes), and it is the same in Windows PowerShell 5.1 and PowerShell 7.

using System;
using System.Collections.Generic;
using System.ComponentModel;
using System.IO;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;
using Microsoft.Win32;
using Microsoft.Win32.SafeHandles;

//TypeAccelerator -Name WebfarmKeyContainer -TypeName WebfarmKeyContainer
//TypeAccelerator -Name WebfarmContainerInfo -TypeName WebfarmContainerInfo
//TypeAccelerator -Name WebfarmKeyFile -TypeName WebfarmKeyFile
//TypeAccelerator -Name WebfarmKeyFolder -TypeName WebfarmKeyFolder
//TypeAccelerator -Name WebfarmCryptoException -TypeName WebfarmCryptoException
//TypeAccelerator -Name WebfarmSecret -TypeName WebfarmSecret

namespace ansible_collections.webfarm.iis.plugins.module_utils._KeyContainer
{
    /// <summary>A failed CryptoAPI call. Code is the HRESULT (Win32 codes are mapped to 0x8007xxxx).</summary>
    public class WebfarmCryptoException : Exception
    {
        public uint Code { get; private set; }
        public string Operation { get; private set; }

        public WebfarmCryptoException(uint code, string operation)
            : base(String.Format("{0} failed: 0x{1:X8}{2}", operation, code, SystemText(code)))
        {
            Code = code;
            Operation = operation;
        }

        // The system's own text in the language of the host; "Unknown error (0x...)" would only repeat the code.
        private static string SystemText(uint code)
        {
            string text = new Win32Exception(unchecked((int)code)).Message.Trim().TrimEnd('.');
            return text.Length == 0 || text.IndexOf(code.ToString("X8"), StringComparison.OrdinalIgnoreCase) >= 0 ? "" : ", " + text;
        }

        internal static WebfarmCryptoException Last(string operation)
        {
            return new WebfarmCryptoException(LastCode(), operation);
        }

        internal static uint LastCode()
        {
            uint code = unchecked((uint)Marshal.GetLastWin32Error());
            return (code & 0x80000000) == 0 && code != 0 ? 0x80070000 | (code & 0xFFFF) : code;
        }
    }

    /// <summary>
    /// Key material or clear text in pinned memory that is zeroed on Dispose. It has no property that shows its content,
    /// so that nothing in PowerShell can print, serialise or log it.
    /// </summary>
    public sealed class WebfarmSecret : IDisposable
    {
        private byte[] buffer;
        private GCHandle pin;

        internal WebfarmSecret(int length)
        {
            buffer = new byte[length];
            pin = GCHandle.Alloc(buffer, GCHandleType.Pinned);
        }

        internal byte[] Bytes
        {
            get
            {
                if (buffer == null) throw new ObjectDisposedException("WebfarmSecret");
                return buffer;
            }
        }

        internal WebfarmSecret Take(int offset, int length)
        {
            WebfarmSecret part = new WebfarmSecret(length);
            Buffer.BlockCopy(Bytes, offset, part.buffer, 0, length);
            return part;
        }

        public void Dispose()
        {
            if (buffer == null) return;
            Array.Clear(buffer, 0, buffer.Length);
            pin.Free();
            buffer = null;
            GC.SuppressFinalize(this);
        }

        // A secret that nobody disposed of is zeroed as well.
        ~WebfarmSecret()
        {
            Dispose();
        }

        public override string ToString()
        {
            return "(secret)";
        }
    }

    /// <summary>What is known of a container without changing anything.</summary>
    public class WebfarmContainerInfo
    {
        /// <summary>Name as asked for.</summary>
        public string Name { get; internal set; }
        /// <summary>cryptoapi or cng.</summary>
        public string Store { get; internal set; }
        /// <summary>present, missing (file and open agree), denied, damaged.</summary>
        public string State { get; internal set; }
        public int? Bits { get; internal set; }
        public bool? Exportable { get; internal set; }
        /// <summary>SHA-256 over the SubjectPublicKeyInfo, lower-case hexadecimal; null when unknown.</summary>
        public string Fingerprint { get; internal set; }
        /// <summary>The SubjectPublicKeyInfo itself, DER in base64; null when unknown.</summary>
        public string PublicKey { get; internal set; }
        /// <summary>The file name that this container has on this machine.</summary>
        public string FileExpected { get; internal set; }
        public string FilePath { get; internal set; }
        public bool FileFound { get; internal set; }
        /// <summary>Files of the same container under another machine's GUID (a clone, or a changed MachineGuid).</summary>
        public string[] ForeignFiles { get; internal set; }
        /// <summary>Every file of this container, those of other machine GUIDs and of folders of Windows 2003 included.</summary>
        public WebfarmKeyFile[] Files { get; internal set; }
        /// <summary>exchange or signature: which key pair was read; null when none was.</summary>
        public string KeySpec { get; internal set; }
        public string Sddl { get; internal set; }
        public DateTime? Created { get; internal set; }
        public DateTime? Modified { get; internal set; }
        /// <summary>HRESULT of what failed, 0 when nothing did.</summary>
        public uint Error { get; internal set; }
        public string ErrorMessage { get; internal set; }
    }

    /// <summary>A key file as its name and folder tell.</summary>
    public class WebfarmKeyFile
    {
        public string Path { get; internal set; }
        public string MachineGuid { get; internal set; }
        /// <summary>active (the one that Windows opens), foreign (another machine GUID), legacy (a folder that Windows no longer reads).</summary>
        public string State { get; internal set; }
        public long Size { get; internal set; }
        public DateTime? Created { get; internal set; }
        public DateTime? Modified { get; internal set; }
    }

    /// <summary>What a folder of key files holds, counted up to a bound.</summary>
    public class WebfarmKeyFolder
    {
        public string Path { get; internal set; }
        public bool Exists { get; internal set; }
        /// <summary>Why it could not be listed; null when it could.</summary>
        public string ErrorMessage { get; internal set; }
        public int Files { get; internal set; }
        public long Bytes { get; internal set; }
        /// <summary>false: counting stopped at the bound, there are more.</summary>
        public bool Complete { get; internal set; }
        /// <summary>Files with this machine's GUID, and with another one.</summary>
        public int Own { get; internal set; }
        public int Foreign { get; internal set; }
        /// <summary>The other machine GUIDs that were seen, the most frequent first, ten at most.</summary>
        public string[] ForeignGuids { get; internal set; }
    }

    /// <summary>The public half of a transport container, big-endian base64.</summary>
    public class WebfarmTransport
    {
        public string Container { get; internal set; }
        public string Modulus { get; internal set; }
        public string Exponent { get; internal set; }
    }

    /// <summary>A private key sealed to one or more public keys: AES-256-CBC with a content key wrapped by RSA-OAEP (SHA-1).</summary>
    public class WebfarmSealed
    {
        public string Iv { get; internal set; }
        public string Ciphertext { get; internal set; }
        /// <summary>The content key per recipient, in the order asked for; base64, big-endian.</summary>
        public string[] Wrapped { get; internal set; }
    }

    internal static class NativeMethods
    {
        [DllImport("advapi32.dll", SetLastError = true, CharSet = CharSet.Unicode)]
        internal static extern bool CryptAcquireContextW(out SafeProvider provider, string container, string name, uint type, uint flags);

        [DllImport("advapi32.dll", SetLastError = true, CharSet = CharSet.Unicode, EntryPoint = "CryptAcquireContextW")]
        internal static extern bool CryptDeleteContainer(out IntPtr none, string container, string name, uint type, uint flags);

        [DllImport("advapi32.dll")]
        internal static extern bool CryptReleaseContext(IntPtr provider, uint flags);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptGetUserKey(SafeProvider provider, uint keySpec, out SafeCryptKey key);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptGenKey(SafeProvider provider, uint algorithm, uint flags, out SafeCryptKey key);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptImportKey(SafeProvider provider, byte[] data, int length, IntPtr key, uint flags, out SafeCryptKey imported);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptImportKey(SafeProvider provider, byte[] data, int length, SafeCryptKey key, uint flags, out SafeCryptKey imported);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptExportKey(SafeCryptKey key, IntPtr exchangeKey, uint type, uint flags, byte[] data, ref int length);

        [DllImport("advapi32.dll")]
        internal static extern bool CryptDestroyKey(IntPtr key);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptGetKeyParam(SafeCryptKey key, uint parameter, byte[] data, ref int length, uint flags);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptSetKeyParam(SafeCryptKey key, uint parameter, byte[] data, uint flags);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptGetProvParam(SafeProvider provider, uint parameter, byte[] data, ref int length, uint flags);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptSetProvParam(SafeProvider provider, uint parameter, byte[] data, uint flags);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptEncrypt(SafeCryptKey key, IntPtr hash, bool final, uint flags, byte[] data, ref int length, int size);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptDecrypt(SafeCryptKey key, IntPtr hash, bool final, uint flags, byte[] data, ref int length);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptCreateHash(SafeProvider provider, uint algorithm, IntPtr key, uint flags, out SafeCryptHash hash);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptHashData(SafeCryptHash hash, byte[] data, int length, uint flags);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptGetHashParam(SafeCryptHash hash, uint parameter, byte[] data, ref int length, uint flags);

        [DllImport("advapi32.dll")]
        internal static extern bool CryptDestroyHash(IntPtr hash);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptGenRandom(SafeProvider provider, int length, byte[] data);

        [DllImport("advapi32.dll", SetLastError = true, CharSet = CharSet.Unicode)]
        internal static extern bool ConvertSecurityDescriptorToStringSecurityDescriptorW(byte[] descriptor, uint revision, uint parts, out IntPtr text, out uint length);

        [DllImport("advapi32.dll", SetLastError = true, CharSet = CharSet.Unicode)]
        internal static extern bool ConvertStringSecurityDescriptorToSecurityDescriptorW(string text, uint revision, out IntPtr descriptor, out uint length);

        [DllImport("advapi32.dll", SetLastError = true, CharSet = CharSet.Unicode)]
        internal static extern bool GetFileSecurityW(string file, uint parts, byte[] descriptor, int length, out int needed);

        [DllImport("advapi32.dll", SetLastError = true, CharSet = CharSet.Unicode)]
        internal static extern bool SetFileSecurityW(string file, uint parts, IntPtr descriptor);

        [DllImport("kernel32.dll")]
        internal static extern IntPtr GetCurrentProcess();

        [DllImport("kernel32.dll")]
        internal static extern bool CloseHandle(IntPtr handle);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool OpenProcessToken(IntPtr process, uint access, out IntPtr token);

        [DllImport("advapi32.dll", SetLastError = true, CharSet = CharSet.Unicode)]
        internal static extern bool LookupPrivilegeValueW(string system, string name, out long luid);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool AdjustTokenPrivileges(IntPtr token, bool disableAll, ref TokenPrivilege wanted, uint size, IntPtr previous, IntPtr needed);

        [StructLayout(LayoutKind.Sequential, Pack = 4)]
        internal struct TokenPrivilege
        {
            public uint Count;
            public long Luid;
            public uint Attributes;
        }

        [DllImport("kernel32.dll")]
        internal static extern IntPtr LocalFree(IntPtr memory);

        [DllImport("crypt32.dll", SetLastError = true, CharSet = CharSet.Unicode)]
        internal static extern bool CryptProtectData(ref DataBlob data, string description, IntPtr entropy, IntPtr reserved, IntPtr prompt, uint flags, ref DataBlob output);

        [DllImport("crypt32.dll", SetLastError = true, CharSet = CharSet.Unicode)]
        internal static extern bool CryptUnprotectData(ref DataBlob data, IntPtr description, IntPtr entropy, IntPtr reserved, IntPtr prompt, uint flags, ref DataBlob output);

        [StructLayout(LayoutKind.Sequential)]
        internal struct DataBlob
        {
            public int Length;
            public IntPtr Data;
        }
    }

    internal sealed class SafeProvider : SafeHandleZeroOrMinusOneIsInvalid
    {
        public SafeProvider() : base(true) { }

        protected override bool ReleaseHandle()
        {
            return NativeMethods.CryptReleaseContext(handle, 0);
        }
    }

    internal sealed class SafeCryptKey : SafeHandleZeroOrMinusOneIsInvalid
    {
        public SafeCryptKey() : base(true) { }

        protected override bool ReleaseHandle()
        {
            return NativeMethods.CryptDestroyKey(handle);
        }
    }

    internal sealed class SafeCryptHash : SafeHandleZeroOrMinusOneIsInvalid
    {
        public SafeCryptHash() : base(true) { }

        protected override bool ReleaseHandle()
        {
            return NativeMethods.CryptDestroyHash(handle);
        }
    }

    /// <summary>The CryptoAPI calls that the libraries share, with the field's constants (wincrypt.h).</summary>
    internal static class CryptoApi
    {
        internal const uint ProvRsaAes = 24;
        internal const uint NewKeySet = 0x8, DeleteKeySet = 0x10, MachineKeySet = 0x20, Silent = 0x40, VerifyContext = 0xF0000000;
        internal const uint KeyExchange = 1, Signature = 2;
        internal const uint SimpleBlobType = 1, PublicBlobType = 6, PrivateBlobType = 7, PlainTextBlobType = 8;
        internal const uint Exportable = 1, Oaep = 0x40;
        internal const uint AlgMd5 = 0x8003, AlgSha256 = 0x800C, AlgRsaKeyExchange = 0xA400;
        internal const uint AlgAes128 = 0x660E, AlgAes192 = 0x660F, AlgAes256 = 0x6610;
        internal const uint ParamIv = 1, ParamPermissions = 6, ParamHashValue = 2, ParamSecurityDescriptor = 8;
        internal const uint PermissionExport = 4;
        internal const uint Owner = 1, Group = 2, Dacl = 4;
        internal const uint NteBadKeySet = 0x80090016, NteExists = 0x8009000F, NteNoKey = 0x8009000D, NtePerm = 0x80090010;
        internal const uint AccessDenied = 0x80070005, FileNotFound = 0x80070002;
        internal const uint NteBadData = 0x80090005, NteBadLength = 0x80090004, NteBadKeyState = 0x8009000B;

        /// <summary>A context without persistent keys: what is imported into it disappears with it.</summary>
        internal static SafeProvider Ephemeral()
        {
            SafeProvider provider;
            if (!NativeMethods.CryptAcquireContextW(out provider, null, null, ProvRsaAes, VerifyContext | Silent))
                throw WebfarmCryptoException.Last("opening a temporary CryptoAPI context");
            return provider;
        }

        /// <summary>Opens an existing machine container, never creates one.</summary>
        internal static SafeProvider Open(string container)
        {
            Require(container);
            SafeProvider provider;
            if (!NativeMethods.CryptAcquireContextW(out provider, container, null, ProvRsaAes, MachineKeySet | Silent))
                throw WebfarmCryptoException.Last(String.Format("opening key container '{0}'", container));
            return provider;
        }

        // An empty name would mean the default container of the user.
        internal static void Require(string container)
        {
            if (String.IsNullOrEmpty(container)) throw new ArgumentException("a key container needs a name");
        }

        internal static SafeCryptKey UserKey(SafeProvider provider, string container)
        {
            SafeCryptKey key;
            if (!NativeMethods.CryptGetUserKey(provider, KeyExchange, out key))
                throw WebfarmCryptoException.Last(String.Format("opening the key pair of container '{0}'", container));
            return key;
        }

        internal static SafeCryptKey Import(SafeProvider provider, byte[] blob, uint flags, string operation)
        {
            SafeCryptKey key;
            if (!NativeMethods.CryptImportKey(provider, blob, blob.Length, IntPtr.Zero, flags, out key))
                throw WebfarmCryptoException.Last(operation);
            return key;
        }

        internal static SafeCryptKey ImportAes(SafeProvider provider, byte[] key, byte[] iv)
        {
            uint algorithm = key.Length == 32 ? AlgAes256 : key.Length == 24 ? AlgAes192 : AlgAes128;
            using (WebfarmSecret blob = new WebfarmSecret(12 + key.Length))
            {
                byte[] header = { (byte)PlainTextBlobType, 2, 0, 0, (byte)algorithm, (byte)(algorithm >> 8), 0, 0, (byte)key.Length, 0, 0, 0 };
                Buffer.BlockCopy(header, 0, blob.Bytes, 0, 12);
                Buffer.BlockCopy(key, 0, blob.Bytes, 12, key.Length);
                SafeCryptKey handle = Import(provider, blob.Bytes, 0, "importing an AES key");
                if (iv != null && !NativeMethods.CryptSetKeyParam(handle, ParamIv, iv, 0))
                {
                    handle.Dispose();
                    throw WebfarmCryptoException.Last("setting the IV of an AES key");
                }
                return handle;
            }
        }

        internal static byte[] Random(SafeProvider provider, int length)
        {
            byte[] data = new byte[length];
            if (!NativeMethods.CryptGenRandom(provider, length, data)) throw WebfarmCryptoException.Last("CryptGenRandom");
            return data;
        }

        internal static byte[] Hash(uint algorithm, byte[] data)
        {
            using (SafeProvider provider = Ephemeral())
            {
                SafeCryptHash hash;
                if (!NativeMethods.CryptCreateHash(provider, algorithm, IntPtr.Zero, 0, out hash))
                    throw WebfarmCryptoException.Last("CryptCreateHash");
                using (hash)
                {
                    int length = algorithm == AlgMd5 ? 16 : 32;
                    byte[] value = new byte[length];
                    if (!NativeMethods.CryptHashData(hash, data, data.Length, 0)
                        || !NativeMethods.CryptGetHashParam(hash, ParamHashValue, value, ref length, 0))
                        throw WebfarmCryptoException.Last("hashing");
                    return value;
                }
            }
        }

        internal static string Hex(byte[] data)
        {
            StringBuilder text = new StringBuilder(data.Length * 2);
            foreach (byte b in data) text.Append(b.ToString("x2"));
            return text.ToString();
        }

        internal static byte[] Reverse(byte[] data)
        {
            byte[] copy = (byte[])data.Clone();
            Array.Reverse(copy);
            return copy;
        }

        internal static byte[] Slice(byte[] data, int offset, int length)
        {
            byte[] part = new byte[length];
            Buffer.BlockCopy(data, offset, part, 0, length);
            return part;
        }

        internal static string SddlText(byte[] descriptor, uint parts)
        {
            IntPtr text;
            uint length;
            if (!NativeMethods.ConvertSecurityDescriptorToStringSecurityDescriptorW(descriptor, 1, parts, out text, out length))
                throw WebfarmCryptoException.Last("reading a security descriptor");
            try
            {
                return Marshal.PtrToStringUni(text);
            }
            finally
            {
                NativeMethods.LocalFree(text);
            }
        }

        internal static byte[] SddlBytes(string sddl)
        {
            IntPtr descriptor;
            uint length;
            if (!NativeMethods.ConvertStringSecurityDescriptorToSecurityDescriptorW(sddl, 1, out descriptor, out length))
                throw WebfarmCryptoException.Last(String.Format("reading the SDDL text '{0}'", sddl));
            try
            {
                byte[] bytes = new byte[length];
                Marshal.Copy(descriptor, bytes, 0, (int)length);
                return bytes;
            }
            finally
            {
                NativeMethods.LocalFree(descriptor);
            }
        }
    }

    /// <summary>An RSA public key as CryptoAPI blobs give it.</summary>
    internal sealed class RsaBlob
    {
        internal int Bits;
        internal byte[] Modulus;   // big-endian
        internal byte[] Exponent;  // big-endian, without leading zeros
        internal bool IsPrivate;
        internal uint Algorithm;

        // BLOBHEADER (8 bytes), RSAPUBKEY (12 bytes), modulus little-endian: SDK "RSA/Schannel key BLOBs".
        internal static RsaBlob Parse(byte[] blob)
        {
            if (blob == null || blob.Length < 20) throw new ArgumentException("an RSA key blob has at least 20 bytes");
            RsaBlob key = new RsaBlob();
            key.IsPrivate = blob[0] == CryptoApi.PrivateBlobType;
            if (!key.IsPrivate && blob[0] != CryptoApi.PublicBlobType)
                throw new ArgumentException(String.Format("blob type {0} is neither a public nor a private RSA key", blob[0]));
            if (blob[1] != 2) throw new ArgumentException(String.Format("blob version {0} is not 2", blob[1]));
            key.Algorithm = BitConverter.ToUInt32(blob, 4);
            string magic = Encoding.ASCII.GetString(blob, 8, 4);
            if (magic != (key.IsPrivate ? "RSA2" : "RSA1")) throw new ArgumentException("the blob does not hold an RSA key");
            key.Bits = BitConverter.ToInt32(blob, 12);
            int length = (key.Bits + 7) / 8;
            int half = (key.Bits + 15) / 16;
            int total = 20 + length + (key.IsPrivate ? 5 * half + length : 0);
            if (key.Bits < 384 || key.Bits > 16384 || blob.Length < total)
                throw new ArgumentException(String.Format("an RSA key of {0} bits needs {1} bytes, the blob has {2}", key.Bits, total, blob.Length));
            byte[] exponent = CryptoApi.Reverse(CryptoApi.Slice(blob, 16, 4));
            int zeros = 0;
            while (zeros < 3 && exponent[zeros] == 0) zeros++;
            key.Exponent = CryptoApi.Slice(exponent, zeros, 4 - zeros);
            key.Modulus = CryptoApi.Reverse(CryptoApi.Slice(blob, 20, length));
            return key;
        }

        internal static byte[] PublicBlob(byte[] modulus, byte[] exponent)
        {
            int start = 0;
            while (start < modulus.Length - 1 && modulus[start] == 0) start++;
            byte[] value = CryptoApi.Slice(modulus, start, modulus.Length - start);
            if (value.Length < 128 || exponent.Length == 0 || exponent.Length > 4)
                throw new ArgumentException("the recipient's public key is not an RSA key of at least 1024 bits with an exponent of at most 32 bits");
            byte[] blob = new byte[20 + value.Length];
            byte[] header = { (byte)CryptoApi.PublicBlobType, 2, 0, 0, 0, 0xA4, 0, 0, (byte)'R', (byte)'S', (byte)'A', (byte)'1' };
            Buffer.BlockCopy(header, 0, blob, 0, 12);
            Buffer.BlockCopy(BitConverter.GetBytes(value.Length * 8), 0, blob, 12, 4);
            Buffer.BlockCopy(CryptoApi.Reverse(exponent), 0, blob, 16, exponent.Length);
            Buffer.BlockCopy(CryptoApi.Reverse(value), 0, blob, 20, value.Length);
            return blob;
        }

        /// <summary>SHA-256 over the DER SubjectPublicKeyInfo.</summary>
        internal string Fingerprint()
        {
            return CryptoApi.Hex(CryptoApi.Hash(CryptoApi.AlgSha256, PublicKeyInfo()));
        }

        /// <summary>The DER SubjectPublicKeyInfo (RFC 5280, rsaEncryption with NULL parameters).</summary>
        internal byte[] PublicKeyInfo()
        {
            byte[] algorithm = { 0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01, 0x05, 0x00 };
            byte[] key = Der(0x30, Integer(Modulus), Integer(Exponent));
            return Der(0x30, algorithm, Der(0x03, new byte[] { 0 }, key));
        }

        private static byte[] Integer(byte[] value)
        {
            int start = 0;
            while (start < value.Length - 1 && value[start] == 0) start++;
            byte[] digits = CryptoApi.Slice(value, start, value.Length - start);
            return digits[0] >= 0x80 ? Der(0x02, new byte[] { 0 }, digits) : Der(0x02, digits);
        }

        private static byte[] Der(byte tag, params byte[][] parts)
        {
            MemoryStream content = new MemoryStream();
            foreach (byte[] part in parts) content.Write(part, 0, part.Length);
            int length = (int)content.Length;
            MemoryStream value = new MemoryStream();
            value.WriteByte(tag);
            if (length < 0x80)
            {
                value.WriteByte((byte)length);
            }
            else
            {
                int bytes = length < 0x100 ? 1 : length < 0x10000 ? 2 : 3;
                value.WriteByte((byte)(0x80 | bytes));
                for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) value.WriteByte((byte)(length >> shift));
            }
            content.WriteTo(value);
            return value.ToArray();
        }
    }

    public static class WebfarmKeyContainer
    {
        /// <summary>MachineGuid of this host, the suffix of every machine key file.</summary>
        public static string MachineGuid()
        {
            using (RegistryKey machine = RegistryKey.OpenBaseKey(RegistryHive.LocalMachine, RegistryView.Registry64))
            using (RegistryKey key = machine.OpenSubKey(@"SOFTWARE\Microsoft\Cryptography"))
            {
                string value = key == null ? null : key.GetValue("MachineGuid") as string;
                if (String.IsNullOrEmpty(value))
                    throw new InvalidOperationException(@"HKLM\SOFTWARE\Microsoft\Cryptography has no MachineGuid: no machine key of this host can be found");
                return value;
            }
        }

        /// <summary>Folder of the machine keys of a store (cryptoapi or cng).</summary>
        public static string Folder(string store)
        {
            string data = Environment.GetFolderPath(Environment.SpecialFolder.CommonApplicationData);
            return Path.Combine(data, store == "cng" ? @"Microsoft\Crypto\Keys" : @"Microsoft\Crypto\RSA\MachineKeys");
        }

        /// <summary>
        /// Folder of the machine keys of Windows 2003; null when there is none. On later Windows that path leads, by junctions, to the folder
        /// of today: then it is no second folder.
        /// </summary>
        public static string LegacyFolder(string store)
        {
            string path = Path.GetPathRoot(Environment.GetFolderPath(Environment.SpecialFolder.System));
            string[] parts = { "Documents and Settings", "All Users", "Application Data", "Microsoft", "Crypto", store == "cng" ? "Keys" : @"RSA\MachineKeys" };
            foreach (string part in parts)
            {
                path = Path.Combine(path, part);
                try
                {
                    if ((File.GetAttributes(path) & (FileAttributes.ReparsePoint | FileAttributes.Directory)) != FileAttributes.Directory) return null;
                }
                catch (IOException)
                {
                    return null;
                }
                catch (UnauthorizedAccessException)
                {
                    return null;
                }
            }
            return path;
        }

        // File names are constants where the name is known, so that the usual inventory computes no MD5 at all.
        private static readonly Dictionary<string, string> KnownPrefixes = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase)
        {
            { "cryptoapi iisWasKey", "76944fb33636aeddb9590521c2e8815a" },
            { "cryptoapi iisConfigurationKey", "6de9cb26d2b98c01ec4e9e8b34824aa2" },
            { "cryptoapi NetFrameworkConfigurationKey", "d6d986f09a1ee04e24c949879fdb506c" },
            { "cryptoapi Microsoft Internet Information Server", "c2319c42033a5ca7f44e731bfd3fa2b5" },
            { "cryptoapi WMSvc Certificate Key Container", "bedbf0b4da5f8061b6444baedf4c00b1" },
            { "cryptoapi MS IIS DCOM Server", "7a436fe806e483969f48a894af2fe9a1" },
            { "cryptoapi TSSecKeySet1", "f686aace6942fb7f7ceb231212eef4a4" },
            { "cng iisCngWasKey", "597367cc37b886d7ee6c493e3befb421" },
            { "cng iisCngConfigurationKey", "f0e91f6485ac2d09485e4ec18135601e" },
        };

        /// <summary>
        /// The container that a key file belongs to: one of the known ones by its name, another one by the name that the file itself holds
        /// where that fits the file's own name. Null when neither tells.
        /// </summary>
        public static string NameOfFile(string path, string store)
        {
            string file = Path.GetFileName(path);
            int end = file.IndexOf('_');
            string prefix = end < 0 ? file : file.Substring(0, end);
            foreach (KeyValuePair<string, string> known in KnownPrefixes)
                if (known.Key.StartsWith(store + " ", StringComparison.Ordinal) && String.Equals(known.Value, prefix, StringComparison.OrdinalIgnoreCase))
                    return known.Key.Substring(store.Length + 1);
            byte[] head = new byte[1024];
            int length;
            try
            {
                using (FileStream stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete))
                    length = stream.Read(head, 0, head.Length);
            }
            catch (IOException)
            {
                return null;
            }
            catch (UnauthorizedAccessException)
            {
                return null;
            }
            // CryptoAPI: 10 DWORDs, the third is the length of the name, which follows (ANSI with NUL). CNG: 7 DWORDs and 16 bytes, then UTF-16.
            int start = store == "cng" ? 44 : 40;
            if (length < start) return null;
            int size = BitConverter.ToInt32(head, 8);
            if (size < 1 || size > length - start) return null;
            string name = (store == "cng" ? Encoding.Unicode : Encoding.ASCII).GetString(head, start, size).TrimEnd('\0');
            if (name.Length == 0 || name.IndexOf('\0') >= 0) return null;
            return String.Equals(FilePrefix(name, store), prefix, StringComparison.OrdinalIgnoreCase) ? name : null;
        }

        /// <summary>Counts the key files of a folder. Stops at a number of files or after a time, for folders with millions of them.</summary>
        public static WebfarmKeyFolder ScanFolder(string path, int limit, int milliseconds)
        {
            WebfarmKeyFolder folder = new WebfarmKeyFolder();
            folder.Path = path;
            folder.ForeignGuids = new string[0];
            folder.Complete = true;
            Dictionary<string, int> guids = new Dictionary<string, int>(StringComparer.OrdinalIgnoreCase);
            string own = MachineGuid();
            int began = Environment.TickCount;
            try
            {
                DirectoryInfo directory = new DirectoryInfo(path);
                folder.Exists = directory.Exists;
                if (!folder.Exists) return folder;
                foreach (FileInfo file in directory.EnumerateFiles())
                {
                    if (folder.Files >= limit || ((folder.Files & 255) == 255 && unchecked(Environment.TickCount - began) > milliseconds))
                    {
                        folder.Complete = false;
                        break;
                    }
                    folder.Files++;
                    folder.Bytes += file.Length;
                    string name = file.Name;
                    if (name.Length < 34 || name[32] != '_') continue;
                    string guid = name.Substring(33);
                    if (String.Equals(guid, own, StringComparison.OrdinalIgnoreCase))
                    {
                        folder.Own++;
                        continue;
                    }
                    folder.Foreign++;
                    int seen;
                    if (guids.TryGetValue(guid, out seen)) guids[guid] = seen + 1;
                    else if (guids.Count < 1000) guids.Add(guid, 1);
                }
            }
            catch (IOException e)
            {
                folder.ErrorMessage = e.Message;
            }
            catch (UnauthorizedAccessException e)
            {
                folder.ErrorMessage = e.Message;
            }
            List<string> names = new List<string>(guids.Keys);
            names.Sort(delegate (string a, string b) { return guids[a] != guids[b] ? guids[b].CompareTo(guids[a]) : String.CompareOrdinal(a, b); });
            if (names.Count > 10) names.RemoveRange(10, names.Count - 10);
            folder.ForeignGuids = names.ToArray();
            return folder;
        }

        /// <summary>
        /// The part of a key file's name before the MachineGuid: MD5 of the lower-case name with a final NUL (CryptoAPI ANSI,
        /// CNG UTF-16LE), printed as four little-endian DWORDs. MD5 is computed by CryptCreateHash, which the FIPS policy allows.
        /// </summary>
        public static string FilePrefix(string name, string store)
        {
            string known;
            if (KnownPrefixes.TryGetValue(store + " " + name, out known)) return known;
            Encoding encoding = store == "cng" ? Encoding.Unicode : Encoding.ASCII;
            byte[] digest = CryptoApi.Hash(CryptoApi.AlgMd5, encoding.GetBytes(name.ToLowerInvariant() + "\0"));
            StringBuilder text = new StringBuilder(32);
            for (int word = 0; word < 16; word += 4) text.Append(BitConverter.ToUInt32(digest, word).ToString("x8"));
            return text.ToString();
        }

        /// <summary>Looks at a container. Opens existing keys only, silently, and creates nothing. Never throws for the container's own trouble.</summary>
        public static WebfarmContainerInfo Inspect(string name, string store)
        {
            CryptoApi.Require(name);
            WebfarmContainerInfo info = new WebfarmContainerInfo();
            info.Name = name;
            info.Store = store;
            string prefix = FilePrefix(name, store);
            info.FileExpected = prefix + "_" + MachineGuid();
            for (int attempt = 0; ; attempt++)
            {
                bool listed = FindFiles(info, prefix);
                if (store == "cng") InspectCng(info, listed);
                else InspectCryptoApi(info, listed);
                // A file that is just being deleted or written looks like one that may not be opened: look again before that is said.
                if (info.State == "present" || info.State == "missing" || attempt == 4) return info;
                Thread.Sleep(100);
                info.State = null;
                info.Error = 0;
                info.ErrorMessage = null;
            }
        }

        /// <returns>false when the folder itself cannot be listed: then absence of a file proves nothing.</returns>
        private static bool FindFiles(WebfarmContainerInfo info, string prefix)
        {
            List<string> foreign = new List<string>();
            List<WebfarmKeyFile> files = new List<WebfarmKeyFile>();
            info.ForeignFiles = new string[0];
            info.Files = new WebfarmKeyFile[0];
            info.FilePath = null;
            info.FileFound = false;
            string legacy = LegacyFolder(info.Store);
            if (legacy != null) ListFiles(files, legacy, prefix, info.FileExpected, true);
            bool listed = ListFiles(files, Folder(info.Store), prefix, info.FileExpected, false);
            foreach (WebfarmKeyFile file in files)
            {
                if (file.State == "foreign") foreign.Add(Path.GetFileName(file.Path));
                if (file.State != "active") continue;
                info.FilePath = file.Path;
                info.FileFound = true;
                info.Created = file.Created;
                info.Modified = file.Modified;
            }
            info.ForeignFiles = foreign.ToArray();
            info.Files = files.ToArray();
            return listed;
        }

        private static bool ListFiles(List<WebfarmKeyFile> files, string folder, string prefix, string expected, bool legacy)
        {
            try
            {
                foreach (string path in Directory.GetFiles(folder, prefix + "_*"))
                {
                    FileInfo info = new FileInfo(path);
                    WebfarmKeyFile file = new WebfarmKeyFile();
                    file.Path = path;
                    file.MachineGuid = info.Name.Substring(prefix.Length + 1);
                    bool own = String.Equals(info.Name, expected, StringComparison.OrdinalIgnoreCase);
                    file.State = legacy ? "legacy" : own ? "active" : "foreign";
                    file.Created = info.CreationTimeUtc;
                    file.Modified = info.LastWriteTimeUtc;
                    // A file that has gone meanwhile has no length.
                    file.Size = info.Exists ? info.Length : 0;
                    files.Add(file);
                }
                return true;
            }
            catch (DirectoryNotFoundException)
            {
                return true;
            }
            catch (FileNotFoundException)
            {
                return true;
            }
            catch (UnauthorizedAccessException)
            {
                return false;
            }
        }

        private static void InspectCryptoApi(WebfarmContainerInfo info, bool listed)
        {
            try
            {
                using (SafeProvider provider = CryptoApi.Open(info.Name))
                {
                    info.State = "damaged"; // until the key pair has been read
                    info.Sddl = ReadSddl(provider, info.Name);
                    using (SafeCryptKey key = AnyKey(provider, info))
                    {
                        RsaBlob rsa = RsaBlob.Parse(Export(key, CryptoApi.PublicBlobType, info.Name));
                        info.Bits = rsa.Bits;
                        info.Fingerprint = rsa.Fingerprint();
                        info.PublicKey = Convert.ToBase64String(rsa.PublicKeyInfo());
                        info.Exportable = (Permissions(key) & CryptoApi.PermissionExport) != 0;
                        info.State = "present";
                    }
                }
            }
            catch (WebfarmCryptoException e)
            {
                info.Error = e.Code;
                info.ErrorMessage = e.Message;
                bool notFound = e.Code == CryptoApi.NteBadKeySet || e.Code == CryptoApi.FileNotFound;
                if (notFound && listed && !info.FileFound) info.State = "missing";
                // NTE_BAD_KEYSET is also what a caller without rights gets (SDK, CryptAcquireContext).
                else if (info.State == null && (notFound || e.Code == CryptoApi.AccessDenied || e.Code == CryptoApi.NtePerm)) info.State = "denied";
                else info.State = "damaged";
                if (info.FileFound && IsEmpty(info.FilePath)) info.State = "damaged";
            }
            catch (ArgumentException e)
            {
                info.State = "damaged";
                info.ErrorMessage = e.Message;
            }
        }

        // IIS's own containers hold an exchange pair or nothing of use; those of IIS 6 and of others may hold a signature pair alone.
        private static SafeCryptKey AnyKey(SafeProvider provider, WebfarmContainerInfo info)
        {
            SafeCryptKey key;
            info.KeySpec = "exchange";
            if (NativeMethods.CryptGetUserKey(provider, CryptoApi.KeyExchange, out key)) return key;
            WebfarmCryptoException error = WebfarmCryptoException.Last(String.Format("opening the key pair of container '{0}'", info.Name));
            info.KeySpec = null;
            bool own = KnownPrefixes.ContainsKey("cryptoapi " + info.Name) && info.Name.EndsWith("Key", StringComparison.OrdinalIgnoreCase);
            if (own || error.Code != CryptoApi.NteNoKey || !NativeMethods.CryptGetUserKey(provider, CryptoApi.Signature, out key)) throw error;
            info.KeySpec = "signature";
            return key;
        }

        private static bool IsEmpty(string path)
        {
            FileInfo file = new FileInfo(path);
            return file.Exists && file.Length == 0;
        }

        // A CNG key of IIS is a key-derivation key: it has no public half. Whether it opens is shown by the values that depend on it.
        private static void InspectCng(WebfarmContainerInfo info, bool listed)
        {
            if (!info.FileFound)
            {
                info.State = listed ? "missing" : "denied";
                info.Error = listed ? CryptoApi.NteBadKeySet : CryptoApi.AccessDenied;
                info.ErrorMessage = listed ? "no key file of this container" : "the folder of the CNG keys cannot be listed";
                return;
            }
            try
            {
                info.Sddl = FileSddl(info.FilePath);
                using (FileStream file = new FileStream(info.FilePath, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete))
                {
                    info.State = file.Length > 0 ? "present" : "damaged";
                    if (file.Length == 0) info.ErrorMessage = "the key file is empty";
                }
            }
            catch (UnauthorizedAccessException e)
            {
                info.State = "denied";
                info.Error = CryptoApi.AccessDenied;
                info.ErrorMessage = e.Message;
            }
            catch (Exception e)
            {
                if (!(e is IOException) && !(e is WebfarmCryptoException)) throw;
                info.State = "denied";
                info.ErrorMessage = e.Message;
            }
        }

        private static uint Permissions(SafeCryptKey key)
        {
            byte[] value = new byte[4];
            int length = 4;
            if (!NativeMethods.CryptGetKeyParam(key, CryptoApi.ParamPermissions, value, ref length, 0))
                throw WebfarmCryptoException.Last("reading the permissions of a key");
            return BitConverter.ToUInt32(value, 0);
        }

        private static byte[] Export(SafeCryptKey key, uint type, string container)
        {
            string operation = String.Format("exporting the public key of container '{0}'", container);
            int length = 0;
            if (!NativeMethods.CryptExportKey(key, IntPtr.Zero, type, 0, null, ref length)) throw WebfarmCryptoException.Last(operation);
            byte[] blob = new byte[length];
            if (!NativeMethods.CryptExportKey(key, IntPtr.Zero, type, 0, blob, ref length)) throw WebfarmCryptoException.Last(operation);
            return blob.Length == length ? blob : CryptoApi.Slice(blob, 0, length);
        }

        /// <summary>PUBLICKEYBLOB of a container's key pair.</summary>
        public static byte[] PublicBlob(string name)
        {
            using (SafeProvider provider = CryptoApi.Open(name))
            using (SafeCryptKey key = CryptoApi.UserKey(provider, name))
                return Export(key, CryptoApi.PublicBlobType, name);
        }

        /// <summary>PRIVATEKEYBLOB of a container's key pair; 0x8009000B when the key is not exportable.</summary>
        public static WebfarmSecret PrivateBlob(string name)
        {
            using (SafeProvider provider = CryptoApi.Open(name))
            using (SafeCryptKey key = CryptoApi.UserKey(provider, name))
                return PrivateBlob(key, String.Format("exporting the private key of container '{0}'", name));
        }

        private static WebfarmSecret PrivateBlob(SafeCryptKey key, string operation)
        {
            int length = 0;
            if (!NativeMethods.CryptExportKey(key, IntPtr.Zero, CryptoApi.PrivateBlobType, 0, null, ref length))
                throw WebfarmCryptoException.Last(operation);
            using (WebfarmSecret blob = new WebfarmSecret(length))
            {
                if (!NativeMethods.CryptExportKey(key, IntPtr.Zero, CryptoApi.PrivateBlobType, 0, blob.Bytes, ref length))
                    throw WebfarmCryptoException.Last(operation);
                return blob.Take(0, length);
            }
        }

        /// <summary>Fingerprint of a private key in memory.</summary>
        public static string Fingerprint(WebfarmSecret blob)
        {
            return RsaBlob.Parse(blob.Bytes).Fingerprint();
        }

        /// <summary>Fingerprint of a PUBLICKEYBLOB.</summary>
        public static string Fingerprint(byte[] publicBlob)
        {
            return RsaBlob.Parse(publicBlob).Fingerprint();
        }

        /// <summary>Size in bits of a private key in memory.</summary>
        public static int Bits(WebfarmSecret blob)
        {
            return RsaBlob.Parse(blob.Bytes).Bits;
        }

        /// <summary>
        /// Puts a private key into a machine container, replacing the key pair that it holds. An existing container keeps its
        /// security descriptor; a missing one is created and removed again when the key is refused. Verified by reading the public key back.
        /// </summary>
        /// <returns>true when the container was created</returns>
        public static bool ImportPrivate(string name, WebfarmSecret blob, bool exportable)
        {
            CryptoApi.Require(name);
            RsaBlob rsa = RsaBlob.Parse(blob.Bytes);
            if (!rsa.IsPrivate) throw new ArgumentException(String.Format("container '{0}': only a public key was given, a private key is needed", name));
            if (rsa.Algorithm != CryptoApi.AlgRsaKeyExchange)
                throw new ArgumentException(String.Format("container '{0}': the key is not an RSA exchange key (AT_KEYEXCHANGE)", name));
            bool created = false;
            SafeProvider provider;
            if (!NativeMethods.CryptAcquireContextW(out provider, name, null, CryptoApi.ProvRsaAes, CryptoApi.MachineKeySet | CryptoApi.Silent))
            {
                uint code = WebfarmCryptoException.LastCode();
                string operation = String.Format("opening key container '{0}'", name);
                if (code != CryptoApi.NteBadKeySet && code != CryptoApi.FileNotFound) throw new WebfarmCryptoException(code, operation);
                // When the container exists but may not be opened, this fails with NTE_EXISTS instead of replacing anything.
                if (!NativeMethods.CryptAcquireContextW(out provider, name, null, CryptoApi.ProvRsaAes,
                    CryptoApi.NewKeySet | CryptoApi.MachineKeySet | CryptoApi.Silent))
                    throw WebfarmCryptoException.Last(String.Format("creating key container '{0}'", name));
                created = true;
            }
            bool done = false;
            try
            {
                using (provider)
                using (CryptoApi.Import(provider, blob.Bytes, exportable ? CryptoApi.Exportable : 0,
                    String.Format("importing the private key into container '{0}'", name))) { }
                if (Fingerprint(PublicBlob(name)) != rsa.Fingerprint())
                    throw new InvalidOperationException(String.Format("container '{0}' does not hold the key that was imported", name));
                done = true;
            }
            finally
            {
                if (created && !done) Delete(name);
            }
            return created;
        }

        /// <summary>Deletes a container with both of its key pairs.</summary>
        public static void Delete(string name)
        {
            CryptoApi.Require(name);
            IntPtr none;
            if (!NativeMethods.CryptDeleteContainer(out none, name, null, CryptoApi.ProvRsaAes,
                CryptoApi.DeleteKeySet | CryptoApi.MachineKeySet | CryptoApi.Silent))
                throw WebfarmCryptoException.Last(String.Format("deleting key container '{0}'", name));
        }

        private static string ReadSddl(SafeProvider provider, string name)
        {
            uint parts = CryptoApi.Owner | CryptoApi.Group | CryptoApi.Dacl;
            string operation = String.Format("reading the access list of container '{0}'", name);
            int length = 0;
            if (!NativeMethods.CryptGetProvParam(provider, CryptoApi.ParamSecurityDescriptor, null, ref length, parts)
                && WebfarmCryptoException.LastCode() != 0x8007007A) throw WebfarmCryptoException.Last(operation);
            byte[] descriptor = new byte[length];
            if (!NativeMethods.CryptGetProvParam(provider, CryptoApi.ParamSecurityDescriptor, descriptor, ref length, parts))
                throw WebfarmCryptoException.Last(operation);
            return CryptoApi.SddlText(descriptor, parts);
        }

        /// <summary>Owner, group and DACL of a container as SDDL.</summary>
        public static string GetSddl(string name)
        {
            using (SafeProvider provider = CryptoApi.Open(name)) return ReadSddl(provider, name);
        }

        /// <summary>Replaces the DACL of a container, and makes sure that it is what was asked for.</summary>
        public static void SetSddl(string name, string sddl)
        {
            byte[] descriptor = CryptoApi.SddlBytes(sddl);
            EnableSecurityPrivilege();
            using (SafeProvider provider = CryptoApi.Open(name))
            {
                if (!NativeMethods.CryptSetProvParam(provider, CryptoApi.ParamSecurityDescriptor, descriptor, CryptoApi.Dacl))
                    throw WebfarmCryptoException.Last(String.Format("setting the access list of container '{0}'", name));
            }
            string now = GetSddl(name);
            if (Entries(now) != Entries(CryptoApi.SddlText(descriptor, CryptoApi.Dacl)))
                throw new InvalidOperationException(String.Format("the access list of container '{0}' is {1} after it was set to {2}", name, now, sddl));
        }

        // Who has which right by the list's own entries, in a form that two spellings of the same list share: without the flags of the list
        // and of inheritance, generic rights as the file rights that they become.
        private static string Entries(string sddl)
        {
            List<string> entries = new List<string>();
            int at = sddl.IndexOf("D:", StringComparison.Ordinal);
            while (at >= 0 && (at = sddl.IndexOf('(', at)) >= 0)
            {
                int end = sddl.IndexOf(')', at);
                string[] parts = sddl.Substring(at + 1, end - at - 1).Split(';');
                at = end;
                if (parts.Length < 6 || parts[1].Contains("ID")) continue;
                entries.Add(parts[0] + ";" + parts[2].Replace("GA", "FA").Replace("GR", "FR") + ";" + parts[5]);
            }
            entries.Sort(StringComparer.Ordinal);
            return String.Join(" ", entries.ToArray());
        }

        // CryptoAPI providers may open the container for its audit list as well, which asks for SeSecurityPrivilege: an administrator
        // has it, but not enabled. Where it cannot be had, the call that follows says so.
        private static void EnableSecurityPrivilege()
        {
            IntPtr token;
            if (!NativeMethods.OpenProcessToken(NativeMethods.GetCurrentProcess(), 0x28, out token)) return;
            try
            {
                NativeMethods.TokenPrivilege wanted = new NativeMethods.TokenPrivilege();
                wanted.Count = 1;
                wanted.Attributes = 2; // SE_PRIVILEGE_ENABLED
                if (NativeMethods.LookupPrivilegeValueW(null, "SeSecurityPrivilege", out wanted.Luid))
                    NativeMethods.AdjustTokenPrivileges(token, false, ref wanted, 0, IntPtr.Zero, IntPtr.Zero);
            }
            finally
            {
                NativeMethods.CloseHandle(token);
            }
        }

        /// <summary>Owner, group and DACL of a file or folder as SDDL.</summary>
        public static string FileSddl(string path)
        {
            uint parts = CryptoApi.Owner | CryptoApi.Group | CryptoApi.Dacl;
            int needed;
            NativeMethods.GetFileSecurityW(path, parts, null, 0, out needed);
            byte[] descriptor = new byte[needed];
            if (needed == 0 || !NativeMethods.GetFileSecurityW(path, parts, descriptor, needed, out needed))
                throw WebfarmCryptoException.Last(String.Format("reading the access list of '{0}'", path));
            return CryptoApi.SddlText(descriptor, parts);
        }

        /// <summary>Replaces the DACL of a file or folder.</summary>
        public static void SetFileSddl(string path, string sddl)
        {
            IntPtr descriptor;
            uint length;
            if (!NativeMethods.ConvertStringSecurityDescriptorToSecurityDescriptorW(sddl, 1, out descriptor, out length))
                throw WebfarmCryptoException.Last(String.Format("reading the SDDL text '{0}'", sddl));
            try
            {
                // PROTECTED_DACL_SECURITY_INFORMATION where the text asks for it (D:P).
                uint parts = CryptoApi.Dacl | (sddl.Contains("D:P") ? 0x80000000 : 0);
                if (!NativeMethods.SetFileSecurityW(path, parts, descriptor))
                    throw WebfarmCryptoException.Last(String.Format("setting the access list of '{0}'", path));
            }
            finally
            {
                NativeMethods.LocalFree(descriptor);
            }
        }

        /// <summary>A new RSA key pair as PRIVATEKEYBLOB, in memory only: no container is made.</summary>
        /// <param name="bits">2048, 3072 or 4096</param>
        public static WebfarmSecret Generate(int bits)
        {
            if (bits != 2048 && bits != 3072 && bits != 4096)
                throw new ArgumentException(String.Format("a new key has 2048, 3072 or 4096 bits, not {0}", bits));
            using (SafeProvider provider = CryptoApi.Ephemeral())
            {
                SafeCryptKey key;
                if (!NativeMethods.CryptGenKey(provider, CryptoApi.KeyExchange, ((uint)bits << 16) | CryptoApi.Exportable, out key))
                    throw WebfarmCryptoException.Last("generating an RSA key");
                using (key) return PrivateBlob(key, "exporting a new key");
            }
        }

        /// <summary>
        /// Makes a machine container whose private key cannot be exported, readable by SYSTEM and Administrators only. It exists for one
        /// transfer: the key that travels is sealed to it, and whoever made it deletes it.
        /// </summary>
        public static WebfarmTransport CreateTransport(string name)
        {
            CryptoApi.Require(name);
            SafeProvider provider;
            if (!NativeMethods.CryptAcquireContextW(out provider, name, null, CryptoApi.ProvRsaAes,
                CryptoApi.NewKeySet | CryptoApi.MachineKeySet | CryptoApi.Silent))
                throw WebfarmCryptoException.Last(String.Format("creating transport container '{0}'", name));
            bool done = false;
            try
            {
                using (provider)
                {
                    SafeCryptKey key;
                    if (!NativeMethods.CryptGenKey(provider, CryptoApi.KeyExchange, 2048u << 16, out key))
                        throw WebfarmCryptoException.Last("generating a transport key");
                    using (key)
                    {
                        RsaBlob rsa = RsaBlob.Parse(Export(key, CryptoApi.PublicBlobType, name));
                        if ((Permissions(key) & CryptoApi.PermissionExport) != 0)
                            throw new InvalidOperationException("the provider made an exportable transport key; nothing is sealed to such a key");
                        WebfarmTransport transport = new WebfarmTransport();
                        transport.Container = name;
                        transport.Modulus = Convert.ToBase64String(rsa.Modulus);
                        transport.Exponent = Convert.ToBase64String(rsa.Exponent);
                        SetSddl(name, "D:P(A;;FA;;;SY)(A;;FA;;;BA)");
                        done = true;
                        return transport;
                    }
                }
            }
            finally
            {
                if (!done) Delete(name);
            }
        }

        /// <summary>Seals a private key to public keys (big-endian base64): only their holders can open it.</summary>
        public static WebfarmSealed Seal(WebfarmSecret clear, string[] moduli, string[] exponents)
        {
            if (moduli == null || moduli.Length == 0 || exponents == null || exponents.Length != moduli.Length)
                throw new ArgumentException("sealing needs at least one recipient, each with modulus and exponent");
            using (SafeProvider provider = CryptoApi.Ephemeral())
            using (WebfarmSecret content = new WebfarmSecret(32))
            {
                if (!NativeMethods.CryptGenRandom(provider, 32, content.Bytes)) throw WebfarmCryptoException.Last("CryptGenRandom");
                WebfarmSealed result = new WebfarmSealed();
                byte[] iv = CryptoApi.Random(provider, 16);
                result.Iv = Convert.ToBase64String(iv);
                using (SafeCryptKey aes = CryptoApi.ImportAes(provider, content.Bytes, iv))
                using (WebfarmSecret work = new WebfarmSecret(clear.Bytes.Length + 16))
                {
                    int length = clear.Bytes.Length;
                    Buffer.BlockCopy(clear.Bytes, 0, work.Bytes, 0, length);
                    if (!NativeMethods.CryptEncrypt(aes, IntPtr.Zero, true, 0, work.Bytes, ref length, work.Bytes.Length))
                        throw WebfarmCryptoException.Last("sealing a private key");
                    result.Ciphertext = Convert.ToBase64String(work.Bytes, 0, length);
                }
                result.Wrapped = new string[moduli.Length];
                for (int i = 0; i < moduli.Length; i++)
                {
                    byte[] recipient = RsaBlob.PublicBlob(Convert.FromBase64String(moduli[i]), Convert.FromBase64String(exponents[i]));
                    using (SafeCryptKey key = CryptoApi.Import(provider, recipient, 0, "importing a recipient's public key"))
                    using (WebfarmSecret work = new WebfarmSecret(recipient.Length - 20))
                    {
                        int length = 32;
                        Buffer.BlockCopy(content.Bytes, 0, work.Bytes, 0, 32);
                        if (!NativeMethods.CryptEncrypt(key, IntPtr.Zero, true, CryptoApi.Oaep, work.Bytes, ref length, work.Bytes.Length))
                            throw WebfarmCryptoException.Last("wrapping a content key for a recipient");
                        // CryptoAPI gives RSA results little-endian; everyone else (CMS) expects big-endian.
                        result.Wrapped[i] = Convert.ToBase64String(CryptoApi.Reverse(CryptoApi.Slice(work.Bytes, 0, length)));
                    }
                }
                return result;
            }
        }

        /// <summary>Opens a sealed private key with the private key of a container of this machine.</summary>
        public static WebfarmSecret Unseal(string container, string iv, string ciphertext, string wrapped)
        {
            byte[] block = CryptoApi.Reverse(Convert.FromBase64String(wrapped));
            byte[] sealedData = Convert.FromBase64String(ciphertext);
            using (SafeProvider provider = CryptoApi.Open(container))
            using (SafeCryptKey key = CryptoApi.UserKey(provider, container))
            using (WebfarmSecret work = new WebfarmSecret(block.Length))
            {
                Buffer.BlockCopy(block, 0, work.Bytes, 0, block.Length);
                int length = block.Length;
                if (!NativeMethods.CryptDecrypt(key, IntPtr.Zero, true, CryptoApi.Oaep, work.Bytes, ref length))
                    throw WebfarmCryptoException.Last(String.Format("unwrapping a content key with transport container '{0}'", container));
                if (length != 32) throw new ArgumentException("the sealed key does not carry an AES-256 content key");
                using (WebfarmSecret content = work.Take(0, 32))
                using (SafeProvider temporary = CryptoApi.Ephemeral())
                using (SafeCryptKey aes = CryptoApi.ImportAes(temporary, content.Bytes, Convert.FromBase64String(iv)))
                using (WebfarmSecret clear = new WebfarmSecret(sealedData.Length))
                {
                    Buffer.BlockCopy(sealedData, 0, clear.Bytes, 0, sealedData.Length);
                    int size = sealedData.Length;
                    if (!NativeMethods.CryptDecrypt(aes, IntPtr.Zero, true, 0, clear.Bytes, ref size))
                        throw WebfarmCryptoException.Last("opening a sealed private key");
                    return clear.Take(0, size);
                }
            }
        }

        /// <summary>Encrypts under the machine's DPAPI: any administrator of this machine can open it, no other machine can.</summary>
        public static byte[] Protect(WebfarmSecret clear)
        {
            GCHandle pin = GCHandle.Alloc(clear.Bytes, GCHandleType.Pinned);
            NativeMethods.DataBlob output = new NativeMethods.DataBlob();
            try
            {
                NativeMethods.DataBlob input = new NativeMethods.DataBlob();
                input.Length = clear.Bytes.Length;
                input.Data = pin.AddrOfPinnedObject();
                if (!NativeMethods.CryptProtectData(ref input, "webfarm.iis", IntPtr.Zero, IntPtr.Zero, IntPtr.Zero, 5, ref output))
                    throw WebfarmCryptoException.Last("protecting data with the machine's DPAPI");
                byte[] data = new byte[output.Length];
                Marshal.Copy(output.Data, data, 0, output.Length);
                return data;
            }
            finally
            {
                pin.Free();
                if (output.Data != IntPtr.Zero) NativeMethods.LocalFree(output.Data);
            }
        }

        /// <summary>The opposite of Protect.</summary>
        public static WebfarmSecret Unprotect(byte[] data)
        {
            GCHandle pin = GCHandle.Alloc(data, GCHandleType.Pinned);
            NativeMethods.DataBlob output = new NativeMethods.DataBlob();
            try
            {
                NativeMethods.DataBlob input = new NativeMethods.DataBlob();
                input.Length = data.Length;
                input.Data = pin.AddrOfPinnedObject();
                if (!NativeMethods.CryptUnprotectData(ref input, IntPtr.Zero, IntPtr.Zero, IntPtr.Zero, IntPtr.Zero, 5, ref output))
                    throw WebfarmCryptoException.Last("opening data with the machine's DPAPI");
                WebfarmSecret clear = new WebfarmSecret(output.Length);
                Marshal.Copy(output.Data, clear.Bytes, 0, output.Length);
                return clear;
            }
            finally
            {
                pin.Free();
                if (output.Data != IntPtr.Zero)
                {
                    Marshal.Copy(new byte[output.Length], 0, output.Data, output.Length);
                    NativeMethods.LocalFree(output.Data);
                }
            }
        }

        /// <summary>SHA-256, lower-case hexadecimal.</summary>
        public static string Sha256(byte[] data)
        {
            return CryptoApi.Hex(CryptoApi.Hash(CryptoApi.AlgSha256, data));
        }
    }
}
