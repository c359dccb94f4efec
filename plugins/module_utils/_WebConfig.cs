// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// FOR INTERNAL COLLECTION USE ONLY
// The interfaces in this file are meant for use within the webfarm.iis collection
// and may change in any release, even a bugfix release.

// web.config files of ASP.NET: the sections that it encrypted as a whole (XML Encryption), whether they open here, and the machineKey,
// of which only its kind and an HMAC under a key of the run leave this file.

using System;
using System.Collections.Generic;
using System.IO;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using System.Xml;
using ansible_collections.webfarm.iis.plugins.module_utils._Canonical;
using ansible_collections.webfarm.iis.plugins.module_utils._KeyContainer;

//AssemblyReference -Name System.Xml.dll -CLR Framework
//TypeAccelerator -Name WebfarmWebConfig -TypeName WebfarmWebConfig

namespace ansible_collections.webfarm.iis.plugins.module_utils._WebConfig
{
    /// <summary>A section that holds EncryptedData.</summary>
    public class WebfarmWebSection
    {
        public string Path { get; internal set; }
        public string Provider { get; internal set; }
        /// <summary>rsa, dpapi or unsupported.</summary>
        public string Kind { get; internal set; }
        /// <summary>The key container of an RSA provider.</summary>
        public string Container { get; internal set; }
        /// <summary>false: the container, or the DPAPI key, belongs to an account and not to the machine.</summary>
        public bool Machine { get; internal set; }
        /// <summary>The KeyName that the section itself gives.</summary>
        public string KeyName { get; internal set; }
        /// <summary>ok, bad_data, missing_key, denied, damaged, unknown_provider, unsupported or untested.</summary>
        public string Verdict { get; internal set; }
        public uint Error { get; internal set; }
        public string Message { get; internal set; }
    }

    /// <summary>The machineKey that an application gets.</summary>
    public class WebfarmMachineKey
    {
        /// <summary>generated (at least one of the two keys), explicit, or closed (its section does not open here).</summary>
        public string State { get; internal set; }
        /// <summary>The file that sets it; null: none, ASP.NET's own default.</summary>
        public string Source { get; internal set; }
        public string Validation { get; internal set; }
        public string Decryption { get; internal set; }
        /// <summary>HMAC under the run key; null where there is nothing to compare.</summary>
        public string Fingerprint { get; internal set; }
    }

    public class WebfarmWebConfig
    {
        private sealed class Provider
        {
            internal string Kind;
            internal string Container;
            internal bool Machine = true;
            internal bool Entropy;
        }

        private readonly Dictionary<string, Provider> providers = new Dictionary<string, Provider>(StringComparer.Ordinal);
        private readonly List<WebfarmWebSection> sections = new List<WebfarmWebSection>();
        private Dictionary<string, string> machineKey;
        private bool machineKeyClosed;

        /// <summary>What results call the file.</summary>
        public string Name { get; private set; }
        /// <summary>Number of attributes of the form [enc:Provider:data:enc].</summary>
        public int ProtectedValues { get; private set; }

        public WebfarmWebSection[] Sections
        {
            get { return sections.ToArray(); }
        }

        /// <param name="parents">the files that this one inherits from, the outermost first</param>
        /// <param name="decrypt">try the sections with the keys of this machine</param>
        public WebfarmWebConfig(byte[] bytes, string name, WebfarmWebConfig[] parents, bool decrypt)
        {
            Name = name;
            Provider rsa = new Provider();
            rsa.Kind = "rsa";
            rsa.Container = "NetFrameworkConfigurationKey";
            Provider dpapi = new Provider();
            dpapi.Kind = "dpapi";
            // What machine.config declares on every machine.
            providers["RsaProtectedConfigurationProvider"] = rsa;
            providers["DataProtectionConfigurationProvider"] = dpapi;
            foreach (WebfarmWebConfig parent in parents ?? new WebfarmWebConfig[0])
                foreach (KeyValuePair<string, Provider> known in parent.providers) providers[known.Key] = known.Value;
            XmlDocument document = new XmlDocument();
            document.XmlResolver = null;
            using (XmlReader reader = WebfarmCanonical.Reader(bytes)) document.Load(reader);
            if (document.DocumentElement.LocalName != "configuration")
                throw new XmlException(String.Format("the root element is <{0}>, not <configuration>", document.DocumentElement.Name));
            foreach (XmlElement block in Children(document.DocumentElement, "configProtectedData"))
                foreach (XmlElement list in Children(block, "providers"))
                    foreach (XmlElement add in Children(list, "add")) Declare(add);
            Walk(document.DocumentElement, "", decrypt, 0);
            ReadMachineKey(document.DocumentElement);
            foreach (XmlElement location in Children(document.DocumentElement, "location"))
            {
                string path = location.GetAttribute("path");
                if (path.Length == 0 || path == ".") ReadMachineKey(location);
            }
        }

