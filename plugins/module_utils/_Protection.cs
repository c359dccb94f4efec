// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// FOR INTERNAL COLLECTION USE ONLY
// The interfaces in this file are meant for use within the webfarm.iis collection
// and may change in any release, even a bugfix release.

// Protected values of IIS configuration files: prove that they open with the machine's keys or with candidate keys,
// compare two files by what their values say, re-encrypt values of CNG providers under AES providers.
// Clear text stays in pinned memory of this file and is zeroed; nothing here returns it, but as a SecureString.

using System;
using System.Collections.Generic;
using System.IO;
using System.Runtime.InteropServices;
using System.Security;
using System.Text;
using ansible_collections.webfarm.iis.plugins.module_utils._Configuration;
using ansible_collections.webfarm.iis.plugins.module_utils._KeyContainer;

//TypeAccelerator -Name WebfarmProtection -TypeName WebfarmProtection
//TypeAccelerator -Name WebfarmKeySet -TypeName WebfarmKeySet
//TypeAccelerator -Name WebfarmVerdict -TypeName WebfarmVerdict

namespace ansible_collections.webfarm.iis.plugins.module_utils._Protection
{
    /// <summary>
    /// Candidate private keys by container. They are used in throw-away CryptoAPI contexts and never reach a machine container from here.
    /// A container that is not in the set is taken from the machine. Dispose zeroes the keys.
    /// </summary>
    public sealed class WebfarmKeySet : IDisposable
    {
        internal readonly Dictionary<string, WebfarmSecret> Blobs = new Dictionary<string, WebfarmSecret>(StringComparer.OrdinalIgnoreCase);

        public string[] Containers
        {
            get
            {
                string[] names = new string[Blobs.Count];
                Blobs.Keys.CopyTo(names, 0);
                return names;
            }
        }

        /// <summary>Takes a PRIVATEKEYBLOB over; the set disposes of it.</summary>
        public void Add(string container, WebfarmSecret privateBlob)
        {
            if (Blobs.ContainsKey(container)) throw new ArgumentException(String.Format("container '{0}' is in the key set already", container));
            Blobs.Add(container, privateBlob);
        }

        /// <summary>The PRIVATEKEYBLOB of a container; it stays the set's.</summary>
        public WebfarmSecret Get(string container)
        {
            WebfarmSecret blob;
            if (!Blobs.TryGetValue(container, out blob)) throw new ArgumentException(String.Format("container '{0}' is not in the key set", container));
            return blob;
        }

        public void Dispose()
        {
            foreach (WebfarmSecret blob in Blobs.Values) blob.Dispose();
            Blobs.Clear();
        }
    }

    /// <summary>Whether one protected value opens. The words are the same as in plugin_utils/_protection.py.</summary>
    public class WebfarmVerdict
    {
        public string File { get; internal set; }
        public string Path { get; internal set; }
        public int Line { get; internal set; }
        public string Provider { get; internal set; }
        public string Kind { get; internal set; }
        public string Container { get; internal set; }
        /// <summary>ok, bad_data, garbage, missing_key, denied, damaged, unknown_provider, unsupported, malformed.</summary>
        public string Verdict { get; internal set; }
        /// <summary>HRESULT of the call that failed, 0 where none did.</summary>
        public uint Error { get; internal set; }
        public string ErrorMessage { get; internal set; }
    }

    /// <summary>Whether the sessionKey of an AES provider opens.</summary>
    public class WebfarmSessionKeyVerdict
    {
        public string Provider { get; internal set; }
        public string Container { get; internal set; }
        public int Line { get; internal set; }
        public string Verdict { get; internal set; }
        /// <summary>AES-128, AES-192 or AES-256; null when it could not be read.</summary>
        public string Algorithm { get; internal set; }
        /// <summary>Size of the RSA key that the session key is wrapped for, from its length.</summary>
        public int KeyBits { get; internal set; }
        public uint Error { get; internal set; }
        public string ErrorMessage { get; internal set; }
    }

    /// <summary>A value that changed its provider.</summary>
    public class WebfarmConversion
    {
        public string Path { get; internal set; }
        public string FromProvider { get; internal set; }
        public string ToProvider { get; internal set; }
    }

    /// <summary>A file whose values were encrypted anew for other keys.</summary>
    public class WebfarmReencrypted
    {
        public byte[] Bytes { get; internal set; }
        /// <summary>Attribute paths of the values that were encrypted anew.</summary>
        public string[] Values { get; internal set; }
        /// <summary>Attribute paths of values that the present keys do not open: they have to be entered again.</summary>
        public string[] Lost { get; internal set; }
        /// <summary>AES providers that got a new session key.</summary>
        public string[] Providers { get; internal set; }
    }

    public class WebfarmPortable
    {
        public byte[] Bytes { get; internal set; }
        public WebfarmConversion[] Conversions { get; internal set; }
    }

    internal static class CngMethods
    {
        internal const string Absent = "cngkeyhelper.dll is not on this host: IIS 10 is not installed, and nothing else opens values of CNG providers";

