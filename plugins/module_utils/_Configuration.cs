// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// FOR INTERNAL COLLECTION USE ONLY
// The interfaces in this file are meant for use within the webfarm.iis collection
// and may change in any release, even a bugfix release.

// IIS configuration files: read, find what is encrypted, change attribute values byte-exactly, replace a file.

using System;
using System.Collections.Generic;
using System.IO;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;
using System.Xml;
using ansible_collections.webfarm.iis.plugins.module_utils._KeyContainer;

//AssemblyReference -Name System.Xml.dll -CLR Framework
//TypeAccelerator -Name WebfarmConfiguration -TypeName WebfarmConfiguration
//TypeAccelerator -Name WebfarmConfigurationFile -TypeName WebfarmConfigurationFile
//TypeAccelerator -Name WebfarmConfigurationException -TypeName WebfarmConfigurationException

namespace ansible_collections.webfarm.iis.plugins.module_utils._Configuration
{
    /// <summary>A configuration file that cannot be used: the message names the file, the line and the reason.</summary>
    public class WebfarmConfigurationException : Exception
    {
        public string File { get; private set; }
        public int Line { get; private set; }

        public WebfarmConfigurationException(string file, int line, string reason)
            : base(line > 0 ? String.Format("{0}, line {1}: {2}", file, line, reason) : String.Format("{0}: {1}", file, reason))
        {
            File = file;
            Line = line;
        }
    }

    /// <summary>One entry of configProtectedData/providers.</summary>
    public class WebfarmProvider
    {
        public string Name { get; internal set; }
        public string Type { get; internal set; }
        /// <summary>rsa (no type: direct RSA), aes, cng or unsupported.</summary>
        public string Kind { get; internal set; }
        public string Container { get; internal set; }
        public bool UseOaep { get; internal set; }
        /// <summary>base64 SIMPLEBLOB, null where there is none.</summary>
        public string SessionKey { get; internal set; }
        public int Line { get; internal set; }
        /// <summary>Attribute path of the sessionKey.</summary>
        public string SessionKeyPath { get; internal set; }

        /// <summary>true where only WAS may read: the container is one of the two WAS keys.</summary>
        public bool WasOnly
        {
            get { return WebfarmConfiguration.IsWasOnly(Container); }
        }
    }

    /// <summary>An attribute of the form [enc:Provider:data:enc].</summary>
    public class WebfarmProtectedValue
    {
        /// <summary>Attribute path relative to configuration, an XPath.</summary>
        public string Path { get; internal set; }
        public int Line { get; internal set; }
        /// <summary>Provider named in the value; null when the value is malformed.</summary>
        public string Provider { get; internal set; }
        /// <summary>base64; null when the value is malformed.</summary>
        public string Data { get; internal set; }
    }

    public class WebfarmBinding
    {
        public string Protocol { get; internal set; }
        /// <summary>Address, * for all.</summary>
        public string Address { get; internal set; }
        public int Port { get; internal set; }
        public string HostName { get; internal set; }
    }

    public class WebfarmSite
    {
        public string Name { get; internal set; }
        public WebfarmBinding[] Bindings { get; internal set; }
        /// <summary>Application pools of the site's applications, the root application first.</summary>
        public string[] Pools { get; internal set; }
        /// <summary>Physical paths of the site's virtual directories, as written.</summary>
        public string[] Folders { get; internal set; }
    }

    public class WebfarmRedirection
    {
        public bool Enabled { get; internal set; }
        public string Path { get; internal set; }
    }

    /// <summary>A parsed configuration file. The text is kept as it is; positions refer to it.</summary>
    public class WebfarmConfigurationFile
    {
        /// <summary>File name for messages and results, such as applicationHost.config.</summary>
        public string Name { get; internal set; }
        public byte[] Bytes { get; internal set; }
        public bool ByteOrderMark { get; internal set; }
        /// <summary>CRLF, LF, CR, mixed or none.</summary>
        public string NewLine { get; internal set; }
        public string Sha256
        {
            get
            {
                if (sha256 == null) sha256 = WebfarmKeyContainer.Sha256(Bytes);
                return sha256;
            }
            internal set { sha256 = value; }
        }
        public WebfarmProvider[] Providers { get; internal set; }
        /// <summary>Protected values in document order, without the empty form [enc:X::enc].</summary>
        public WebfarmProtectedValue[] Values { get; internal set; }
        /// <summary>Sections that ASP.NET encrypted as a whole (configProtectionProvider); Data is null.</summary>
        public WebfarmProtectedValue[] Sections { get; internal set; }
        public WebfarmSite[] Sites { get; internal set; }
        public string[] Pools { get; internal set; }
        internal string Text;
        internal List<Attribute> Attributes;
        internal List<Element> Elements;
        /// <summary>The XML declaration says us-ascii and the text is.</summary>
        internal bool Ascii;
        private WebfarmConfigurationFile parent;
        private string sha256;