        private static IEnumerable<XmlElement> Children(XmlElement parent, string name)
        {
            foreach (XmlNode node in parent.ChildNodes)
            {
                XmlElement element = node as XmlElement;
                if (element != null && (name == null || element.LocalName == name)) yield return element;
            }
        }

        private static XmlElement Child(XmlElement parent, string steps)
        {
            foreach (string step in steps.Split('/'))
            {
                XmlElement found = null;
                foreach (XmlElement element in Children(parent, step))
                    if (found == null) found = element;
                if (found == null) return null;
                parent = found;
            }
            return parent;
        }

        private void Declare(XmlElement add)
        {
            Provider provider = new Provider();
            string type = add.GetAttribute("type").Split(',')[0].Trim();
            provider.Kind = "unsupported";
            if (type.EndsWith("RsaProtectedConfigurationProvider", StringComparison.Ordinal))
            {
                provider.Kind = "rsa";
                provider.Container = add.GetAttribute("keyContainerName");
                if (provider.Container.Length == 0) provider.Container = "NetFrameworkConfigurationKey";
                provider.Machine = !String.Equals(add.GetAttribute("useMachineContainer"), "false", StringComparison.OrdinalIgnoreCase);
            }
            if (type.EndsWith("DpapiProtectedConfigurationProvider", StringComparison.Ordinal))
            {
                provider.Kind = "dpapi";
                provider.Entropy = add.GetAttribute("keyEntropy").Length > 0;
                provider.Machine = !String.Equals(add.GetAttribute("useMachineProtection"), "false", StringComparison.OrdinalIgnoreCase);
            }
            providers[add.GetAttribute("name")] = provider;
        }

        private void Walk(XmlElement element, string path, bool decrypt, int depth)
        {
            if (depth > 128) throw new XmlException("elements are nested deeper than 128");
            foreach (XmlAttribute attribute in element.Attributes)
                if (attribute.Value.StartsWith("[enc:", StringComparison.Ordinal) && attribute.Value.EndsWith(":enc]", StringComparison.Ordinal)) ProtectedValues++;
            string name = element.GetAttribute("configProtectionProvider");
            XmlElement data = Child(element, "EncryptedData");
            if (name.Length > 0 && data != null)
            {
                WebfarmWebSection section = Judge(element, data, path, name, decrypt);
                sections.Add(section);
                if (section.Verdict != "ok" && element.LocalName == "machineKey" && Belongs(element)) machineKeyClosed = true;
                return;
            }
            foreach (XmlElement child in Children(element, null))
            {
                string label = child.LocalName;
                if (label == "location" && path.Length == 0) label += "[@path='" + child.GetAttribute("path") + "']";
                Walk(child, path.Length == 0 ? label : path + "/" + label, decrypt, depth + 1);
            }
        }

        private WebfarmWebSection Judge(XmlElement element, XmlElement data, string path, string name, bool decrypt)
        {
            WebfarmWebSection section = new WebfarmWebSection();
            section.Path = path;
            section.Provider = name;
            section.Verdict = "untested";
            XmlElement keyName = Child(data, "KeyInfo/EncryptedKey/KeyInfo/KeyName");
            if (keyName != null) section.KeyName = keyName.InnerText.Trim();
            Provider provider;
            if (!providers.TryGetValue(name, out provider))
            {
                section.Kind = "unsupported";
                section.Verdict = "unknown_provider";
                section.Message = String.Format("no file that it inherits from declares the provider '{0}'", name);
                return section;
            }
            section.Kind = provider.Kind;
            section.Container = provider.Container;
            section.Machine = provider.Machine;
            if (provider.Kind == "unsupported") section.Verdict = "unsupported";
            if (!decrypt || provider.Kind == "unsupported") return section;
            if (!provider.Machine)
            {
                section.Message = "its key belongs to the account of the worker process";
                return section;
            }
            if (provider.Entropy)
            {
                section.Message = "its provider has a keyEntropy, with which it is not tried";
                return section;
            }
            byte[] clear = null;
            try
            {
                clear = provider.Kind == "rsa" ? OpenRsa(data, provider.Container) : OpenDpapi(data);
                XmlDocument inside = new XmlDocument();
                inside.XmlResolver = null;
                using (XmlReader reader = WebfarmCanonical.Reader(clear)) inside.Load(reader);
                if (inside.DocumentElement.LocalName != element.LocalName) throw new XmlException("it opens to another element");
                section.Verdict = "ok";
                if (element.LocalName == "machineKey" && Belongs(element)) Take(inside.DocumentElement);
            }
            catch (WebfarmCryptoException e)
            {
                section.Error = e.Code;
                section.Message = e.Message;
                string state = provider.Kind == "rsa" ? WebfarmKeyContainer.Inspect(provider.Container, "cryptoapi").State : "present";
                section.Verdict = state == "missing" ? "missing_key" : state == "present" ? "bad_data" : state;
            }
            // The text of these would show what the garbage was.
            catch (XmlException)
            {
                section.Verdict = "bad_data";
                section.Message = "it opens to something that is not its section: another key";
            }
            catch (NotSupportedException e)
            {
                section.Verdict = "unsupported";
                section.Message = e.Message;
            }
            catch (FormatException)
            {
                section.Verdict = "bad_data";
                section.Message = "a CipherValue is not base64";
            }
            catch (CryptographicException)
            {
                section.Verdict = "bad_data";
                section.Message = "its content does not open with its own key";
            }
            finally
            {
                if (clear != null) Array.Clear(clear, 0, clear.Length);
            }
            return section;
        }

