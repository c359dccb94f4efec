// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// FOR INTERNAL COLLECTION USE ONLY
// The interfaces in this file are meant for use within the webfarm.iis collection
// and may change in any release, even a bugfix release.

// The secrets of one configuration for the keys of other servers: session keys are opened once with this machine's keys and wrapped
// again for any number of public keys. Session keys and clear texts stay in CryptoAPI and in pinned memory; what leaves is encrypted.

using System;
using System.Collections.Generic;
using System.Text;
using ansible_collections.webfarm.iis.plugins.module_utils._Configuration;
using ansible_collections.webfarm.iis.plugins.module_utils._KeyContainer;
using ansible_collections.webfarm.iis.plugins.module_utils._Protection;

//TypeAccelerator -Name WebfarmRewrapper -TypeName WebfarmRewrapper

namespace ansible_collections.webfarm.iis.plugins.module_utils._Rewrap
{
    /// <summary>An opened value whose text waits in pinned memory to be encrypted again.</summary>
    internal sealed class WaitingValue : IDisposable
    {
        internal string Path;
        /// <summary>The provider as the value spells it.</summary>
        internal string Name;
        internal WebfarmProvider Provider;
        internal Outcome Text;

        public void Dispose()
        {
            Text.Buffer.Dispose();
        }
    }

    /// <summary>
    /// Opens a file once and wraps its secrets for many servers. Dispose zeroes everything. It reads private keys of this machine only
    /// through CryptoAPI, in the machine's own containers, and takes nothing but public keys of the others.
    /// </summary>
    public sealed class WebfarmRewrapper : IDisposable
    {
        private readonly WebfarmConfigurationFile file;
        private readonly bool fresh;
        // Holds copies of the session keys and the public keys of the others, and disappears with this object.
        private readonly SafeProvider context;
        private readonly List<WebfarmProvider> providers = new List<WebfarmProvider>();
        private readonly Dictionary<string, SafeCryptKey> sessions = new Dictionary<string, SafeCryptKey>(StringComparer.OrdinalIgnoreCase);
        private readonly List<WaitingValue> values = new List<WaitingValue>();

        /// <param name="file">the file as the machine's own keys open it</param>
        /// <param name="accepted">paths of session keys and values that stay as they are when they do not open; may be null</param>
        /// <param name="fresh">every server gets session keys of its own, and the values under them are encrypted anew</param>
        public WebfarmRewrapper(WebfarmConfigurationFile file, string[] accepted, bool fresh)
        {
            this.file = file;
            this.fresh = fresh;
            HashSet<string> left = new HashSet<string>(accepted ?? new string[0]);
            context = CryptoApi.Ephemeral();
            try
            {
                using (Opener opener = new Opener(file, null, true))
                {
                    foreach (WebfarmProvider provider in file.Providers)
                        if (provider.Kind == "aes" && !String.IsNullOrEmpty(provider.SessionKey)) Take(opener, provider, left);
                    foreach (WebfarmProtectedValue value in file.Values) Take(opener, value, left);
                }
            }
            catch
            {
                Dispose();
                throw;
            }
        }

        public void Dispose()
        {
            foreach (WaitingValue value in values) value.Dispose();
            foreach (SafeCryptKey session in sessions.Values) session.Dispose();
            context.Dispose();
        }

        private void Take(Opener opener, WebfarmProvider provider, HashSet<string> left)
        {
            OpenSession session = opener.Session(provider);
            if (session.Failure != null && left.Contains(provider.SessionKeyPath)) return;
            if (session.Failure != null) throw new WebfarmConfigurationException(file.Name, provider.Line, session.Failure.Message);
            string operation = String.Format("copying the session key of provider '{0}'", provider.Name);
            int length = 0;
            if (!NativeMethods.CryptExportKey(session.Key, IntPtr.Zero, CryptoApi.PlainTextBlobType, 0, null, ref length)) throw WebfarmCryptoException.Last(operation);
            using (WebfarmSecret blob = new WebfarmSecret(length))
            {
                if (!NativeMethods.CryptExportKey(session.Key, IntPtr.Zero, CryptoApi.PlainTextBlobType, 0, blob.Bytes, ref length)) throw WebfarmCryptoException.Last(operation);
                sessions.Add(provider.Name, CryptoApi.Import(context, blob.Bytes, CryptoApi.Exportable, operation));
            }
            providers.Add(provider);
        }