        // Asked before the first call: what a missing DLL throws differs between the runtimes.
        internal static bool Present()
        {
            return File.Exists(Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.System), "cngkeyhelper.dll"));
        }

        // Signatures as IIS's own cngkeyhelper.dll has them (undocumented; read in JexusManager, NativeMethods.cs). 0 is success.
        [DllImport("cngkeyhelper.dll", SetLastError = true, CharSet = CharSet.Unicode)]
        [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
        internal static extern uint IisCngDecrypt(string container, byte[] data, ref int length);

        [DllImport("cngkeyhelper.dll", SetLastError = true, CharSet = CharSet.Unicode)]
        [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
        internal static extern uint IisCngEncrypt(string container, byte[] text, byte[] output, out int length);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptExportKey(SafeCryptKey key, SafeCryptKey exchangeKey, uint type, uint flags, byte[] data, ref int length);

        [DllImport("advapi32.dll", SetLastError = true)]
        internal static extern bool CryptDuplicateKey(SafeCryptKey key, IntPtr reserved, uint flags, out SafeCryptKey copy);
    }

    /// <summary>What came of opening one thing: a verdict and, where it is ok, the place of the text in the buffer.</summary>
    internal sealed class Outcome
    {
        internal string Verdict;
        internal uint Error;
        internal string Message;
        internal WebfarmSecret Buffer;
        internal int Start, Length; // of the UTF-16LE text, in bytes
        internal int Whole;         // all decrypted bytes of a direct RSA value, whatever layout they have

        internal static Outcome Failed(string verdict, uint error, string message)
        {
            Outcome outcome = new Outcome();
            outcome.Verdict = verdict;
            outcome.Error = error;
            outcome.Message = message;
            return outcome;
        }

        internal static Outcome Opened(WebfarmSecret buffer, int start, int length)
        {
            Outcome outcome = new Outcome();
            outcome.Verdict = "ok";
            outcome.Buffer = buffer;
            outcome.Start = start;
            outcome.Length = length;
            return outcome;
        }
    }

    /// <summary>Strict judgement of decrypted bytes: AES values carry no integrity check, so everything that is known of a true text is required.</summary>
    internal static class Judge
    {
        private const int MaximumTail = 15;

        /// <summary>
        /// 4 random bytes, UTF-16LE text, 00 00, 0 to 15 random bytes; with padding: PKCS #7 to whole blocks behind that.
        /// </summary>
        /// <returns>null, or why it is not a text</returns>
        internal static string Aes(byte[] data, int length, bool padded, out int start, out int size)
        {
            start = 4;
            size = 0;
            if (padded)
            {
                int pad = length > 0 ? data[length - 1] : 0;
                if (pad < 1 || pad > 16 || pad > length) return "the padding is wrong";
                for (int i = length - pad; i < length; i++)
                    if (data[i] != pad) return "the padding is wrong";
                length -= pad;
            }
            for (int i = 4; i + 1 < length; i += 2)
            {
                if (data[i] != 0 || data[i + 1] != 0) continue;
                if (length - i - 2 > MaximumTail) return "more than 15 bytes follow the end of the text";
                size = i - 4;
                return Text(data, 4, size);
            }
            return "the text has no end";
        }

        /// <summary>Strict UTF-16LE without control characters and noncharacters.</summary>
        internal static string Text(byte[] data, int start, int size)
        {
            if (size % 2 != 0) return "the text is not UTF-16";
            for (int i = start; i < start + size; i += 2)
            {
                int unit = data[i] | data[i + 1] << 8;
                int point = unit;
                if (unit >= 0xDC00 && unit <= 0xDFFF) return "the text is not UTF-16";
                if (unit >= 0xD800 && unit <= 0xDBFF)
                {
                    if (i + 3 >= start + size) return "the text is not UTF-16";
                    int low = data[i + 2] | data[i + 3] << 8;
                    if (low < 0xDC00 || low > 0xDFFF) return "the text is not UTF-16";
                    point = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                    i += 2;
                }
                if (point < 0x20 || (point >= 0x7F && point <= 0x9F)) return "the text holds a control character";
                if ((point >= 0xFDD0 && point <= 0xFDEF) || (point & 0xFFFE) == 0xFFFE) return "the text holds a noncharacter";
            }
            return null;
        }
    }

    /// <summary>A key pair opened for decryption: the machine's, or a candidate's in a throw-away context.</summary>
    internal sealed class OpenContainer : IDisposable
    {
        internal SafeProvider Provider;
        internal SafeCryptKey Key;
        internal Outcome Failure;

        public void Dispose()
        {
            if (Key != null) Key.Dispose();
            if (Provider != null) Provider.Dispose();
        }
    }

    internal sealed class OpenSession : IDisposable
    {
        internal SafeCryptKey Key;
        internal Outcome Failure;
        internal string Algorithm;
        internal int KeyBits;

        public void Dispose()
        {
            if (Key != null) Key.Dispose();
        }
    }

    /// <summary>Opens the values of one file. Containers and session keys are opened once.</summary>
    internal sealed class Opener : IDisposable
    {
        internal readonly WebfarmConfigurationFile File;
        private readonly WebfarmKeySet candidates;
        private readonly Dictionary<string, OpenContainer> containers = new Dictionary<string, OpenContainer>(StringComparer.OrdinalIgnoreCase);
        private readonly Dictionary<string, OpenSession> sessions = new Dictionary<string, OpenSession>(StringComparer.OrdinalIgnoreCase);

        private readonly bool exportable;

        internal Opener(WebfarmConfigurationFile file, WebfarmKeySet candidates)
            : this(file, candidates, false)
        {
        }

        /// <param name="exportable">opened session keys may be wrapped again for another key</param>
        internal Opener(WebfarmConfigurationFile file, WebfarmKeySet candidates, bool exportable)
        {
            this.exportable = exportable;
            File = file;
            this.candidates = candidates;
        }

        public void Dispose()
        {
            // Keys before the contexts that own them.
            foreach (OpenSession session in sessions.Values) session.Dispose();
            foreach (OpenContainer container in containers.Values) container.Dispose();
        }

        private OpenContainer Container(string name)
        {
            OpenContainer open;
            if (containers.TryGetValue(name, out open)) return open;
            open = new OpenContainer();
            containers.Add(name, open);
            try
            {
                if (candidates != null && candidates.Blobs.ContainsKey(name))
                {
                    open.Provider = CryptoApi.Ephemeral();
                    open.Key = CryptoApi.Import(open.Provider, candidates.Blobs[name].Bytes, 0, String.Format("loading the candidate key of container '{0}'", name));
                }
                else
                {
                    open.Provider = CryptoApi.Open(name);
                    open.Key = CryptoApi.UserKey(open.Provider, name);
                }
            }
            catch (WebfarmCryptoException e)
            {
                string state = WebfarmKeyContainer.Inspect(name, "cryptoapi").State;
                string verdict = state == "missing" ? "missing_key" : state == "present" ? "damaged" : state;
                open.Failure = Outcome.Failed(verdict, e.Code, e.Message);
            }
            catch (ArgumentException e)
            {
                open.Failure = Outcome.Failed("missing_key", 0, e.Message);
            }
            return open;
        }

        internal OpenSession Session(WebfarmProvider provider)
        {
            OpenSession session;
            if (sessions.TryGetValue(provider.Name, out session)) return session;
            session = new OpenSession();
            sessions.Add(provider.Name, session);
            OpenContainer container = Container(provider.Container);
            byte[] blob = Base64(provider.SessionKey);
            if (blob != null && blob.Length > 12) session.KeyBits = (blob.Length - 12) * 8;
            string problem = SessionProblem(provider, blob);
            if (problem != null)
            {
                session.Failure = Outcome.Failed("bad_data", CryptoApi.NteBadData, problem);
                return session;
            }
            uint algorithm = BitConverter.ToUInt32(blob, 4);
            session.Algorithm = algorithm == CryptoApi.AlgAes128 ? "AES-128" : algorithm == CryptoApi.AlgAes192 ? "AES-192" : "AES-256";
            session.Failure = container.Failure;
            if (session.Failure != null) return session;
            uint flags = (provider.UseOaep ? CryptoApi.Oaep : 0) | (exportable ? CryptoApi.Exportable : 0);
            if (!NativeMethods.CryptImportKey(container.Provider, blob, blob.Length, container.Key, flags, out session.Key))
            {
                WebfarmCryptoException e = WebfarmCryptoException.Last(
                    String.Format("opening the sessionKey of provider '{0}' with container '{1}'", provider.Name, provider.Container));
                session.Key = null;
                session.Failure = Outcome.Failed("bad_data", e.Code, e.Message);
            }
            return session;
        }

        // SIMPLEBLOB: 01 02 00 00, algorithm of the session key, algorithm of the wrapping key (CALG_RSA_KEYX), RSA block.
        internal static string SessionProblem(WebfarmProvider provider, byte[] blob)
        {
            if (String.IsNullOrEmpty(provider.SessionKey)) return String.Format("provider '{0}' has no sessionKey", provider.Name);
            if (blob == null) return String.Format("the sessionKey of provider '{0}' is not base64", provider.Name);
            if (blob.Length < 12 + 64 || blob[0] != 1 || blob[1] != 2) return String.Format("the sessionKey of provider '{0}' is not a SIMPLEBLOB", provider.Name);
            uint algorithm = BitConverter.ToUInt32(blob, 4);
            if (algorithm != CryptoApi.AlgAes128 && algorithm != CryptoApi.AlgAes192 && algorithm != CryptoApi.AlgAes256)
                return String.Format("the sessionKey of provider '{0}' has algorithm 0x{1:X4}, which is not AES", provider.Name, algorithm);
            if (BitConverter.ToUInt32(blob, 8) != CryptoApi.AlgRsaKeyExchange)
                return String.Format("the sessionKey of provider '{0}' is not wrapped by an RSA exchange key", provider.Name);
            return null;
        }

        /// <summary>Opens one value. The caller disposes of Buffer.</summary>
        internal Outcome Open(WebfarmProtectedValue value)
        {
            if (value.Provider == null) return Outcome.Failed("malformed", 0, "the value has no provider name: [enc:Provider:data:enc] is expected");
            WebfarmProvider provider = File.Provider(value.Provider);
            if (provider == null)
                return Outcome.Failed("unknown_provider", 0, String.Format("provider '{0}' is not declared in configProtectedData of this file", value.Provider));
            byte[] data = Base64(value.Data);
            if (data == null) return Outcome.Failed("malformed", 0, "the data of the value is not base64");
            switch (provider.Kind)
            {
                case "aes": return OpenAes(provider, data);
                case "rsa": return OpenRsa(provider, data);
                case "cng": return OpenCng(provider, data);
                default: return Outcome.Failed("unsupported", 0, String.Format("provider '{0}' has the unknown type '{1}'", provider.Name, provider.Type));
            }
        }

        private Outcome OpenAes(WebfarmProvider provider, byte[] data)
        {
            OpenSession session = Session(provider);
            if (session.Failure != null) return session.Failure;
            if (data.Length % 16 != 0)
                return Outcome.Failed("bad_data", CryptoApi.NteBadLength, String.Format("{0} bytes are no whole AES blocks: the value is cut off or altered", data.Length));
            // A copy of the key starts with a fresh chain; Final=FALSE leaves the padding to our stricter judgement.
            SafeCryptKey key;
            if (!CngMethods.CryptDuplicateKey(session.Key, IntPtr.Zero, 0, out key)) throw WebfarmCryptoException.Last("CryptDuplicateKey");
            WebfarmSecret work = new WebfarmSecret(data.Length);
            bool keep = false;
            try
            {
                using (key)
                {
                    Buffer.BlockCopy(data, 0, work.Bytes, 0, data.Length);
                    int length = data.Length;
                    if (!NativeMethods.CryptDecrypt(key, IntPtr.Zero, false, 0, work.Bytes, ref length))
                    {
                        WebfarmCryptoException e = WebfarmCryptoException.Last(String.Format("decrypting with provider '{0}'", provider.Name));
                        return Outcome.Failed("bad_data", e.Code, e.Message);
                    }
                    int start, size;
                    string why = Judge.Aes(work.Bytes, length, true, out start, out size);
                    if (why != null) return Garbage(provider, why);
                    keep = true;
                    return Outcome.Opened(work, start, size);
                }
            }
            finally
            {
                if (!keep) work.Dispose();
            }
        }

        private static Outcome Garbage(WebfarmProvider provider, string why)
        {
            return Outcome.Failed("garbage", 0,
                String.Format("decrypting with provider '{0}' gives no text ({1}): the value was encrypted under another key", provider.Name, why));
        }

        private Outcome OpenRsa(WebfarmProvider provider, byte[] data)
        {
            OpenContainer container = Container(provider.Container);
            if (container.Failure != null) return container.Failure;
            WebfarmSecret work = new WebfarmSecret(data.Length);
            bool keep = false;
            try
            {
                Buffer.BlockCopy(data, 0, work.Bytes, 0, data.Length);
                int length = data.Length;
                if (!NativeMethods.CryptDecrypt(container.Key, IntPtr.Zero, true, 0, work.Bytes, ref length))
                {
                    WebfarmCryptoException e = WebfarmCryptoException.Last(String.Format("decrypting with container '{0}'", provider.Container));
                    return Outcome.Failed("bad_data", e.Code, e.Message);
                }
                int start = 0, size = length;
                if (size >= 2 && size % 2 == 0 && work.Bytes[size - 1] == 0 && work.Bytes[size - 2] == 0) size -= 2;
                string why = Judge.Text(work.Bytes, 0, size);
                // Whether IIS puts the AES layout into direct RSA values is not documented: both are read.
                if (why != null && Judge.Aes(work.Bytes, length, false, out start, out size) != null) return Garbage(provider, why);
                keep = true;
                Outcome outcome = Outcome.Opened(work, start, size);
                outcome.Whole = length;
                return outcome;
            }
            finally
            {
                if (!keep) work.Dispose();
            }
        }

        private static Outcome OpenCng(WebfarmProvider provider, byte[] data)
        {
            // 16 bytes IV, 32 bytes check field, whole AES blocks; nothing else is handed to an undocumented function.
            if (data.Length < 64 || data.Length % 16 != 0)
                return Outcome.Failed("bad_data", CryptoApi.NteBadLength, String.Format("{0} bytes are no CNG value: it is cut off or altered", data.Length));
            if (!CngMethods.Present())
                return Outcome.Failed("unsupported", 0, CngMethods.Absent);
            WebfarmSecret work = new WebfarmSecret(data.Length);
            bool keep = false;
            try
            {
                Buffer.BlockCopy(data, 0, work.Bytes, 0, data.Length);
                int length = data.Length;
                uint status = CngMethods.IisCngDecrypt(provider.Container, work.Bytes, ref length);
                if (status != 0)
                {
                    uint code = (status & 0x80000000) != 0 ? status : WebfarmCryptoException.LastCode();
                    string verdict = code == CryptoApi.NteBadKeySet || code == CryptoApi.FileNotFound ? "missing_key"
                        : code == CryptoApi.NtePerm || code == CryptoApi.AccessDenied ? "denied" : "bad_data";
                    WebfarmCryptoException e = new WebfarmCryptoException(code, String.Format("decrypting with CNG container '{0}'", provider.Container));
                    return Outcome.Failed(verdict, code, e.Message);
                }
                string why = length >= 2 && length <= data.Length ? Judge.Text(work.Bytes, 0, length - 2) : "the text has no end";
                if (why != null) return Garbage(provider, why);
                keep = true;
                return Outcome.Opened(work, 0, length - 2);
            }
            finally
            {
                if (!keep) work.Dispose();
            }
        }

        /// <summary>Encrypts a text as IIS does under a provider of the file.</summary>
        /// <returns>the attribute value, [enc:Provider:data:enc]</returns>
        internal string Encrypt(WebfarmProvider provider, byte[] text, int start, int size)
        {
            if (provider.Kind == "aes")
            {
                OpenSession session = Session(provider);
                if (session.Failure != null) throw new WebfarmConfigurationException(File.Name, provider.Line, session.Failure.Message);
                return Value(provider, EncryptAes(session.Key, text, start, size));
            }
            if (provider.Kind == "cng") return Value(provider, EncryptCng(provider, text, start, size));
            if (provider.Kind != "rsa")
                throw new WebfarmConfigurationException(File.Name, provider.Line, String.Format("provider '{0}' has the unknown type '{1}'", provider.Name, provider.Type));
            return Value(provider, EncryptRsa(provider, text, start, size));
        }

        internal static string Value(WebfarmProvider provider, byte[] data)
        {
            return "[enc:" + provider.Name + ":" + Convert.ToBase64String(data) + ":enc]";
        }

        /// <summary>4 random bytes, text, 00 00, up to 15 random bytes, padding: the layout that the AES provider of IIS writes.</summary>
        internal static byte[] EncryptAes(SafeCryptKey session, byte[] text, int start, int size)
        {
            using (SafeProvider random = CryptoApi.Ephemeral())
            {
                byte[] prefix = CryptoApi.Random(random, 4);
                byte[] tail = CryptoApi.Random(random, 16);
                int tailLength = tail[15] % 16;
                int length = 4 + size + 2 + tailLength;
                SafeCryptKey key;
                if (!CngMethods.CryptDuplicateKey(session, IntPtr.Zero, 0, out key)) throw WebfarmCryptoException.Last("CryptDuplicateKey");
                using (key)
                using (WebfarmSecret work = new WebfarmSecret(length + 16))
                {
                    Buffer.BlockCopy(prefix, 0, work.Bytes, 0, 4);
                    Buffer.BlockCopy(text, start, work.Bytes, 4, size);
                    Buffer.BlockCopy(tail, 0, work.Bytes, 4 + size + 2, tailLength);
                    if (!NativeMethods.CryptEncrypt(key, IntPtr.Zero, true, 0, work.Bytes, ref length, work.Bytes.Length))
                        throw WebfarmCryptoException.Last("encrypting a value");
                    return CryptoApi.Slice(work.Bytes, 0, length);
                }
            }
        }

        /// <summary>One RSA block, PKCS #1 v1.5, in CryptoAPI's byte order.</summary>
        internal byte[] EncryptRsa(WebfarmProvider provider, byte[] text, int start, int size)
        {
            OpenContainer container = Container(provider.Container);
            if (container.Failure != null) throw new WebfarmConfigurationException(File.Name, provider.Line, container.Failure.Message);
            int length = size;
            using (WebfarmSecret work = new WebfarmSecret(Math.Max(size, 2048)))
            {
                Buffer.BlockCopy(text, start, work.Bytes, 0, size);
                if (!NativeMethods.CryptEncrypt(container.Key, IntPtr.Zero, true, 0, work.Bytes, ref length, work.Bytes.Length))
                    throw WebfarmCryptoException.Last(String.Format("encrypting a value with container '{0}'", provider.Container));
                return CryptoApi.Slice(work.Bytes, 0, length);
            }
        }

        private static byte[] EncryptCng(WebfarmProvider provider, byte[] text, int start, int size)
        {
            if (!CngMethods.Present()) throw new InvalidOperationException(CngMethods.Absent);
            using (WebfarmSecret clear = new WebfarmSecret(size + 2))
            {
                Buffer.BlockCopy(text, start, clear.Bytes, 0, size);
                int length;
                uint status = CngMethods.IisCngEncrypt(provider.Container, clear.Bytes, null, out length);
                byte[] data = new byte[status == 0 ? length : 0];
                if (status == 0) status = CngMethods.IisCngEncrypt(provider.Container, clear.Bytes, data, out length);
                if (status != 0)
                    throw new WebfarmCryptoException((status & 0x80000000) != 0 ? status : WebfarmCryptoException.LastCode(),
                        String.Format("encrypting a value with CNG container '{0}'", provider.Container));
                return CryptoApi.Slice(data, 0, length);
            }
        }

        /// <summary>A fresh AES session key, wrapped for the key pair of a container (or its candidate).</summary>
        /// <returns>the handle; blob is the SIMPLEBLOB for the sessionKey attribute</returns>
        internal SafeCryptKey NewSession(WebfarmProvider provider, out byte[] blob)
        {
            OpenContainer container = Container(provider.Container);
            if (container.Failure != null) throw new WebfarmConfigurationException(File.Name, provider.Line, container.Failure.Message);
            byte[] old = Base64(provider.SessionKey);
            uint algorithm = old != null && SessionProblem(provider, old) == null ? BitConverter.ToUInt32(old, 4) : CryptoApi.AlgAes128;
            string operation = String.Format("making a session key for provider '{0}'", provider.Name);
            SafeCryptKey session;
            if (!NativeMethods.CryptGenKey(container.Provider, algorithm, CryptoApi.Exportable, out session)) throw WebfarmCryptoException.Last(operation);
            uint flags = provider.UseOaep ? CryptoApi.Oaep : 0;
            int length = 0;
            if (CngMethods.CryptExportKey(session, container.Key, CryptoApi.SimpleBlobType, flags, null, ref length))
            {
                blob = new byte[length];
                if (CngMethods.CryptExportKey(session, container.Key, CryptoApi.SimpleBlobType, flags, blob, ref length))
                {
                    blob = CryptoApi.Slice(blob, 0, length);
                    return session;
                }
            }
            WebfarmCryptoException error = WebfarmCryptoException.Last(operation);
            session.Dispose();
            throw error;
        }

        /// <returns>null when the text is not base64 in its strict form</returns>
        internal static byte[] Base64(string text)
        {
            if (String.IsNullOrEmpty(text) || text.Length % 4 != 0) return null;
            int end = text.Length;
            while (end > text.Length - 2 && text[end - 1] == '=') end--;
            for (int i = 0; i < end; i++)
            {
                char c = text[i];
                if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/')) return null;
            }
            return end == 0 ? null : Convert.FromBase64String(text);
        }
    }

    public static class WebfarmProtection
    {
        /// <summary>A verdict for every protected value of a file.</summary>
        /// <param name="candidates">keys that replace the machine's for their containers; null: the machine's own keys</param>
        public static WebfarmVerdict[] Prove(WebfarmConfigurationFile file, WebfarmKeySet candidates)
        {
            List<WebfarmVerdict> verdicts = new List<WebfarmVerdict>();
            using (Opener opener = new Opener(file, candidates))
            {
                foreach (WebfarmProtectedValue value in file.Values)
                {
                    Outcome outcome = opener.Open(value);
                    if (outcome.Buffer != null) outcome.Buffer.Dispose();
                    WebfarmProvider provider = value.Provider == null ? null : file.Provider(value.Provider);
                    WebfarmVerdict verdict = new WebfarmVerdict();
                    verdict.File = file.Name;
                    verdict.Path = value.Path;
                    verdict.Line = value.Line;
                    verdict.Provider = provider == null ? value.Provider : provider.Name;
                    verdict.Kind = provider == null ? null : provider.Kind;
                    verdict.Container = provider == null ? null : provider.Container;
                    verdict.Verdict = outcome.Verdict;
                    verdict.Error = outcome.Error;
                    verdict.ErrorMessage = outcome.Message;
                    verdicts.Add(verdict);
                }
            }
            return verdicts.ToArray();
        }

        /// <summary>A verdict for the sessionKey of every AES provider of a file; no value is opened.</summary>
        public static WebfarmSessionKeyVerdict[] ProveSessionKeys(WebfarmConfigurationFile file, WebfarmKeySet candidates)
        {
            List<WebfarmSessionKeyVerdict> verdicts = new List<WebfarmSessionKeyVerdict>();
            using (Opener opener = new Opener(file, candidates))
            {
                foreach (WebfarmProvider provider in file.Providers)
                {
                    if (provider.Kind != "aes") continue;
                    OpenSession session = opener.Session(provider);
                    WebfarmSessionKeyVerdict verdict = new WebfarmSessionKeyVerdict();
                    verdict.Provider = provider.Name;
                    verdict.Container = provider.Container;
                    verdict.Line = provider.Line;
                    verdict.Algorithm = session.Algorithm;
                    verdict.KeyBits = session.KeyBits;
                    verdict.Verdict = session.Failure == null ? "ok" : session.Failure.Verdict;
                    verdict.Error = session.Failure == null ? 0 : session.Failure.Error;
                    verdict.ErrorMessage = session.Failure == null ? null : session.Failure.Message;
                    verdicts.Add(verdict);
                }
            }
            return verdicts.ToArray();
        }

        /// <summary>
        /// Whether two files say the same: equal bytes, or equal apart from ciphertexts and sessionKeys with equal clear texts under
        /// equal provider names. Values that neither side can open must be the same to the letter.
        /// </summary>
        public static bool SameContent(WebfarmConfigurationFile first, WebfarmKeySet firstKeys, WebfarmConfigurationFile second, WebfarmKeySet secondKeys)
        {
            if (first.Sha256 == second.Sha256 && firstKeys == null && secondKeys == null) return true;
            if (WebfarmConfiguration.Skeleton(first) != WebfarmConfiguration.Skeleton(second) || first.Values.Length != second.Values.Length) return false;
            using (Opener one = new Opener(first, firstKeys))
            using (Opener two = new Opener(second, secondKeys))
            {
                for (int i = 0; i < first.Providers.Length; i++)
                {
                    if (first.Providers[i].Kind != "aes") continue;
                    if ((one.Session(first.Providers[i]).Failure == null) != (two.Session(second.Providers[i]).Failure == null)) return false;
                }
                for (int i = 0; i < first.Values.Length; i++)
                    if (!SameValue(one.Open(first.Values[i]), two.Open(second.Values[i]), first.Values[i], second.Values[i])) return false;
            }
            return true;
        }

        private static bool SameValue(Outcome one, Outcome two, WebfarmProtectedValue first, WebfarmProtectedValue second)
        {
            using (one.Buffer)
            using (two.Buffer)
            {
                if (one.Verdict != two.Verdict) return false;
                if (one.Verdict != "ok") return first.Data == second.Data;
                return SameText(one, two.Buffer.Bytes, two.Start, two.Length);
            }
        }

        private static bool SameText(Outcome outcome, byte[] text, int start, int size)
        {
            if (outcome.Length != size) return false;
            for (int i = 0; i < size; i++)
                if (outcome.Buffer.Bytes[outcome.Start + i] != text[start + i]) return false;
            return true;
        }

        /// <summary>
        /// The file with the values of CNG providers re-encrypted under AES providers, which IIS reads by the provider name inside the value.
        /// WAS-only values go to the WAS-only provider, the others to the one that worker processes can read, never otherwise.
        /// The result is proven before it is returned. Nothing is written.
        /// </summary>
        /// <param name="skip">paths of values that are left as they are (accepted as undecryptable); may be null</param>
        public static WebfarmPortable MakePortable(WebfarmConfigurationFile file, string[] skip)
        {
            HashSet<string> left = new HashSet<string>(skip ?? new string[0]);
            Dictionary<string, string> edits = new Dictionary<string, string>();
            List<WebfarmConversion> conversions = new List<WebfarmConversion>();
            using (Opener opener = new Opener(file, null))
            {
                foreach (WebfarmProtectedValue value in file.Values)
                {
                    WebfarmProvider provider = value.Provider == null ? null : file.Provider(value.Provider);
                    if (provider == null || provider.Kind != "cng" || left.Contains(value.Path)) continue;
                    WebfarmProvider target = PortableProvider(file, provider, value);
                    Outcome outcome = opener.Open(value);
                    using (outcome.Buffer)
                    {
                        if (outcome.Verdict != "ok")
                            throw new WebfarmConfigurationException(file.Name, value.Line, String.Format("{0}: {1}", value.Path, outcome.Message));
                        edits.Add(value.Path, opener.Encrypt(target, outcome.Buffer.Bytes, outcome.Start, outcome.Length));
                    }
                    WebfarmConversion conversion = new WebfarmConversion();
                    conversion.Path = value.Path;
                    conversion.FromProvider = provider.Name;
                    conversion.ToProvider = target.Name;
                    conversions.Add(conversion);
                }
            }
            WebfarmPortable result = new WebfarmPortable();
            result.Bytes = edits.Count == 0 ? file.Bytes : WebfarmConfiguration.Replace(file, edits);
            result.Conversions = conversions.ToArray();
            Compare(file, null, WebfarmConfiguration.Parse(result.Bytes, file.Name), null, left);
            return result;
        }

        /// <summary>
        /// The file for other keys: every AES provider whose container is in the key set gets a new session key, and every value of those
        /// containers is opened with the machine's present keys and encrypted anew, so that whoever held the old key and file reads nothing
        /// of the new one. Values of other containers stay as they are. The result is proven before it is returned. Nothing is written.
        /// </summary>
        public static WebfarmReencrypted Reencrypt(WebfarmConfigurationFile file, WebfarmKeySet candidates)
        {
            return Reencrypt(file, candidates, null, null);
        }

        /// <summary>
        /// The same for a file that takes providers from another one (see WebfarmConfigurationFile.Under), which changes as well: values of
        /// such providers are encrypted with what the other file is going to hold, unless they open with that already.
        /// </summary>
        /// <param name="before">the other file as it is; null: there is none</param>
        /// <param name="after">the other file as it is going to be</param>
        public static WebfarmReencrypted Reencrypt(WebfarmConfigurationFile file, WebfarmKeySet candidates,
            WebfarmConfigurationFile before, WebfarmConfigurationFile after)
        {
            Dictionary<string, string> edits = new Dictionary<string, string>();
            List<string> done = new List<string>(), lost = new List<string>(), providers = new List<string>();
            Dictionary<string, SafeCryptKey> sessions = new Dictionary<string, SafeCryptKey>(StringComparer.OrdinalIgnoreCase);
            WebfarmConfigurationFile now = file.Under(before), then = file.Under(after);
            using (Opener present = new Opener(now, null))
            using (Opener coming = new Opener(then, candidates))
            {
                try
                {
                    foreach (WebfarmProvider provider in file.Providers)
                    {
                        if (provider.Kind != "aes" || !candidates.Blobs.ContainsKey(provider.Container)) continue;
                        byte[] blob;
                        sessions.Add(provider.Name, coming.NewSession(provider, out blob));
                        edits.Add(provider.SessionKeyPath, Convert.ToBase64String(blob));
                        providers.Add(provider.Name);
                    }
                    foreach (WebfarmProtectedValue value in file.Values)
                    {
                        WebfarmProvider old = value.Provider == null ? null : now.Provider(value.Provider);
                        WebfarmProvider provider = value.Provider == null ? null : then.Provider(value.Provider);
                        if (old == null || (old.Kind != "aes" && old.Kind != "rsa")) continue;
                        bool own = file.Declares(old), affected = candidates.Blobs.ContainsKey(old.Container);
                        if (own && !affected) continue;
                        if (!own && Opens(coming, value)) continue;
                        // A value that the new key opens already: somebody brought it here before the key.
                        Outcome outcome = present.Open(value);
                        if (outcome.Verdict != "ok") outcome = coming.Open(value);
                        using (outcome.Buffer)
                        {
                            if (outcome.Verdict != "ok" || provider == null)
                            {
                                if (affected || outcome.Verdict == "ok") lost.Add(value.Path);
                                continue;
                            }
                            string text;
                            // Of a direct RSA value every byte is kept: its layout is IIS's own business.
                            if (provider.Kind == "rsa" && old.Kind == "rsa") text = Opener.Value(provider, coming.EncryptRsa(provider, outcome.Buffer.Bytes, 0, outcome.Whole));
                            else if (!own) text = coming.Encrypt(provider, outcome.Buffer.Bytes, outcome.Start, outcome.Length);
                            else text = Opener.Value(provider, Opener.EncryptAes(sessions[provider.Name], outcome.Buffer.Bytes, outcome.Start, outcome.Length));
                            edits.Add(value.Path, text);
                            done.Add(value.Path);
                        }
                    }
                }
                finally
                {
                    foreach (SafeCryptKey session in sessions.Values) session.Dispose();
                }
            }
            WebfarmReencrypted result = new WebfarmReencrypted();
            result.Bytes = edits.Count == 0 ? file.Bytes : WebfarmConfiguration.Replace(file, edits);
            result.Values = done.ToArray();
            result.Lost = lost.ToArray();
            result.Providers = providers.ToArray();
            CompareDone(now, then, candidates, WebfarmConfiguration.Parse(result.Bytes, file.Name).Under(after), new HashSet<string>(done));
            return result;
        }

        private static bool Opens(Opener opener, WebfarmProtectedValue value)
        {
            Outcome outcome = opener.Open(value);
            if (outcome.Buffer != null) outcome.Buffer.Dispose();
            return outcome.Verdict == "ok";
        }

        // Every value that was encrypted anew says what the old one said, with the present keys or with the new ones.
        private static void CompareDone(WebfarmConfigurationFile now, WebfarmConfigurationFile then, WebfarmKeySet candidates, WebfarmConfigurationFile result,
            HashSet<string> done)
        {
            using (Opener present = new Opener(now, null))
            using (Opener coming = new Opener(then, candidates))
            using (Opener written = new Opener(result, candidates))
            {
                for (int i = 0; i < now.Values.Length; i++)
                {
                    if (!done.Contains(now.Values[i].Path)) continue;
                    Outcome old = present.Open(now.Values[i]);
                    if (old.Verdict != "ok") old = coming.Open(now.Values[i]);
                    if (now.Values[i].Path != result.Values[i].Path || !SameValue(old, written.Open(result.Values[i]), now.Values[i], result.Values[i]))
                        throw new InvalidOperationException(String.Format("the new file does not open to the same text at {0}", now.Values[i].Path));
                }
            }
        }

        /// <summary>
        /// The file with one attribute set to a text, encrypted under a provider of the file with the machine's keys (or candidates).
        /// </summary>
        /// <returns>null when the attribute holds that text under that provider already; the bytes of the new file otherwise</returns>
        public static byte[] SetValue(WebfarmConfigurationFile file, WebfarmKeySet candidates, string path, string providerName, string text)
        {
            WebfarmProvider provider = file.Provider(providerName);
            if (provider == null)
                throw new WebfarmConfigurationException(file.Name, 0, String.Format("provider '{0}' is not declared in configProtectedData of this file", providerName));
            using (WebfarmSecret clear = new WebfarmSecret(text.Length * 2))
            using (Opener opener = new Opener(file, candidates))
            {
                Encoding.Unicode.GetBytes(text, 0, text.Length, clear.Bytes, 0);
                string why = Judge.Text(clear.Bytes, 0, text.Length * 2);
                if (why != null) throw new ArgumentException(String.Format("the value for {0} cannot be encrypted: {1}", path, why));
                foreach (WebfarmProtectedValue value in file.Values)
                {
                    if (value.Path != path || value.Provider == null || file.Provider(value.Provider) != provider) continue;
                    Outcome outcome = opener.Open(value);
                    using (outcome.Buffer)
                        if (outcome.Verdict == "ok" && SameText(outcome, clear.Bytes, 0, text.Length * 2)) return null;
                }
                Dictionary<string, string> edits = new Dictionary<string, string>();
                edits.Add(path, opener.Encrypt(provider, clear.Bytes, 0, text.Length * 2));
                return WebfarmConfiguration.Replace(file, edits);
            }
        }

        /// <summary>One value, opened with the machine's keys; null when it does not open.</summary>
        public static SecureString OpenSecure(WebfarmConfigurationFile file, string path)
        {
            using (Opener opener = new Opener(file, null))
            {
                foreach (WebfarmProtectedValue value in file.Values)
                {
                    if (value.Path != path) continue;
                    Outcome outcome = opener.Open(value);
                    using (outcome.Buffer)
                    {
                        if (outcome.Verdict != "ok") return null;
                        SecureString text = new SecureString();
                        for (int i = 0; i < outcome.Length; i += 2)
                            text.AppendChar((char)(outcome.Buffer.Bytes[outcome.Start + i] | outcome.Buffer.Bytes[outcome.Start + i + 1] << 8));
                        text.MakeReadOnly();
                        return text;
                    }
                }
            }
            return null;
        }

        private static WebfarmProvider PortableProvider(WebfarmConfigurationFile file, WebfarmProvider provider, WebfarmProtectedValue value)
        {
            string container = String.Equals(provider.Container, "iisCngWasKey", StringComparison.OrdinalIgnoreCase) ? "iisWasKey"
                : String.Equals(provider.Container, "iisCngConfigurationKey", StringComparison.OrdinalIgnoreCase) ? "iisConfigurationKey" : null;
            if (container == null)
                throw new WebfarmConfigurationException(file.Name, value.Line,
                    String.Format("{0}: provider '{1}' uses container '{2}', which is not one of IIS's own; it is not known who may read it, so it is not converted",
                        value.Path, provider.Name, provider.Container));
            foreach (WebfarmProvider candidate in file.Providers)
                if (candidate.Kind == "aes" && String.Equals(candidate.Container, container, StringComparison.OrdinalIgnoreCase)) return candidate;
            throw new WebfarmConfigurationException(file.Name, value.Line,
                String.Format("{0}: no AES provider with container '{1}' is declared, so the value cannot be made portable", value.Path, container));
        }

        // Same texts, other ciphertexts: every value of the new file must open to what the old one says.
        private static void Compare(WebfarmConfigurationFile before, WebfarmKeySet beforeKeys, WebfarmConfigurationFile after, WebfarmKeySet afterKeys,
            HashSet<string> left)
        {
            if (before.Values.Length != after.Values.Length)
                throw new InvalidOperationException("the new file has another number of protected values than its source");
            using (Opener one = new Opener(before, beforeKeys))
            using (Opener two = new Opener(after, afterKeys))
            {
                for (int i = 0; i < before.Values.Length; i++)
                {
                    if (left.Contains(before.Values[i].Path)) continue;
                    if (before.Values[i].Path != after.Values[i].Path
                        || !SameValue(one.Open(before.Values[i]), two.Open(after.Values[i]), before.Values[i], after.Values[i]))
                        throw new InvalidOperationException(String.Format("the new file does not open to the same text at {0}", before.Values[i].Path));
                }
            }
        }
    }
}