        private static byte[] Cipher(XmlElement owner)
        {
            XmlElement value = Child(owner, "CipherData/CipherValue");
            if (value == null) throw new NotSupportedException("it has no CipherValue");
            return Convert.FromBase64String(value.InnerText.Trim());
        }

        private static string Algorithm(XmlElement owner)
        {
            XmlElement method = Child(owner, "EncryptionMethod");
            string name = method == null ? "" : method.GetAttribute("Algorithm");
            return name.Substring(name.LastIndexOf('#') + 1);
        }

        private static byte[] OpenRsa(XmlElement data, string container)
        {
            XmlElement wrapped = Child(data, "KeyInfo/EncryptedKey");
            if (wrapped == null) throw new NotSupportedException("it has no EncryptedKey");
            string how = Algorithm(wrapped);
            if (how != "rsa-1_5" && how != "rsa-oaep-mgf1p") throw new NotSupportedException(String.Format("the key is wrapped by '{0}'", how));
            byte[] block = Cipher(wrapped);
            // XML Encryption is big-endian, CryptoAPI little-endian.
            Array.Reverse(block);
            byte[] key = null;
            try
            {
                using (SafeProvider provider = CryptoApi.Open(container))
                using (SafeCryptKey pair = CryptoApi.UserKey(provider, container))
                {
                    int length = block.Length;
                    if (!NativeMethods.CryptDecrypt(pair, IntPtr.Zero, true, how == "rsa-1_5" ? 0 : CryptoApi.Oaep, block, ref length))
                        throw WebfarmCryptoException.Last(String.Format("opening the EncryptedKey with container '{0}'", container));
                    key = new byte[length];
                    Buffer.BlockCopy(block, 0, key, 0, length);
                }
                return OpenContent(Algorithm(data), key, Cipher(data));
            }
            finally
            {
                Array.Clear(block, 0, block.Length);
                if (key != null) Array.Clear(key, 0, key.Length);
            }
        }

        private static byte[] OpenContent(string how, byte[] key, byte[] cipher)
        {
            bool triple = how == "tripledes-cbc";
            int bytes = triple ? 24 : how == "aes128-cbc" ? 16 : how == "aes192-cbc" ? 24 : how == "aes256-cbc" ? 32 : 0;
            if (bytes == 0) throw new NotSupportedException(String.Format("its content is encrypted by '{0}'", how));
            if (key.Length != bytes) throw new CryptographicException("the key has another length");
            using (SymmetricAlgorithm algorithm = triple ? (SymmetricAlgorithm)TripleDES.Create() : Aes.Create())
            {
                int block = algorithm.BlockSize / 8;
                if (cipher.Length < 2 * block || cipher.Length % block != 0) throw new CryptographicException("the content has a wrong length");
                byte[] start = new byte[block];
                Buffer.BlockCopy(cipher, 0, start, 0, block);
                algorithm.Mode = CipherMode.CBC;
                algorithm.Padding = PaddingMode.None;
                using (ICryptoTransform transform = algorithm.CreateDecryptor(key, start))
                {
                    byte[] padded = transform.TransformFinalBlock(cipher, block, cipher.Length - block);
                    int pad = padded[padded.Length - 1];
                    if (pad < 1 || pad > block) throw new CryptographicException("the padding is wrong");
                    byte[] clear = new byte[padded.Length - pad];
                    Buffer.BlockCopy(padded, 0, clear, 0, clear.Length);
                    Array.Clear(padded, 0, padded.Length);
                    return clear;
                }
            }
        }

