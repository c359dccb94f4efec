// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

// What the self-test tries with CNG keys: it makes keys of the kind that IIS 10 uses under names of its own, exports and imports them, lets
// IIS's cngkeyhelper.dll encrypt with them, and takes the values apart. Only names of the list below are ever used, so that no key of IIS can
// be touched. Not verified on Windows: that is what it is for. Secrets stay in here; what comes out says yes, no, or a code.

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;
using ansible_collections.webfarm.iis.plugins.module_utils._CngKey;
using ansible_collections.webfarm.iis.plugins.module_utils._KeyContainer;
using ansible_collections.webfarm.iis.plugins.module_utils._Protection;

//TypeAccelerator -Name WebfarmScratch -TypeName WebfarmScratch
//TypeAccelerator -Name WebfarmScratchCalls -TypeName WebfarmScratchCalls
//TypeAccelerator -Name WebfarmCngTrial -TypeName WebfarmCngTrial

namespace ansible_collections.webfarm.iis.plugins.module_utils._ScratchKey
{
    /// <summary>The names that the self-test uses. They are always the same, so that the next run knows what an interrupted one left.</summary>
    public static class WebfarmScratch
    {
        public const string Prefix = "webfarm.iis-selftest-";

        /// <summary>CryptoAPI containers.</summary>
        public static string[] Containers
        {
            get { return new string[] { Prefix + "1", Prefix + "2", Prefix + "3", Prefix + "4" }; }
        }

        /// <summary>CNG keys. NCrypt opens a CryptoAPI container where there is no CNG key of a name, so none is in both lists.</summary>
        public static string[] CngKeys
        {
            get { return new string[] { Prefix + "cng-1", Prefix + "cng-2", Prefix + "cng-3" }; }
        }

        /// <summary>Refuses every name but these: a key of IIS is never used.</summary>
        public static void Require(string name)
        {
            if (Array.IndexOf(Containers, name) < 0 && Array.IndexOf(CngKeys, name) < 0)
                throw new InvalidOperationException(String.Format(
                    "'{0}' is not one of the self-test's own key containers ({1}*); it is not touched.", name, Prefix));
        }
    }

    /// <summary>The calls that the trial makes, one place to replace them in tests.</summary>
    public class WebfarmScratchCalls : WebfarmCngCalls
    {
        public virtual uint CreateKey(IntPtr provider, string name, out IntPtr key)
        {
            return ScratchNative.NCryptCreatePersistedKey(provider, out key, "SP800_108_CTR_HMAC", name, 0, ScratchNative.MachineKey);
        }

        public virtual uint SetProperty(IntPtr key, string name, byte[] value)
        {
            return ScratchNative.NCryptSetProperty(key, name, value, value.Length, 0);
        }

        public virtual uint FinishKey(IntPtr key)
        {
            return ScratchNative.NCryptFinalizeKey(key, ScratchNative.Silent);
        }

        public virtual uint Export(IntPtr key, string type, byte[] data, out int length)
        {
            return ScratchNative.NCryptExportKey(key, IntPtr.Zero, type, IntPtr.Zero, data, data == null ? 0 : data.Length, out length, ScratchNative.Silent);
        }

        /// <summary>Imports a blob under a name; FinishKey makes it persistent.</summary>
        public virtual uint Import(IntPtr provider, string type, string name, byte[] blob, out IntPtr key)
        {
            using (ParameterList list = new ParameterList())
            {
                list.Add(ScratchNative.BufferKeyName, Encoding.Unicode.GetBytes(name + "\0"));
                return ScratchNative.NCryptImportKey(provider, IntPtr.Zero, type, list.Pointer(), out key, blob, blob.Length,
                    ScratchNative.MachineKey | ScratchNative.Silent | ScratchNative.DoNotFinalize);
            }
        }