        private void Take(Opener opener, WebfarmProtectedValue value, HashSet<string> left)
        {
            WebfarmProvider provider = value.Provider == null ? null : file.Provider(value.Provider);
            // A value under a session key moves with it, unless that is replaced. Everything else has to be encrypted anew.
            if (provider != null && provider.Kind == "aes" && !fresh && sessions.ContainsKey(provider.Name)) return;
            if (provider != null && provider.Kind == "cng" && left.Contains(value.Path)) return;
            if (provider != null && provider.Kind == "cng")
                throw new WebfarmConfigurationException(file.Name, value.Line,
                    String.Format("{0}: the value depends on CNG container '{1}' of this server: make the copy portable first", value.Path, provider.Container));
            Outcome outcome = opener.Open(value);
            if (outcome.Verdict != "ok" && left.Contains(value.Path)) return;
            if (outcome.Verdict != "ok") throw new WebfarmConfigurationException(file.Name, value.Line, String.Format("{0}: {1}", value.Path, outcome.Message));
            WaitingValue waiting = new WaitingValue();
            waiting.Path = value.Path;
            waiting.Name = value.Provider;
            waiting.Provider = provider;
            waiting.Text = outcome;
            values.Add(waiting);
        }

        /// <summary>The attribute paths that Wrap gives new values for, in its order.</summary>
        public string[] Paths
        {
            get
            {
                List<string> paths = new List<string>();
                foreach (WebfarmProvider provider in providers) paths.Add(provider.SessionKeyPath);
                foreach (WaitingValue value in values) paths.Add(value.Path);
                return paths.ToArray();
            }
        }

        /// <summary>The new attribute values for one server.</summary>
        /// <param name="containers">key containers, with the server's public keys (big-endian, base64) in the same order</param>
        public string[] Wrap(string[] containers, string[] moduli, string[] exponents)
        {
            Dictionary<string, SafeCryptKey> keys = new Dictionary<string, SafeCryptKey>(StringComparer.OrdinalIgnoreCase);
            Dictionary<string, SafeCryptKey> own = new Dictionary<string, SafeCryptKey>(StringComparer.OrdinalIgnoreCase);
            List<string> result = new List<string>();
            try
            {
                for (int i = 0; i < containers.Length; i++)
                {
                    byte[] blob = RsaBlob.PublicBlob(Convert.FromBase64String(moduli[i]), Convert.FromBase64String(exponents[i]));
                    keys.Add(containers[i], CryptoApi.Import(context, blob, 0, String.Format("importing a public key of container '{0}'", containers[i])));
                }
                foreach (WebfarmProvider provider in providers)
                {
                    SafeCryptKey session = sessions[provider.Name];
                    if (fresh)
                    {
                        session = Generate(provider);
                        own.Add(provider.Name, session);
                    }
                    result.Add(Convert.ToBase64String(Export(session, Key(keys, provider), provider)));
                }
                foreach (WaitingValue value in values)
                {
                    byte[] data;
                    if (value.Provider.Kind == "rsa") data = EncryptRsa(Key(keys, value.Provider), value);
                    else data = Opener.EncryptAes(own[value.Provider.Name], value.Text.Buffer.Bytes, value.Text.Start, value.Text.Length);
                    result.Add("[enc:" + value.Name + ":" + Convert.ToBase64String(data) + ":enc]");
                }
            }
            finally
            {
                foreach (SafeCryptKey session in own.Values) session.Dispose();
                foreach (SafeCryptKey key in keys.Values) key.Dispose();
            }
            return result.ToArray();
        }