        /// <summary>The provider of that name (the case does not matter, real files mix it), or null.</summary>
        public WebfarmProvider Provider(string name)
        {
            foreach (WebfarmProvider provider in Providers)
                if (String.Equals(provider.Name, name, StringComparison.OrdinalIgnoreCase)) return provider;
            return parent == null ? null : parent.Provider(name);
        }

        /// <summary>
        /// The same content with providers that it does not declare itself taken from another file: web.config and administration.config
        /// use those of applicationHost.config.
        /// </summary>
        public WebfarmConfigurationFile Under(WebfarmConfigurationFile other)
        {
            WebfarmConfigurationFile copy = (WebfarmConfigurationFile)MemberwiseClone();
            copy.parent = other;
            return copy;
        }

        /// <summary>Whether the file itself declares the provider.</summary>
        internal bool Declares(WebfarmProvider provider)
        {
            return Array.IndexOf(Providers, provider) >= 0;
        }

        /// <summary>Paths and lines of every attribute whose value the parser saw; for edits.</summary>
        internal sealed class Attribute
        {
            internal Element Owner;
            internal string Name;
            internal string Value;
            internal int Start;   // of the raw value in Text, behind the quote
            internal int Length;
            internal int Line;

            internal string Path
            {
                get { return (Owner.Path.Length == 0 ? "" : Owner.Path + "/") + "@" + Name; }
            }
        }

        internal sealed class Element
        {
            internal Element Parent;
            internal string Name;
            internal string Label;
            internal int Index;       // 1-based among siblings with the same label, 0 while it is the only one
            internal int Line;
            internal int NameEnd;     // in Text, behind the element's name
            internal List<Element> Children = new List<Element>();
            internal List<Attribute> Attributes = new List<Attribute>();
            private string path;

            internal string Path
            {
                get
                {
                    if (path == null)
                    {
                        if (Parent == null) path = "";
                        else path = (Parent.Path.Length == 0 ? "" : Parent.Path + "/") + Label + (Index > 0 ? "[" + Index + "]" : "");
                    }
                    return path;
                }
            }

            internal string Get(string name)
            {
                foreach (Attribute attribute in Attributes)
                    if (attribute.Name == name) return attribute.Value;
                return null;
            }

            internal List<Element> At(string steps)
            {
                List<Element> found = new List<Element>();
                found.Add(this);
                foreach (string step in steps.Split('/'))
                {
                    List<Element> next = new List<Element>();
                    foreach (Element element in found)
                        foreach (Element child in element.Children)
                            if (child.Name == step) next.Add(child);
                    found = next;
                }
                return found;
            }
        }
    }

    internal static class FileMethods
    {
        [DllImport("kernel32.dll", SetLastError = true, CharSet = CharSet.Unicode)]
        internal static extern bool ReplaceFileW(string replaced, string replacement, string backup, uint flags, IntPtr exclude, IntPtr reserved);

        [DllImport("kernel32.dll", SetLastError = true, CharSet = CharSet.Unicode)]
        internal static extern bool MoveFileExW(string from, string to, uint flags);
    }

    public static class WebfarmConfiguration
    {
        // The attributes that tell collection elements apart, in this order; the same list as in plugin_utils/_apphost.py.
        private static readonly string[] Identity = { "name", "path", "id", "key" };

        private const int MaximumBytes = 64 * 1024 * 1024;
        private const int MaximumDepth = 128;
        private const int MaximumLabel = 8192;
        private const int MaximumPrefixes = 1024;
        private const int MaximumAttributes = 1024;