        /// <summary>Derives 32 bytes with the label and context that IIS uses.</summary>
        public virtual uint Derive(IntPtr key, byte[] output)
        {
            using (ParameterList list = new ParameterList())
            {
                list.Add(ScratchNative.BufferLabel, WebfarmCngTrial.Label);
                list.Add(ScratchNative.BufferContext, WebfarmCngTrial.Context);
                list.Add(ScratchNative.BufferHash, Encoding.Unicode.GetBytes("SHA256\0"));
                int length;
                return ScratchNative.NCryptKeyDerivation(key, list.Pointer(), output, output.Length, out length, 0);
            }
        }

        public virtual uint Delete(IntPtr key)
        {
            return ScratchNative.NCryptDeleteKey(key, ScratchNative.Silent);
        }

        public virtual uint Encrypt(string name, byte[] text, byte[] output, out int length)
        {
            return CngMethods.IisCngEncrypt(name, text, output, out length);
        }

        public virtual uint Decrypt(string name, byte[] data, ref int length)
        {
            return CngMethods.IisCngDecrypt(name, data, ref length);
        }

        public virtual string FileName(string name)
        {
            return WebfarmKeyContainer.FilePrefix(name, "cng") + "_" + WebfarmKeyContainer.MachineGuid();
        }

        public virtual byte[] Sha256(byte[] data)
        {
            return CryptoApi.Hash(CryptoApi.AlgSha256, data);
        }

        public virtual byte[] Random(int length)
        {
            using (SafeProvider provider = CryptoApi.Ephemeral()) return CryptoApi.Random(provider, length);
        }

        /// <summary>AES-CBC without looking at the padding.</summary>
        public virtual byte[] OpenAes(byte[] key, byte[] iv, byte[] data)
        {
            byte[] work = (byte[])data.Clone();
            int length = work.Length;
            using (SafeProvider provider = CryptoApi.Ephemeral())
            using (SafeCryptKey aes = CryptoApi.ImportAes(provider, key, iv))
            {
                if (!NativeMethods.CryptDecrypt(aes, IntPtr.Zero, false, 0, work, ref length))
                    throw WebfarmCryptoException.Last("opening a value of the self-test");
            }
            return work;
        }
    }

    internal static class ScratchNative
    {
        internal const uint MachineKey = 0x20, Silent = 0x40, DoNotFinalize = 0x400;
        internal const int BufferHash = 0, BufferLabel = 13, BufferContext = 14, BufferKeyName = 45;