        /// <summary>
        /// Wrap for many servers. A line of the request is the number of a server, container, modulus and exponent, parted by tabs, one
        /// line per container, the lines of a server together; a line of the answer is the number and what Wrap gives.
        /// </summary>
        public string Answer(string request)
        {
            StringBuilder answer = new StringBuilder();
            List<string[]> lines = new List<string[]>();
            foreach (string line in request.Split(new char[] { '\n' }, StringSplitOptions.RemoveEmptyEntries))
            {
                string[] parts = line.Split('\t');
                if (parts.Length != 4) throw new ArgumentException("a public key is number, container, modulus and exponent");
                if (lines.Count > 0 && lines[0][0] != parts[0]) Finish(lines, answer);
                lines.Add(parts);
            }
            if (lines.Count > 0) Finish(lines, answer);
            return answer.ToString();
        }

        private void Finish(List<string[]> lines, StringBuilder answer)
        {
            string[][] columns = new string[3][];
            for (int i = 0; i < 3; i++) columns[i] = lines.ConvertAll(delegate(string[] parts) { return parts[i + 1]; }).ToArray();
            answer.Append(lines[0][0]);
            foreach (string value in Wrap(columns[0], columns[1], columns[2])) answer.Append('\t').Append(value);
            answer.Append('\n');
            lines.Clear();
        }

        private SafeCryptKey Key(Dictionary<string, SafeCryptKey> keys, WebfarmProvider provider)
        {
            SafeCryptKey key;
            if (!keys.TryGetValue(provider.Container, out key))
                throw new WebfarmConfigurationException(file.Name, provider.Line,
                    String.Format("provider '{0}' needs container '{1}', and no public key was given for it", provider.Name, provider.Container));
            return key;
        }

        private SafeCryptKey Generate(WebfarmProvider provider)
        {
            SafeCryptKey session;
            uint algorithm = BitConverter.ToUInt32(Opener.Base64(provider.SessionKey), 4);
            if (!NativeMethods.CryptGenKey(context, algorithm, CryptoApi.Exportable, out session))
                throw WebfarmCryptoException.Last(String.Format("making a session key for provider '{0}'", provider.Name));
            return session;
        }

        private static byte[] Export(SafeCryptKey session, SafeCryptKey key, WebfarmProvider provider)
        {
            string operation = String.Format("wrapping the session key of provider '{0}'", provider.Name);
            uint flags = provider.UseOaep ? CryptoApi.Oaep : 0;
            int length = 0;
            if (!CngMethods.CryptExportKey(session, key, CryptoApi.SimpleBlobType, flags, null, ref length)) throw WebfarmCryptoException.Last(operation);
            byte[] blob = new byte[length];
            if (!CngMethods.CryptExportKey(session, key, CryptoApi.SimpleBlobType, flags, blob, ref length)) throw WebfarmCryptoException.Last(operation);
            return CryptoApi.Slice(blob, 0, length);
        }

        // Of a direct RSA value every byte is kept: its layout is IIS's own business.
        private byte[] EncryptRsa(SafeCryptKey key, WaitingValue value)
        {
            int length = value.Text.Whole;
            using (WebfarmSecret work = new WebfarmSecret(Math.Max(length, 2048)))
            {
                Buffer.BlockCopy(value.Text.Buffer.Bytes, 0, work.Bytes, 0, length);
                if (!NativeMethods.CryptEncrypt(key, IntPtr.Zero, true, 0, work.Bytes, ref length, work.Bytes.Length))
                {
                    WebfarmCryptoException error = WebfarmCryptoException.Last(
                        String.Format("encrypting a direct RSA value for another server's key of container '{0}'", value.Provider.Container));
                    throw new WebfarmConfigurationException(file.Name, 0, String.Format("{0}: {1}", value.Path, error.Message));
                }
                return CryptoApi.Slice(work.Bytes, 0, length);
            }
        }
    }
}