        /// <summary>%windir%\System32\inetsrv\config</summary>
        public static string Folder()
        {
            return Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.System), @"inetsrv\config");
        }

        /// <summary>WAS-only means that worker processes must not be able to open it: the containers iisWasKey and iisCngWasKey.</summary>
        public static bool IsWasOnly(string container)
        {
            return String.Equals(container, "iisWasKey", StringComparison.OrdinalIgnoreCase)
                || String.Equals(container, "iisCngWasKey", StringComparison.OrdinalIgnoreCase);
        }

        public static WebfarmConfigurationFile Load(string path)
        {
            byte[] bytes;
            try
            {
                using (FileStream file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete))
                {
                    if (file.Length > MaximumBytes)
                        throw new WebfarmConfigurationException(path, 0, String.Format("the file has {0} bytes, more than {1}", file.Length, MaximumBytes));
                    bytes = new byte[file.Length];
                    int read = 0;
                    while (read < bytes.Length)
                    {
                        int n = file.Read(bytes, read, bytes.Length - read);
                        if (n == 0) throw new WebfarmConfigurationException(path, 0, "the file became shorter while it was read; try again");
                        read += n;
                    }
                }
            }
            catch (FileNotFoundException)
            {
                throw new WebfarmConfigurationException(path, 0, "the file does not exist; is IIS installed on this host?");
            }
            catch (DirectoryNotFoundException)
            {
                throw new WebfarmConfigurationException(path, 0, "the folder does not exist; is IIS installed on this host?");
            }
            catch (UnauthorizedAccessException e)
            {
                throw new WebfarmConfigurationException(path, 0, "the file cannot be read: " + e.Message);
            }
            return Parse(bytes, Path.GetFileName(path));
        }

        public static WebfarmConfigurationFile Parse(byte[] bytes, string name)
        {
            WebfarmConfigurationFile file = new WebfarmConfigurationFile();
            file.Name = name;
            file.Bytes = bytes;
            file.Text = Decode(bytes, file);
            file.NewLine = NewLineOf(file.Text);
            if (Occurrences(file.Text, "xmlns:") > MaximumPrefixes)
                throw new WebfarmConfigurationException(name, 0, String.Format("the file declares more than {0} namespace prefixes", MaximumPrefixes));
            WebfarmConfigurationFile.Element root = Read(file);
            if (root.Name != "configuration")
                throw new WebfarmConfigurationException(name, root.Line, String.Format("the root element is <{0}>, an IIS configuration has <configuration>", root.Name));
            ReadProviders(file, root);
            ReadValues(file);
            ReadSites(file, root);
            return file;
        }

        // IIS writes UTF-8, with or without a byte-order mark. Anything else is refused: it cannot be kept byte-exact safely.
        private static string Decode(byte[] bytes, WebfarmConfigurationFile file)
        {
            if (bytes.Length == 0) throw new WebfarmConfigurationException(file.Name, 0, "the file is empty");
            bool wide = bytes.Length >= 2 && ((bytes[0] == 0xFF && bytes[1] == 0xFE) || (bytes[0] == 0xFE && bytes[1] == 0xFF)
                || bytes[0] == 0 || bytes[1] == 0);
            if (wide) throw new WebfarmConfigurationException(file.Name, 1, "the file is UTF-16; IIS writes UTF-8: save it as UTF-8 and try again");
            file.ByteOrderMark = bytes.Length >= 3 && bytes[0] == 0xEF && bytes[1] == 0xBB && bytes[2] == 0xBF;
            int skip = file.ByteOrderMark ? 3 : 0;
            try
            {
                return new UTF8Encoding(false, true).GetString(bytes, skip, bytes.Length - skip);
            }
            catch (ArgumentException)
            {
                throw new WebfarmConfigurationException(file.Name, 0, "the file is not valid UTF-8: save it as UTF-8 and try again");
            }
        }

        private static int Occurrences(string text, string word)
        {
            int count = 0;
            for (int at = text.IndexOf(word, StringComparison.Ordinal); at >= 0; at = text.IndexOf(word, at + word.Length, StringComparison.Ordinal)) count++;
            return count;
        }

        private static string NewLineOf(string text)
        {
            int crlf = 0, lf = 0, cr = 0;
            for (int i = 0; i < text.Length; i++)
            {
                if (text[i] == '\n') lf++;
                if (text[i] != '\r') continue;
                if (i + 1 < text.Length && text[i + 1] == '\n') { crlf++; i++; }
                else cr++;
            }
            int kinds = (crlf > 0 ? 1 : 0) + (lf > 0 ? 1 : 0) + (cr > 0 ? 1 : 0);
            return kinds > 1 ? "mixed" : crlf > 0 ? "CRLF" : lf > 0 ? "LF" : cr > 0 ? "CR" : "none";
        }

        private static WebfarmConfigurationFile.Element Read(WebfarmConfigurationFile file)
        {
            XmlReaderSettings settings = new XmlReaderSettings();
            settings.DtdProcessing = DtdProcessing.Prohibit;
            settings.XmlResolver = null;
            settings.CheckCharacters = true;
            List<int> lines = LineStarts(file.Text);
            file.Attributes = new List<WebfarmConfigurationFile.Attribute>();
            file.Elements = new List<WebfarmConfigurationFile.Element>();
            WebfarmConfigurationFile.Element root = null, current = null;
            int depth = 0;
            try
            {
                using (XmlReader reader = XmlReader.Create(new StringReader(file.Text), settings))
                {
                    IXmlLineInfo position = (IXmlLineInfo)reader;
                    while (reader.Read())
                    {
                        if (reader.NodeType == XmlNodeType.XmlDeclaration) CheckEncoding(file, reader.GetAttribute("encoding"));
                        if (reader.NodeType == XmlNodeType.EndElement)
                        {
                            Number(current);
                            current = current.Parent;
                            depth--;
                        }
                        if (reader.NodeType != XmlNodeType.Element) continue;
                        WebfarmConfigurationFile.Element element = new WebfarmConfigurationFile.Element();
                        element.Name = reader.Name;
                        element.Line = position.LineNumber;
                        element.NameEnd = lines[position.LineNumber - 1] + position.LinePosition - 1 + element.Name.Length;
                        element.Parent = current;
                        if (++depth > MaximumDepth)
                            throw new WebfarmConfigurationException(file.Name, element.Line, String.Format("elements are nested deeper than {0}", MaximumDepth));
                        bool empty = reader.IsEmptyElement;
                        if (reader.AttributeCount > MaximumAttributes)
                            throw new WebfarmConfigurationException(file.Name, element.Line,
                                String.Format("<{0}> has more than {1} attributes", element.Name, MaximumAttributes));
                        while (reader.MoveToNextAttribute())
                            element.Attributes.Add(Locate(file, lines, element, reader, position));
                        element.Label = LabelOf(element, file.Name);
                        file.Attributes.AddRange(element.Attributes);
                        file.Elements.Add(element);
                        if (current == null) root = element;
                        else current.Children.Add(element);
                        if (empty) depth--;
                        else current = element;
                    }
                }
            }
            catch (XmlException e)
            {
                throw new WebfarmConfigurationException(file.Name, e.LineNumber, "not well-formed XML: " + e.Message);
            }
            return root;
        }

        private static void CheckEncoding(WebfarmConfigurationFile file, string declared)
        {
            file.Ascii = String.Equals(declared, "us-ascii", StringComparison.OrdinalIgnoreCase);
            foreach (char c in file.Text) file.Ascii = file.Ascii && c < 128;
            if (declared == null || String.Equals(declared, "utf-8", StringComparison.OrdinalIgnoreCase)
                || String.Equals(declared, "us-ascii", StringComparison.OrdinalIgnoreCase)) return;
            throw new WebfarmConfigurationException(file.Name, 1,
                String.Format("the XML declaration says encoding '{0}'; IIS writes UTF-8: save it as UTF-8 and try again", declared));
        }

        // XmlReader counts CRLF, LF and a lone CR as line ends.
        private static List<int> LineStarts(string text)
        {
            List<int> starts = new List<int>();
            starts.Add(0);
            for (int i = 0; i < text.Length; i++)
            {
                if (text[i] == '\r' && i + 1 < text.Length && text[i + 1] == '\n') i++;
                if (text[i] == '\n' || text[i] == '\r') starts.Add(i + 1);
            }
            return starts;
        }

        private static WebfarmConfigurationFile.Attribute Locate(WebfarmConfigurationFile file, List<int> lines,
            WebfarmConfigurationFile.Element owner, XmlReader reader, IXmlLineInfo position)
        {
            WebfarmConfigurationFile.Attribute attribute = new WebfarmConfigurationFile.Attribute();
            attribute.Owner = owner;
            attribute.Name = reader.Name;
            attribute.Value = reader.Value;
            attribute.Line = position.LineNumber;
            string text = file.Text;
            int at = lines[position.LineNumber - 1] + position.LinePosition - 1;
            bool found = String.CompareOrdinal(text, at, attribute.Name, 0, attribute.Name.Length) == 0;
            if (found)
            {
                at += attribute.Name.Length;
                while (at < text.Length && Char.IsWhiteSpace(text[at])) at++;
                found = at < text.Length && text[at] == '=';
                at++;
                while (at < text.Length && Char.IsWhiteSpace(text[at])) at++;
                found = found && at < text.Length && (text[at] == '"' || text[at] == '\'');
            }
            int end = found ? text.IndexOf(text[at], at + 1) : -1;
            if (end < 0)
                throw new WebfarmConfigurationException(file.Name, attribute.Line,
                    String.Format("the place of attribute '{0}' in the text cannot be found", attribute.Name));
            attribute.Start = at + 1;
            attribute.Length = end - at - 1;
            return attribute;
        }

        private static string LabelOf(WebfarmConfigurationFile.Element element, string file)
        {
            foreach (string name in Identity)
            {
                string value = element.Get(name);
                if (value == null) continue;
                if (value.Length > MaximumLabel)
                    throw new WebfarmConfigurationException(file, element.Line,
                        String.Format("attribute '{0}' of <{1}> has more than {2} characters: no name is so long", name, element.Name, MaximumLabel));
                string quote = "'";
                if (value.Contains("'"))
                {
                    if (value.Contains("\"")) value = value.Replace("'", "&apos;");
                    else quote = "\"";
                }
                return element.Name + "[@" + name + "=" + quote + value + quote + "]";
            }
            return element.Name;
        }

        // Called when an element is complete: siblings that would have the same path get their number.
        private static void Number(WebfarmConfigurationFile.Element parent)
        {
            Dictionary<string, WebfarmConfigurationFile.Element> first = new Dictionary<string, WebfarmConfigurationFile.Element>();
            Dictionary<string, int> count = new Dictionary<string, int>();
            foreach (WebfarmConfigurationFile.Element child in parent.Children)
            {
                int n;
                if (!count.TryGetValue(child.Label, out n))
                {
                    first[child.Label] = child;
                    count[child.Label] = 1;
                    continue;
                }
                if (n == 1) first[child.Label].Index = 1;
                child.Index = n + 1;
                count[child.Label] = n + 1;
            }
        }

        private static void ReadProviders(WebfarmConfigurationFile file, WebfarmConfigurationFile.Element root)
        {
            List<WebfarmProvider> providers = new List<WebfarmProvider>();
            foreach (WebfarmConfigurationFile.Element element in root.At("configProtectedData/providers/add"))
            {
                WebfarmProvider provider = new WebfarmProvider();
                provider.Name = element.Get("name") ?? "";
                provider.Type = element.Get("type") ?? "";
                provider.Container = element.Get("keyContainerName") ?? "";
                provider.UseOaep = String.Equals(element.Get("useOAEP"), "true", StringComparison.OrdinalIgnoreCase);
                provider.SessionKey = element.Get("sessionKey");
                provider.SessionKeyPath = element.Path + "/@sessionKey";
                provider.Line = element.Line;
                provider.Kind = KindOf(provider.Type);
                foreach (WebfarmProvider other in providers)
                    if (String.Equals(other.Name, provider.Name, StringComparison.OrdinalIgnoreCase))
                        throw new WebfarmConfigurationException(file.Name, provider.Line,
                            String.Format("provider '{0}' is declared again, first in line {1}; IIS refuses such a file: remove one of them", provider.Name, other.Line));
                providers.Add(provider);
            }
            file.Providers = providers.ToArray();
        }

        private static string KindOf(string type)
        {
            if (type.Length == 0) return "rsa";
            string name = type.Split(',')[0].Trim();
            if (name.EndsWith("AesProtectedConfigurationProvider", StringComparison.OrdinalIgnoreCase)) return "aes";
            if (name.EndsWith("CngProtectedConfigurationProvider", StringComparison.OrdinalIgnoreCase)) return "cng";
            return "unsupported";
        }

        private static void ReadValues(WebfarmConfigurationFile file)
        {
            List<WebfarmProtectedValue> values = new List<WebfarmProtectedValue>();
            List<WebfarmProtectedValue> sections = new List<WebfarmProtectedValue>();
            foreach (WebfarmConfigurationFile.Attribute attribute in file.Attributes)
            {
                string text = attribute.Value;
                if (attribute.Name == "configProtectionProvider" && text.Length > 0)
                {
                    WebfarmProtectedValue section = new WebfarmProtectedValue();
                    section.Path = attribute.Path;
                    section.Line = attribute.Line;
                    section.Provider = text;
                    sections.Add(section);
                }
                if (!text.StartsWith("[enc:", StringComparison.Ordinal) || !text.EndsWith(":enc]", StringComparison.Ordinal)) continue;
                WebfarmProtectedValue value = new WebfarmProtectedValue();
                value.Path = attribute.Path;
                value.Line = attribute.Line;
                string inner = text.Length >= 10 ? text.Substring(5, text.Length - 10) : "";
                int colon = inner.IndexOf(':');
                if (colon > 0)
                {
                    value.Provider = inner.Substring(0, colon);
                    value.Data = inner.Substring(colon + 1);
                    if (value.Data.Length == 0) continue; // a default of the schema, not a secret
                }
                values.Add(value);
            }
            file.Values = values.ToArray();
            file.Sections = sections.ToArray();
        }

        private static void ReadSites(WebfarmConfigurationFile file, WebfarmConfigurationFile.Element root)
        {
            List<string> pools = new List<string>();
            foreach (WebfarmConfigurationFile.Element pool in root.At("system.applicationHost/applicationPools/add"))
                pools.Add(pool.Get("name") ?? "");
            file.Pools = pools.ToArray();
            string common = "DefaultAppPool";
            foreach (WebfarmConfigurationFile.Element defaults in root.At("system.applicationHost/sites/applicationDefaults"))
                common = defaults.Get("applicationPool") ?? common;
            List<WebfarmSite> sites = new List<WebfarmSite>();
            foreach (WebfarmConfigurationFile.Element element in root.At("system.applicationHost/sites/site"))
            {
                WebfarmSite site = new WebfarmSite();
                site.Name = element.Get("name") ?? "";
                string inherited = common;
                foreach (WebfarmConfigurationFile.Element defaults in element.At("applicationDefaults"))
                    inherited = defaults.Get("applicationPool") ?? inherited;
                List<string> used = new List<string>();
                List<string> folders = new List<string>();
                foreach (WebfarmConfigurationFile.Element application in element.At("application"))
                {
                    foreach (WebfarmConfigurationFile.Element directory in application.At("virtualDirectory"))
                        if (!String.IsNullOrEmpty(directory.Get("physicalPath"))) folders.Add(directory.Get("physicalPath"));
                    string pool = application.Get("applicationPool") ?? inherited;
                    if (application.Get("path") == "/") used.Insert(0, pool);
                    else used.Add(pool);
                }
                site.Pools = used.ToArray();
                site.Folders = folders.ToArray();
                List<WebfarmBinding> bindings = new List<WebfarmBinding>();
                foreach (WebfarmConfigurationFile.Element binding in element.At("bindings/binding"))
                    bindings.Add(BindingOf(binding.Get("protocol") ?? "", binding.Get("bindingInformation") ?? ""));
                site.Bindings = bindings.ToArray();
                sites.Add(site);
            }
            file.Sites = sites.ToArray();
        }

        // address:port:host, where an IPv6 address stands in brackets.
        private static WebfarmBinding BindingOf(string protocol, string information)
        {
            WebfarmBinding binding = new WebfarmBinding();
            binding.Protocol = protocol;
            int host = information.LastIndexOf(':');
            int port = host > 0 ? information.LastIndexOf(':', host - 1) : -1;
            int number = 0;
            if (port >= 0) Int32.TryParse(information.Substring(port + 1, host - port - 1), out number);
            binding.Port = number;
            binding.Address = port > 0 ? information.Substring(0, port).Trim('[', ']') : "*";
            binding.HostName = host >= 0 ? information.Substring(host + 1) : "";
            return binding;
        }

        /// <summary>
        /// The file with other attribute values; every other byte stays, also those of a value that is not another one. An attribute that
        /// its element does not have yet is added behind the element's last one. A path whose element is not in the file is refused. The
        /// result is parsed and compared, so that a change can never touch anything else.
        /// </summary>
        /// <param name="values">attribute path (see WebfarmProtectedValue.Path) to new value</param>
        public static byte[] Replace(WebfarmConfigurationFile file, IDictionary<string, string> values)
        {
            SortedDictionary<int, Edit> edits = new SortedDictionary<int, Edit>();
            HashSet<string> left = new HashSet<string>(values.Keys);
            Dictionary<WebfarmConfigurationFile.Attribute, string> changed = new Dictionary<WebfarmConfigurationFile.Attribute, string>();
            foreach (WebfarmConfigurationFile.Attribute attribute in file.Attributes)
            {
                string path = attribute.Path;
                if (!left.Remove(path))
                {
                    if (values.ContainsKey(path))
                        throw new WebfarmConfigurationException(file.Name, attribute.Line, String.Format("{0} is not unique", path));
                    continue;
                }
                // A value that stays keeps its spelling, character references included.
                if (attribute.Value == values[path]) continue;
                changed.Add(attribute, values[path]);
                edits.Add(attribute.Start, new Edit(attribute.Length, Escape(file, values[path], file.Text[attribute.Start - 1])));
            }
            int added = left.Count;
            if (added > 0) Add(file, values, left, edits);
            StringBuilder text = new StringBuilder(file.Text.Length + 256);
            int at = 0;
            foreach (KeyValuePair<int, Edit> edit in edits)
            {
                text.Append(file.Text, at, edit.Key - at);
                text.Append(edit.Value.Text);
                at = edit.Key + edit.Value.Length;
            }
            text.Append(file.Text, at, file.Text.Length - at);
            byte[] body;
            try
            {
                body = new UTF8Encoding(false, true).GetBytes((file.ByteOrderMark ? "\uFEFF" : "") + text);
            }
            catch (ArgumentException)
            {
                throw new WebfarmConfigurationException(file.Name, 0, "a new value cannot be written in UTF-8");
            }
            if (edits.Count > 0) Compare(file, Parse(body, file.Name), changed, added);
            return body;
        }

        // Everything that was not to change is still there, and what was to change reads as it should.
        private static void Compare(WebfarmConfigurationFile before, WebfarmConfigurationFile after,
            Dictionary<WebfarmConfigurationFile.Attribute, string> changed, int added)
        {
            int at = 0;
            foreach (WebfarmConfigurationFile.Attribute theirs in after.Attributes)
            {
                if (at == before.Attributes.Count) break;
                WebfarmConfigurationFile.Attribute mine = before.Attributes[at];
                string expected;
                if (!changed.TryGetValue(mine, out expected)) expected = mine.Value;
                if (mine.Name == theirs.Name && mine.Owner.Name == theirs.Owner.Name && theirs.Value == expected) at++;
            }
            if (at < before.Attributes.Count || after.Attributes.Count != before.Attributes.Count + added || after.Elements.Count != before.Elements.Count)
                throw new WebfarmConfigurationException(before.Name, 0, "a new value cannot be written: XML would read it back differently");
        }

        private struct Edit
        {
            internal readonly int Length;
            internal readonly string Text;

            internal Edit(int length, string text)
            {
                Length = length;
                Text = text;
            }
        }

        private static void Add(WebfarmConfigurationFile file, IDictionary<string, string> values, HashSet<string> left, SortedDictionary<int, Edit> edits)
        {
            Dictionary<string, List<string>> wanted = new Dictionary<string, List<string>>();
            foreach (string path in left)
            {
                int slash = path.LastIndexOf("/@", StringComparison.Ordinal);
                if (slash < 0) continue;
                List<string> names;
                if (!wanted.TryGetValue(path.Substring(0, slash), out names)) wanted[path.Substring(0, slash)] = names = new List<string>();
                names.Add(path.Substring(slash + 2));
            }
            foreach (WebfarmConfigurationFile.Element element in file.Elements)
            {
                List<string> names;
                string owner = element.Path;
                if (!wanted.TryGetValue(owner, out names)) continue;
                wanted.Remove(owner);
                int end = element.NameEnd;
                foreach (WebfarmConfigurationFile.Attribute attribute in element.Attributes) end = attribute.Start + attribute.Length + 1;
                StringBuilder text = new StringBuilder();
                foreach (string name in names)
                {
                    string path = owner + "/@" + name;
                    left.Remove(path);
                    text.Append(' ').Append(VerifiedName(file, name)).Append("=\"").Append(Escape(file, values[path], '"')).Append('"');
                }
                edits[end] = new Edit(0, text.ToString());
            }
            foreach (string path in left)
                throw new WebfarmConfigurationException(file.Name, 0, String.Format("there is no element for the attribute path {0}", path));
        }

        private static string VerifiedName(WebfarmConfigurationFile file, string name)
        {
            try
            {
                return XmlConvert.VerifyName(name);
            }
            catch (XmlException)
            {
                throw new WebfarmConfigurationException(file.Name, 0, String.Format("'{0}' is no name for an attribute", name));
            }
        }

        // As plugin_utils/_apphost.py writes it.
        private static string Escape(WebfarmConfigurationFile file, string value, char quote)
        {
            StringBuilder text = new StringBuilder(value.Length);
            for (int i = 0; i < value.Length; i++)
            {
                char c = value[i];
                if (c == '&') text.Append("&amp;");
                else if (c == '<') text.Append("&lt;");
                else if (c == '>') text.Append("&gt;");
                else if (c == quote) text.Append(quote == '"' ? "&quot;" : "&apos;");
                else if (c == '\t' || c == '\r' || c == '\n' || (file.Ascii && c > 126 && !Char.IsSurrogate(c)))
                    text.Append("&#x").Append(((int)c).ToString("X")).Append(';');
                else if (file.Ascii && i + 1 < value.Length && Char.IsSurrogatePair(c, value[i + 1]))
                    text.Append("&#x").Append(Char.ConvertToUtf32(c, value[++i]).ToString("X")).Append(';');
                else text.Append(c);
            }
            return text.ToString();
        }

        /// <summary>
        /// What a file says apart from its ciphertexts: the text with every protected value's data and every sessionKey blanked.
        /// Two files with equal skeletons differ at most in how their secrets are encrypted.
        /// </summary>
        internal static string Skeleton(WebfarmConfigurationFile file)
        {
            HashSet<string> values = new HashSet<string>();
            foreach (WebfarmProtectedValue value in file.Values)
                if (value.Provider != null) values.Add(value.Path);
            StringBuilder text = new StringBuilder(file.Text.Length);
            int at = 0;
            foreach (WebfarmConfigurationFile.Attribute attribute in file.Attributes)
            {
                bool secret = values.Contains(attribute.Path);
                bool session = attribute.Name == "sessionKey" && attribute.Path.StartsWith("configProtectedData/providers/add", StringComparison.Ordinal);
                if (!secret && !session) continue;
                text.Append(file.Text, at, attribute.Start - at);
                if (secret) text.Append(attribute.Value.Substring(0, attribute.Value.IndexOf(':', 5) + 1));
                at = attribute.Start + attribute.Length;
            }
            text.Append(file.Text, at, file.Text.Length - at);
            return (file.ByteOrderMark ? "\uFEFF" : "") + text;
        }

        /// <summary>State of redirection.config in a configuration folder; not enabled where the file is absent.</summary>
        public static WebfarmRedirection Redirection(string folder)
        {
            WebfarmRedirection redirection = new WebfarmRedirection();
            redirection.Path = "";
            string path = Path.Combine(folder, "redirection.config");
            if (!File.Exists(path)) return redirection;
            WebfarmConfigurationFile file = Load(path);
            foreach (WebfarmConfigurationFile.Attribute attribute in file.Attributes)
            {
                // By name, not by path: the path of the element holds its "path" attribute.
                WebfarmConfigurationFile.Element owner = attribute.Owner;
                if (owner.Name != "configurationRedirection" || owner.Parent == null || owner.Parent.Parent != null) continue;
                if (attribute.Name == "enabled") redirection.Enabled = String.Equals(attribute.Value, "true", StringComparison.OrdinalIgnoreCase);
                if (attribute.Name == "path") redirection.Path = attribute.Value;
            }
            return redirection;
        }

        /// <summary>
        /// Replaces (or creates) a file so that at every moment the old or the new content is there: a temporary file in the same folder
        /// gets the DACL of the original before its content, is flushed to disk, and takes the original's place by ReplaceFile.
        /// </summary>
        /// <param name="backup">where the old file goes, in the same volume; null: it is not kept</param>
        /// <param name="sddl">DACL of a file that did not exist; null: inherited from the folder</param>
        public static void WriteFile(string path, byte[] content, string backup, string sddl)
        {
            bool exists = File.Exists(path);
            if (exists && (File.GetAttributes(path) & FileAttributes.ReadOnly) != 0)
                throw new WebfarmConfigurationException(path, 0, "the file is read-only; remove the attribute (attrib -r) or find out who set it");
            // A name that does not end in .tmp: WAS stumbles over a left-over applicationHost.config.tmp.
            string temporary = path + "." + Guid.NewGuid().ToString("N").Substring(0, 8) + ".webfarm";
            string displaced = backup ?? path + "." + Guid.NewGuid().ToString("N").Substring(0, 8) + ".webfarm-old";
            bool moved = false;
            try
            {
                using (new FileStream(temporary, FileMode.CreateNew, FileAccess.Write, FileShare.None)) { }
                if (exists) WebfarmKeyContainer.SetFileSddl(temporary, WebfarmKeyContainer.FileSddl(path));
                else if (sddl != null) WebfarmKeyContainer.SetFileSddl(temporary, sddl);
                using (FileStream file = new FileStream(temporary, FileMode.Open, FileAccess.Write, FileShare.None))
                {
                    file.Write(content, 0, content.Length);
                    file.Flush(true);
                }
                if (exists) Retry(path, temporary, displaced);
                else if (!FileMethods.MoveFileExW(temporary, path, 8)) throw WebfarmCryptoException.Last(String.Format("creating '{0}'", path));
                moved = true;
            }
            finally
            {
                if (!moved && File.Exists(temporary)) File.Delete(temporary);
            }
            if (exists && backup == null) File.Delete(displaced);
        }

        // ReplaceFile (SDK winbase.h): 1175 and 1176 leave both files as they were; 1177 has moved the original to the backup name.
        private static void Retry(string path, string replacement, string backup)
        {
            const uint sharing = 0x80070020, cannotRemove = 0x80070497, cannotMove = 0x80070498, cannotMoveSecond = 0x80070499;
            string operation = String.Format("replacing '{0}'", path);
            for (int attempt = 0; ; attempt++)
            {
                if (FileMethods.ReplaceFileW(path, replacement, backup, 0, IntPtr.Zero, IntPtr.Zero)) return;
                uint code = WebfarmCryptoException.LastCode();
                if (code == cannotMoveSecond && !File.Exists(path) && File.Exists(backup))
                {
                    // The original bears the backup name: put it back, so that a retry or the caller finds the old state.
                    if (!FileMethods.MoveFileExW(backup, path, 8))
                        throw new WebfarmCryptoException(code, operation + String.Format(" (the original lies at '{0}'; move it back by hand)", backup));
                }
                else if (code != sharing && code != cannotRemove && code != cannotMove && code != cannotMoveSecond)
                {
                    throw new WebfarmCryptoException(code, operation);
                }
                if (attempt == 20) throw new WebfarmCryptoException(code, operation + " (another process holds the file: antivirus, backup or an editor)");
                Thread.Sleep(250);
            }
        }
    }
}