        [DllImport("ncrypt.dll", CharSet = CharSet.Unicode)]
        [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
        internal static extern uint NCryptCreatePersistedKey(IntPtr provider, out IntPtr key, string algorithm, string name, uint spec, uint flags);

        [DllImport("ncrypt.dll", CharSet = CharSet.Unicode)]
        [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
        internal static extern uint NCryptSetProperty(IntPtr handle, string name, byte[] value, int length, uint flags);

        [DllImport("ncrypt.dll")]
        [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
        internal static extern uint NCryptFinalizeKey(IntPtr key, uint flags);

        [DllImport("ncrypt.dll", CharSet = CharSet.Unicode)]
        [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
        internal static extern uint NCryptExportKey(IntPtr key, IntPtr exportKey, string type, IntPtr parameters, byte[] data, int size, out int length,
            uint flags);

        [DllImport("ncrypt.dll", CharSet = CharSet.Unicode)]
        [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
        internal static extern uint NCryptImportKey(IntPtr provider, IntPtr importKey, string type, IntPtr parameters, out IntPtr key, byte[] data,
            int length, uint flags);

        [DllImport("ncrypt.dll")]
        [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
        internal static extern uint NCryptKeyDerivation(IntPtr key, IntPtr parameters, byte[] output, int size, out int length, uint flags);

        [DllImport("ncrypt.dll")]
        [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
        internal static extern uint NCryptDeleteKey(IntPtr key, uint flags);
    }

    /// <summary>An NCryptBufferDesc with its buffers.</summary>
    internal sealed class ParameterList : IDisposable
    {
        [StructLayout(LayoutKind.Sequential)]
        private struct Entry
        {
            public int Size;
            public int Type;
            public IntPtr Data;
        }

        [StructLayout(LayoutKind.Sequential)]
        private struct Head
        {
            public int Version;
            public int Count;
            public IntPtr Entries;
        }

        private readonly List<IntPtr> memory = new List<IntPtr>();
        private readonly List<Entry> entries = new List<Entry>();

        internal void Add(int type, byte[] value)
        {
            Entry entry = new Entry();
            entry.Size = value.Length;
            entry.Type = type;
            entry.Data = Allocate(value.Length);
            Marshal.Copy(value, 0, entry.Data, value.Length);
            entries.Add(entry);
        }

        internal IntPtr Pointer()
        {
            int size = Marshal.SizeOf(typeof(Entry));
            Head head = new Head();
            head.Count = entries.Count;
            head.Entries = Allocate(size * entries.Count);
            for (int i = 0; i < entries.Count; i++) Marshal.StructureToPtr(entries[i], new IntPtr(head.Entries.ToInt64() + i * size), false);
            IntPtr pointer = Allocate(Marshal.SizeOf(typeof(Head)));
            Marshal.StructureToPtr(head, pointer, false);
            return pointer;
        }

        private IntPtr Allocate(int size)
        {
            IntPtr pointer = Marshal.AllocHGlobal(size);
            memory.Add(pointer);
            return pointer;
        }

        public void Dispose()
        {
            foreach (IntPtr pointer in memory) Marshal.FreeHGlobal(pointer);
            memory.Clear();
        }
    }

    /// <summary>
    /// One trial. Run fills Found with what was observed: codes as 0x........ (0x00000000 is success), numbers, yes and no. A name that is not
    /// in it was not reached. Remove deletes the keys, those of an earlier run as well.
    /// </summary>
    public sealed class WebfarmCngTrial
    {
        internal static readonly byte[] Label = Encoding.Unicode.GetBytes("EncryptionLabel\0");
        internal static readonly byte[] Context = Encoding.Unicode.GetBytes("EncryptionContext\0");
        private const string BlobType = "KDFKeyBlob", OpaqueType = "OpaqueTransport";
        private const uint Silent = 0x40, MachineKey = 0x20, Missing1 = 0x80090016, Missing2 = 0x80090011, Missing3 = 0x8009000D, NotSupported = 0x80090029;
        private const int FieldAt = 16, CipherAt = 48;
        private const int AllowExport = 3; // NCRYPT_ALLOW_EXPORT_FLAG and NCRYPT_ALLOW_PLAINTEXT_EXPORT_FLAG
        private readonly WebfarmScratchCalls calls;

        public IDictionary<string, object> Found { get; private set; }

        public WebfarmCngTrial() : this(new WebfarmScratchCalls()) { }

        public WebfarmCngTrial(WebfarmScratchCalls calls)
        {
            this.calls = calls;
            Found = new SortedDictionary<string, object>(StringComparer.Ordinal);
        }

        /// <summary>Which of the self-test's keys exist.</summary>
        public string[] Existing()
        {
            return Each(false);
        }

        /// <summary>Deletes those that exist and returns their names. Throws when one stays.</summary>
        public string[] Remove()
        {
            return Each(true);
        }

        private string[] Each(bool delete)
        {
            List<string> names = new List<string>();
            IntPtr provider = IntPtr.Zero;
            try
            {
                if (calls.OpenProvider(out provider) != 0) return names.ToArray();
                foreach (string name in WebfarmScratch.CngKeys)
                {
                    WebfarmScratch.Require(name);
                    IntPtr key;
                    uint status = calls.OpenKey(provider, name, MachineKey | Silent, out key);
                    // A host whose NCrypt keeps no such keys has none of ours.
                    if (status == Missing1 || status == Missing2 || status == Missing3 || status == NotSupported) continue;
                    names.Add(name);
                    if (status == 0)
                    {
                        // Deleting frees the handle.
                        if (delete) status = calls.Delete(key);
                        if (!delete || status != 0) calls.Free(key);
                    }
                    if (delete && status != 0)
                        throw new InvalidOperationException(String.Format("The CNG key {0} could not be deleted: {1}", name, Code(status)));
                }
            }
            catch (DllNotFoundException)
            {
                names.Clear();
            }
            catch (EntryPointNotFoundException)
            {
                names.Clear();
            }
            finally
            {
                if (provider != IntPtr.Zero) calls.Free(provider);
            }
            return names.ToArray();
        }

        public void Run()
        {
            IntPtr provider = IntPtr.Zero;
            IntPtr first = IntPtr.Zero, second = IntPtr.Zero, copy = IntPtr.Zero;
            byte[] secret = calls.Random(32), other = calls.Random(32), derived = new byte[32];
            try
            {
                if (!Step("open_provider", calls.OpenProvider(out provider))) return;
                // The first key may be exported, the second has what a key gets by itself.
                if (!Make(provider, WebfarmScratch.CngKeys[0], secret, true, "create", out first)) return;
                if (!Make(provider, WebfarmScratch.CngKeys[1], other, false, "create_second", out second)) return;
                Describe(first, WebfarmScratch.CngKeys[0], "key");
                Describe(second, WebfarmScratch.CngKeys[1], "default");
                byte[] blob = Blob(first, BlobType, "export");
                Blob(second, BlobType, "export_default");
                Blob(second, OpaqueType, "export_opaque");
                // Where the secret cannot be given, it is what the blob holds.
                byte[] held = blob == null ? null : KeyOf(blob);
                byte[] known = Gave("create_secret") ? secret : held;
                if (held != null && Gave("create_secret")) Found["blob_holds_secret"] = Same(held, secret);
                if (blob != null) Take(provider, blob, out copy);
                bool isDerived = Step("derive", calls.Derive(first, derived));
                if (isDerived && known != null) Found["derive_as_sp800_108"] = Same(derived, Counter(known));
                Values(known, isDerived ? derived : null, copy != IntPtr.Zero);
            }
            catch (DllNotFoundException e)
            {
                Found["missing"] = e.Message;
            }
            catch (EntryPointNotFoundException e)
            {
                Found["missing"] = e.Message;
            }
            finally
            {
                Array.Clear(secret, 0, secret.Length);
                Array.Clear(other, 0, other.Length);
                Array.Clear(derived, 0, derived.Length);
                foreach (IntPtr handle in new IntPtr[] { first, second, copy, provider })
                    if (handle != IntPtr.Zero) calls.Free(handle);
            }
        }

        private bool Make(IntPtr provider, string name, byte[] secret, bool exportable, string step, out IntPtr key)
        {
            WebfarmScratch.Require(name);
            if (!Step(step, calls.CreateKey(provider, name, out key))) return false;
            Step(step + "_secret", calls.SetProperty(key, "KDFKeySecret", secret));
            if (exportable) Step(step + "_policy", calls.SetProperty(key, "Export Policy", BitConverter.GetBytes(AllowExport)));
            if (Step(step + "_finish", calls.FinishKey(key))) return true;
            calls.Free(key);
            key = IntPtr.Zero;
            return false;
        }

        // Key length, export policy, access list, file name.
        private void Describe(IntPtr key, string name, string prefix)
        {
            WebfarmCngInfo info = WebfarmCngKey.Inspect(name, calls.FileName(name), calls);
            Found[prefix + "_algorithm"] = info.Algorithm;
            Found[prefix + "_policy"] = info.ExportPolicy.HasValue ? (object)info.ExportPolicy.Value : null;
            Found[prefix + "_sddl"] = info.Sddl;
            if (info.UniqueName != null) Found[prefix + "_file_by_rule"] = info.State == "opened";
            int length;
            byte[] bits = new byte[4];
            if (calls.GetProperty(key, "Length", bits, out length, 0) == 0 && length == 4) Found[prefix + "_length"] = BitConverter.ToInt32(bits, 0);
        }

        private byte[] Blob(IntPtr key, string type, string step)
        {
            int length;
            uint status = calls.Export(key, type, null, out length);
            byte[] data = null;
            if (status == 0)
            {
                data = new byte[length];
                status = calls.Export(key, type, data, out length);
            }
            return Step(step, status) ? data : null;
        }

        // NCRYPT_KEY_BLOB_HEADER: cbSize, dwMagic, cbAlgName, cbKeyData; the name of the algorithm; the key.
        private byte[] KeyOf(byte[] blob)
        {
            if (blob.Length < 16) return null;
            int start = BitConverter.ToInt32(blob, 0) + BitConverter.ToInt32(blob, 8);
            int size = BitConverter.ToInt32(blob, 12);
            Found["blob_magic"] = Encoding.ASCII.GetString(blob, 4, 4);
            Found["blob_key_bytes"] = size;
            return start >= 16 && size > 0 && size <= blob.Length - start ? Part(blob, start, size) : null;
        }

        private void Take(IntPtr provider, byte[] blob, out IntPtr copy)
        {
            string name = WebfarmScratch.CngKeys[2];
            copy = IntPtr.Zero;
            WebfarmScratch.Require(name);
            if (!Step("import", calls.Import(provider, BlobType, name, blob, out copy))) return;
            Step("import_policy", calls.SetProperty(copy, "Export Policy", BitConverter.GetBytes(AllowExport)));
            if (!Step("import_finish", calls.FinishKey(copy)))
            {
                calls.Free(copy);
                copy = IntPtr.Zero;
                return;
            }
            byte[] again = Blob(copy, BlobType, "export_copy");
            if (again != null) Found["copy_is_equal"] = Same(again, blob);
        }

        // What the DLL of IIS writes: two values of one text, one of another, one under another key.
        private void Values(byte[] secret, byte[] derived, bool copied)
        {
            string first = WebfarmScratch.CngKeys[0];
            byte[] one = Value(first, "x", "encrypt");
            if (one == null) return;
            byte[] two = Value(first, "x", "encrypt_again");
            byte[] three = Value(first, "yy", "encrypt_other_text");
            byte[] four = Value(WebfarmScratch.CngKeys[1], "x", "encrypt_other_key");
            if (two == null || three == null || four == null) return;
            Found["value_bytes"] = one.Length;
            Found["iv_differs"] = !Same(Part(one, 0, FieldAt), Part(two, 0, FieldAt));
            Found["field_equal_for_equal_text"] = SameField(one, two);
            Found["field_equal_for_other_text"] = SameField(one, three);
            Found["field_equal_for_other_key"] = SameField(one, four);
            byte[] text = Encoding.Unicode.GetBytes("x");
            byte[] ended = Encoding.Unicode.GetBytes("x\0");
            byte[] padded = null;
            if (derived != null)
            {
                padded = calls.OpenAes(derived, Part(one, 0, FieldAt), Part(one, CipherAt, (one.Length - CipherAt) / 16 * 16));
                Found["opens_with_derived_key"] = padded.Length >= 4 && Same(Part(padded, 0, 4), ended);
                Found["padding"] = Padding(padded, ended.Length);
            }
            Found["field_is"] = Field(Part(one, FieldAt, 32), secret, derived, text, ended, padded);
            Open(first, one, "x", "decrypt");
            byte[] changed = (byte[])one.Clone();
            changed[FieldAt] ^= 1;
            Open(first, changed, "x", "decrypt_with_changed_field");
            if (copied) Open(WebfarmScratch.CngKeys[2], one, "x", "decrypt_with_copy");
            Open(WebfarmScratch.CngKeys[1], one, "x", "decrypt_with_other_key");
        }

        private byte[] Value(string name, string text, string step)
        {
            WebfarmScratch.Require(name);
            byte[] clear = Encoding.Unicode.GetBytes(text + "\0");
            int length;
            uint status = calls.Encrypt(name, clear, null, out length);
            if (status == 0 && (length < CipherAt + 16 || length > 4096))
            {
                Found[step + "_bytes"] = length;
                return null;
            }
            byte[] data = new byte[status == 0 ? length : 0];
            if (status == 0) status = calls.Encrypt(name, clear, data, out length);
            return Step(step, status) ? Part(data, 0, Math.Min(length, data.Length)) : null;
        }

        private void Open(string name, byte[] value, string expected, string step)
        {
            WebfarmScratch.Require(name);
            byte[] data = (byte[])value.Clone();
            int length = data.Length;
            uint status = calls.Decrypt(name, data, ref length);
            if (!Step(step, status)) return;
            byte[] wanted = Encoding.Unicode.GetBytes(expected + "\0");
            Found[step + "_text"] = length >= wanted.Length && length <= data.Length && Same(Part(data, 0, wanted.Length), wanted);
        }

        private string Field(byte[] field, byte[] secret, byte[] derived, byte[] text, byte[] ended, byte[] padded)
        {
            List<string> found = new List<string>();
            string wanted = Hex(field);
            byte[][] inputs = { text, ended, padded };
            string[] names = { "text", "text_and_end", "text_and_padding" };
            for (int i = 0; i < inputs.Length; i++)
            {
                if (inputs[i] == null) continue;
                if (Hex(calls.Sha256(inputs[i])) == wanted) found.Add("sha256_of_" + names[i]);
                if (secret != null && Hex(Hmac(secret, inputs[i])) == wanted) found.Add("hmac_with_secret_of_" + names[i]);
                if (derived != null && Hex(Hmac(derived, inputs[i])) == wanted) found.Add("hmac_with_derived_key_of_" + names[i]);
            }
            if (secret != null && Hex(calls.Sha256(secret)) == wanted) found.Add("sha256_of_secret");
            if (derived != null && Hex(calls.Sha256(derived)) == wanted) found.Add("sha256_of_derived_key");
            return found.Count == 0 ? "unknown" : String.Join(" ", found.ToArray());
        }

        private static string Padding(byte[] clear, int text)
        {
            int count = clear.Length - text;
            if (count <= 0) return "none";
            bool pkcs = true, zero = true, length = true;
            for (int i = text; i < clear.Length; i++)
            {
                pkcs &= clear[i] == count;
                zero &= clear[i] == 0;
                length &= clear[i] == 0 || i == clear.Length - 1 && clear[i] == count;
            }
            return pkcs ? "pkcs7" : zero ? "zero" : length ? "x923" : "other";
        }

        // SP800-108, counter mode with HMAC-SHA256: one block of 256 bits.
        private byte[] Counter(byte[] secret)
        {
            List<byte> input = new List<byte>();
            input.AddRange(new byte[] { 0, 0, 0, 1 });
            input.AddRange(Label);
            input.Add(0);
            input.AddRange(Context);
            input.AddRange(new byte[] { 0, 0, 1, 0 });
            return Hmac(secret, input.ToArray());
        }

        // HMAC-SHA256 (RFC 2104).
        private byte[] Hmac(byte[] key, byte[] data)
        {
            if (key.Length > 64) key = calls.Sha256(key);
            byte[] inner = new byte[64 + data.Length], outer = new byte[64 + 32];
            for (int i = 0; i < 64; i++)
            {
                byte part = i < key.Length ? key[i] : (byte)0;
                inner[i] = (byte)(part ^ 0x36);
                outer[i] = (byte)(part ^ 0x5C);
            }
            Buffer.BlockCopy(data, 0, inner, 64, data.Length);
            Buffer.BlockCopy(calls.Sha256(inner), 0, outer, 64, 32);
            return calls.Sha256(outer);
        }

        private bool Gave(string step)
        {
            return Found.ContainsKey(step) && (string)Found[step] == Code(0);
        }

        private bool Step(string name, uint status)
        {
            Found[name] = Code(status);
            return status == 0;
        }

        private static string Code(uint status)
        {
            return String.Format("0x{0:X8}", status != 0 && (status & 0x80000000) == 0 ? 0x80070000 | (status & 0xFFFF) : status);
        }

        private static bool SameField(byte[] one, byte[] two)
        {
            return Same(Part(one, FieldAt, 32), Part(two, FieldAt, 32));
        }

        private static bool Same(byte[] one, byte[] two)
        {
            return Hex(one) == Hex(two);
        }

        private static string Hex(byte[] data)
        {
            return BitConverter.ToString(data).Replace("-", "").ToLowerInvariant();
        }

        private static byte[] Part(byte[] data, int offset, int length)
        {
            byte[] part = new byte[length];
            Buffer.BlockCopy(data, offset, part, 0, length);
            return part;
        }
    }
}