        private static byte[] OpenDpapi(XmlElement data)
        {
            byte[] cipher = Cipher(data);
            NativeMethods.DataBlob input = new NativeMethods.DataBlob();
            NativeMethods.DataBlob output = new NativeMethods.DataBlob();
            input.Length = cipher.Length;
            input.Data = Marshal.AllocHGlobal(Math.Max(cipher.Length, 1));
            try
            {
                Marshal.Copy(cipher, 0, input.Data, cipher.Length);
                // 1: no prompt.
                if (!NativeMethods.CryptUnprotectData(ref input, IntPtr.Zero, IntPtr.Zero, IntPtr.Zero, IntPtr.Zero, 1, ref output))
                    throw WebfarmCryptoException.Last("opening the section with DPAPI");
                byte[] clear = new byte[output.Length];
                Marshal.Copy(output.Data, clear, 0, output.Length);
                Marshal.Copy(new byte[output.Length], 0, output.Data, output.Length);
                if (clear.Length < 2 || clear[1] != 0) return clear;
                byte[] narrow = Encoding.Convert(Encoding.Unicode, Encoding.UTF8, clear);
                Array.Clear(clear, 0, clear.Length);
                return narrow;
            }
            finally
            {
                Marshal.FreeHGlobal(input.Data);
                if (output.Data != IntPtr.Zero) NativeMethods.LocalFree(output.Data);
            }
        }

        // Whether a machineKey is that of the folder of the file, and not of a path below.
        private static bool Belongs(XmlElement element)
        {
            XmlElement web = element.ParentNode as XmlElement;
            XmlElement above = web == null ? null : web.ParentNode as XmlElement;
            if (above == null || web.LocalName != "system.web") return false;
            return above.LocalName == "configuration" || (above.LocalName == "location" && (above.GetAttribute("path").Length == 0 || above.GetAttribute("path") == "."));
        }

        private void ReadMachineKey(XmlElement parent)
        {
            XmlElement element = Child(parent, "system.web/machineKey");
            if (element != null && element.GetAttribute("configProtectionProvider").Length == 0) Take(element);
        }

        private void Take(XmlElement element)
        {
            if (machineKey == null) machineKey = new Dictionary<string, string>(StringComparer.Ordinal);
            foreach (XmlAttribute attribute in element.Attributes) machineKey[attribute.LocalName] = attribute.Value;
        }

        /// <summary>The machineKey that an application gets from a chain of files, the outermost first.</summary>
        public static WebfarmMachineKey Effective(WebfarmWebConfig[] chain, byte[] runKey)
        {
            Dictionary<string, string> set = new Dictionary<string, string>(StringComparer.Ordinal);
            WebfarmMachineKey result = new WebfarmMachineKey();
            foreach (WebfarmWebConfig file in chain)
            {
                if (file.machineKey == null && !file.machineKeyClosed) continue;
                result.Source = file.Name;
                if (file.machineKeyClosed) result.State = "closed";
                if (file.machineKey == null) continue;
                if (file.machineKey.ContainsKey("validationKey") && file.machineKey.ContainsKey("decryptionKey")) result.State = null;
                foreach (KeyValuePair<string, string> one in file.machineKey) set[one.Key] = one.Value;
            }
            string validationKey = Of(set, "validationKey", "AutoGenerate,IsolateApps");
            string decryptionKey = Of(set, "decryptionKey", "AutoGenerate,IsolateApps");
            result.Validation = Of(set, "validation", null);
            result.Decryption = Of(set, "decryption", null);
            if (result.State == "closed") return result;
            result.State = IsGenerated(validationKey) || IsGenerated(decryptionKey) ? "generated" : "explicit";
            if (result.State == "explicit" && runKey != null)
                result.Fingerprint = WebfarmCanonical.Hmac(runKey, String.Join("\n", new string[]
                {
                    "machineKey", validationKey.ToUpperInvariant(), decryptionKey.ToUpperInvariant(), result.Validation ?? "", result.Decryption ?? ""
                }));
            return result;
        }

        private static string Of(Dictionary<string, string> set, string name, string otherwise)
        {
            string value;
            return set.TryGetValue(name, out value) && value.Length > 0 ? value : otherwise;
        }

        private static bool IsGenerated(string value)
        {
            return value.StartsWith("AutoGenerate", StringComparison.OrdinalIgnoreCase);
        }
    }
}
