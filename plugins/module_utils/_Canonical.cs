// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// FOR INTERNAL COLLECTION USE ONLY
// The interfaces in this file are meant for use within the webfarm.iis collection
// and may change in any release, even a bugfix release.

// What a configuration file says, whatever its spelling and its keys: the canonical form and its digest, and per attribute a comparable
// value that tells no secret. plugin_utils/_canonical.py is the second implementation; the compliance guide defines the form.

using System;
using System.Collections.Generic;
using System.IO;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;
using System.Xml;

//AssemblyReference -Name System.Xml.dll -CLR Framework
//TypeAccelerator -Name WebfarmCanonical -TypeName WebfarmCanonical
//TypeAccelerator -Name WebfarmEncryptedSchema -TypeName WebfarmEncryptedSchema

namespace ansible_collections.webfarm.iis.plugins.module_utils._Canonical
{
    /// <summary>The attributes that the schema files of a server declare as encrypted.</summary>
    public class WebfarmEncryptedSchema
    {
        private readonly Dictionary<string, string> declared = new Dictionary<string, string>(StringComparer.Ordinal);

        /// <summary>Paths such as system.applicationHost/applicationPools/add/processModel/@password, sorted.</summary>
        public string[] Paths
        {
            get
            {
                List<string> paths = new List<string>(declared.Keys);
                paths.Sort(String.CompareOrdinal);
                return paths.ToArray();
            }
        }

        /// <summary>The schema file that declares an attribute as encrypted, or null.</summary>
        public string FileOf(string path)
        {
            string file;
            return declared.TryGetValue(path, out file) ? file : null;
        }

        /// <summary>Adds what one schema file declares. Throws XmlException where it cannot be read.</summary>
        public void Add(byte[] bytes, string name)
        {
            // One frame per open element: the paths under which its attributes stand.
            Stack<List<string>> open = new Stack<List<string>>();
            List<string> none = new List<string>();
            using (XmlReader reader = WebfarmCanonical.Reader(bytes))
            {
                while (reader.Read())
                {
                    if (reader.NodeType == XmlNodeType.EndElement) open.Pop();
                    if (reader.NodeType != XmlNodeType.Element) continue;
                    if (open.Count > 128) throw new XmlException("elements are nested deeper than 128");
                    List<string> parents = open.Count > 0 ? open.Peek() : none;
                    List<string> paths = parents;
                    if (reader.Name == "sectionSchema") paths = One(reader.GetAttribute("name"));
                    else if (reader.Name == "element") paths = Below(parents, reader.GetAttribute("name"), null);
                    else if (reader.Name == "collection") paths = Below(parents, reader.GetAttribute("addElement"), reader.GetAttribute("defaultElement"));
                    else if (reader.Name == "attribute" && reader.GetAttribute("encrypted") == "true")
                        foreach (string parent in parents)
                            if (!declared.ContainsKey(parent + "/@" + reader.GetAttribute("name")))
                                declared.Add(parent + "/@" + reader.GetAttribute("name"), name);
                    if (!reader.IsEmptyElement) open.Push(paths);
                }
            }
        }

        private static List<string> One(string name)
        {
            List<string> paths = new List<string>();
            if (!String.IsNullOrEmpty(name)) paths.Add(name);
            return paths;
        }

        private static List<string> Below(List<string> parents, string names, string other)
        {
            List<string> paths = new List<string>();
            foreach (string parent in parents)
                foreach (string name in ((names ?? "") + "," + (other ?? "")).Split(','))
                    if (name.Trim().Length > 0) paths.Add(parent + "/" + name.Trim());
            return paths;
        }
    }

    /// <summary>An attribute that is encrypted, or that the schema says should be.</summary>
    public class WebfarmEncryptedAttribute
    {
        public string Path { get; internal set; }
        public int Line { get; internal set; }
        /// <summary>encrypted, empty ([enc:X::enc], a default), malformed or clear.</summary>
        public string State { get; internal set; }
        public string Provider { get; internal set; }
        /// <summary>The schema file that declares it as encrypted, null where none does.</summary>
        public string Schema { get; internal set; }
    }

    /// <summary>A location element.</summary>
    public class WebfarmLocation
    {
        public string Path { get; internal set; }
        public int Line { get; internal set; }
        public string OverrideMode { get; internal set; }
        public string[] Sections { get; internal set; }
    }

    /// <summary>A configuration file in canonical form.</summary>
    public class WebfarmCanonical
    {
        public const string Form = "webfarm.iis canonical 1";
        private const int MaximumDepth = 128;
        private const int ShownValue = 80;

        // Collections in which the order of the elements carries no meaning: parent and child.
        private static readonly HashSet<string> Unordered = new HashSet<string>(StringComparer.Ordinal)
        {
            "appSettings/add", "application/virtualDirectory", "applicationPools/add", "bindings/binding", "configSections/section",
            "configSections/sectionGroup", "configuration/location", "connectionStrings/add", "customHeaders/add", "environmentVariables/add",
            "environmentVariables/environmentVariable", "fileExtensions/add", "headerLimits/add", "hiddenSegments/add", "httpErrors/error",
            "isapiCgiRestriction/add", "listenerAdapters/add", "profiles/add", "providers/add", "redirectHeaders/add", "schedule/add",
            "sectionGroup/section", "sectionGroup/sectionGroup", "site/application", "sites/site", "staticContent/mimeMap",
            "traceProviderDefinitions/add", "verbs/add", "webFarm/server", "webFarms/webFarm"
        };

        // Elements whose children keep their order whatever their names.
        private static readonly HashSet<string> Ordered = new HashSet<string>(StringComparer.Ordinal) { "authorization" };

        private static readonly HashSet<string> SecretNames = new HashSet<string>(StringComparer.OrdinalIgnoreCase)
        {
            "accessKey", "apiKey", "clientSecret", "connectionString", "decryptionKey", "encryptedValue", "pwd", "secret",
            "sqlConnectionString", "stateConnectionString", "token", "validationKey"
        };

        // The attribute value of these is whatever somebody put there.
        private static readonly HashSet<string> SecretParents = new HashSet<string>(StringComparer.Ordinal)
        {
            "appSettings", "environmentVariables"
        };

        private static readonly string[] Identity = { "name", "path", "id", "key" };

        private sealed class Node
        {
            internal Node Parent;
            internal string Name;
            internal string Label;
            internal int Line;
            internal string Path;      // from the root, with labels
            internal string Plain;     // from the root, names only, without location: as the schema has it
            internal StringBuilder Text = new StringBuilder();
            internal List<KeyValuePair<string, string>> Attributes = new List<KeyValuePair<string, string>>();
            internal List<Node> Children = new List<Node>();

            internal string Get(string name)
            {
                foreach (KeyValuePair<string, string> attribute in Attributes)
                    if (attribute.Key == name) return attribute.Value;
                return null;
            }
        }

        /// <summary>SHA-256 of the canonical form, lower-case hex. No secret is in it.</summary>
        public string Digest { get; private set; }
        /// <summary>HMAC-SHA-256 under the run key over the secrets that stand in clear; null without a run key.</summary>
        public string KeyedDigest { get; private set; }
        /// <summary>One line per attribute: path, tab, comparable value.</summary>
        public string Attributes { get; private set; }
        public WebfarmEncryptedAttribute[] Encrypted { get; private set; }
        public WebfarmLocation[] Locations { get; private set; }

        private readonly WebfarmEncryptedSchema schema;
        private readonly List<Regex> ignore;
        private readonly List<Regex> overrides;
        private readonly byte[] runKey;
        private readonly List<KeyValuePair<string, string>> values = new List<KeyValuePair<string, string>>();
        private readonly List<KeyValuePair<string, string>> secrets = new List<KeyValuePair<string, string>>();
        private readonly List<WebfarmEncryptedAttribute> encrypted = new List<WebfarmEncryptedAttribute>();

        /// <param name="schema">what the schema declares; null: nothing</param>
        /// <param name="ignore">paths of attributes or elements that do not count; * stands for anything</param>
        /// <param name="overrides">paths of attributes whose value is the server's own</param>
        /// <param name="runKey">makes secrets in clear comparable within one run; null: they do not count</param>
        public WebfarmCanonical(byte[] bytes, WebfarmEncryptedSchema schema, string[] ignore, string[] overrides, byte[] runKey)
        {
            this.schema = schema;
            this.ignore = Patterns(ignore);
            this.overrides = Patterns(overrides);
            this.runKey = runKey;
            Node root = Parse(bytes);
            Locate(root);
            Number(root);
            FindEncrypted(root);
            string text = Write(root) ?? "";
            Digest = Sha256(Form + "\n" + text);
            secrets.Sort(ByKey);
            if (runKey != null)
            {
                StringBuilder all = new StringBuilder();
                foreach (KeyValuePair<string, string> secret in secrets) all.Append(Escape(secret.Key)).Append('\t').Append(Escape(secret.Value)).Append('\n');
                KeyedDigest = Hmac(runKey, all.ToString());
            }
            values.Sort(ByKey);
            StringBuilder lines = new StringBuilder();
            foreach (KeyValuePair<string, string> value in values) lines.Append(Escape(value.Key)).Append('\t').Append(Escape(value.Value)).Append('\n');
            Attributes = lines.ToString();
            encrypted.Sort(delegate(WebfarmEncryptedAttribute one, WebfarmEncryptedAttribute other)
            {
                return one.Line != other.Line ? one.Line.CompareTo(other.Line) : String.CompareOrdinal(one.Path, other.Path);
            });
            Encrypted = encrypted.ToArray();
        }

        internal static XmlReader Reader(byte[] bytes)
        {
            XmlReaderSettings settings = new XmlReaderSettings();
            settings.DtdProcessing = DtdProcessing.Prohibit;
            settings.XmlResolver = null;
            settings.CheckCharacters = true;
            return XmlReader.Create(new MemoryStream(bytes), settings);
        }

        /// <summary>HMAC-SHA-256 of a text, lower-case hex.</summary>
        public static string Hmac(byte[] key, string text)
        {
            using (HMACSHA256 hash = new HMACSHA256(key)) return Hex(hash.ComputeHash(Encoding.UTF8.GetBytes(text)));
        }

        /// <summary>Tells run keys apart without telling them; null without one.</summary>
        public static string IdOf(byte[] runKey)
        {
            return runKey == null ? null : Hmac(runKey, "webfarm.iis run key").Substring(0, 16);
        }

        /// <summary>utf-8, utf-16-le or utf-16-be, by the first bytes.</summary>
        public static string EncodingOf(byte[] bytes)
        {
            if (bytes.Length < 2) return "utf-8";
            if ((bytes[0] == 0xFF && bytes[1] == 0xFE) || (bytes[0] != 0 && bytes[1] == 0)) return "utf-16-le";
            if ((bytes[0] == 0xFE && bytes[1] == 0xFF) || (bytes[0] == 0 && bytes[1] != 0)) return "utf-16-be";
            return "utf-8";
        }

        private static int ByKey(KeyValuePair<string, string> one, KeyValuePair<string, string> other)
        {
            int order = String.CompareOrdinal(one.Key, other.Key);
            return order != 0 ? order : String.CompareOrdinal(one.Value, other.Value);
        }

        private static string Hex(byte[] bytes)
        {
            StringBuilder text = new StringBuilder(bytes.Length * 2);
            foreach (byte b in bytes) text.Append(b.ToString("x2"));
            return text.ToString();
        }

        // Under the FIPS policy .NET Framework has no managed SHA-256.
        private static string Sha256(string text)
        {
#if CORECLR
            using (SHA256 hash = SHA256.Create())
#else
            using (SHA256 hash = new SHA256CryptoServiceProvider())
#endif
                return Hex(hash.ComputeHash(Encoding.UTF8.GetBytes(text)));
        }

        private static List<Regex> Patterns(string[] paths)
        {
            List<Regex> patterns = new List<Regex>();
            foreach (string path in paths ?? new string[0])
                patterns.Add(new Regex("\\A" + Regex.Escape(path).Replace("\\*", ".*") + "\\z", RegexOptions.Singleline | RegexOptions.CultureInvariant));
            return patterns;
        }

        private static bool Matches(List<Regex> patterns, string path)
        {
            foreach (Regex pattern in patterns)
                if (pattern.IsMatch(path)) return true;
            return false;
        }

        private static Node Parse(byte[] bytes)
        {
            Node root = null, current = null;
            int depth = 0;
            using (XmlReader reader = Reader(bytes))
            {
                IXmlLineInfo position = (IXmlLineInfo)reader;
                while (reader.Read())
                {
                    if (reader.NodeType == XmlNodeType.Text || reader.NodeType == XmlNodeType.CDATA) current.Text.Append(reader.Value);
                    if (reader.NodeType == XmlNodeType.Whitespace || reader.NodeType == XmlNodeType.SignificantWhitespace)
                        if (current != null) current.Text.Append(reader.Value);
                    if (reader.NodeType == XmlNodeType.EndElement)
                    {
                        current = current.Parent;
                        depth--;
                    }
                    if (reader.NodeType != XmlNodeType.Element) continue;
                    if (++depth > MaximumDepth) throw new XmlException(String.Format("line {0}: elements are nested deeper than {1}", position.LineNumber, MaximumDepth));
                    Node node = new Node();
                    node.Name = reader.Name;
                    node.Line = position.LineNumber;
                    node.Parent = current;
                    bool empty = reader.IsEmptyElement;
                    while (reader.MoveToNextAttribute()) node.Attributes.Add(new KeyValuePair<string, string>(reader.Name, reader.Value));
                    node.Label = LabelOf(node);
                    if (current == null) root = node;
                    else current.Children.Add(node);
                    if (empty) depth--;
                    else current = node;
                }
            }
            return root;
        }

        // The same labels as in _Configuration.cs and plugin_utils/_apphost.py, so that paths can be copied from one result to another option.
        private static string LabelOf(Node node)
        {
            foreach (string name in Identity)
            {
                string value = node.Get(name);
                if (value == null) continue;
                string quote = "'";
                if (value.Contains("'"))
                {
                    if (value.Contains("\"")) value = value.Replace("'", "&apos;");
                    else quote = "\"";
                }
                return node.Name + "[@" + name + "=" + quote + value + quote + "]";
            }
            return node.Name;
        }

        private static void Number(Node root)
        {
            root.Path = "";
            root.Plain = "";
            Stack<Node> pending = new Stack<Node>();
            pending.Push(root);
            while (pending.Count > 0)
            {
                Node parent = pending.Pop();
                Dictionary<string, int> count = new Dictionary<string, int>(StringComparer.Ordinal);
                foreach (Node child in parent.Children)
                {
                    int n;
                    count.TryGetValue(child.Label, out n);
                    count[child.Label] = n + 1;
                }
                Dictionary<string, int> seen = new Dictionary<string, int>(StringComparer.Ordinal);
                foreach (Node child in parent.Children)
                {
                    string label = child.Label;
                    if (count[label] > 1)
                    {
                        int n;
                        seen.TryGetValue(label, out n);
                        seen[label] = n + 1;
                        label += "[" + (n + 1) + "]";
                    }
                    child.Path = (parent.Path.Length == 0 ? "" : parent.Path + "/") + label;
                    bool location = parent.Parent == null && child.Name == "location";
                    child.Plain = location ? "" : (parent.Plain.Length == 0 ? "" : parent.Plain + "/") + child.Name;
                    pending.Push(child);
                }
            }
        }

        private void Locate(Node root)
        {
            List<WebfarmLocation> locations = new List<WebfarmLocation>();
            foreach (Node node in root.Children)
            {
                if (node.Name != "location") continue;
                WebfarmLocation location = new WebfarmLocation();
                location.Path = node.Get("path") ?? "";
                location.Line = node.Line;
                location.OverrideMode = node.Get("overrideMode");
                List<string> sections = new List<string>();
                foreach (Node group in node.Children)
                {
                    if (group.Children.Count == 0 || group.Attributes.Count > 0 || !group.Name.StartsWith("system.", StringComparison.Ordinal)) sections.Add(group.Name);
                    else
                        foreach (Node section in group.Children) sections.Add(group.Name + "/" + section.Name);
                }
                location.Sections = sections.ToArray();
                locations.Add(location);
            }
            Locations = locations.ToArray();
        }

        // The canonical text of an element; null where it is ignored.
        private string Write(Node node)
        {
            if (node.Path.Length > 0 && Matches(ignore, node.Path)) return null;
            StringBuilder text = new StringBuilder("<").Append(node.Name);
            List<KeyValuePair<string, string>> attributes = new List<KeyValuePair<string, string>>(node.Attributes);
            attributes.Sort(ByKey);
            int written = 0;
            foreach (KeyValuePair<string, string> attribute in attributes)
            {
                string path = (node.Path.Length == 0 ? "" : node.Path + "/") + "@" + attribute.Key;
                if (Matches(ignore, path)) continue;
                text.Append(' ').Append(attribute.Key).Append("=\"").Append(Escape(ValueOf(node, path, attribute))).Append('"');
                written++;
            }
            text.Append('>');
            string content = node.Text.ToString().Trim(' ', '\t', '\r', '\n');
            // ASP.NET's encrypted sections: the element says that there is one, its content differs on every server.
            if (node.Name == "EncryptedData")
            {
                values.Add(new KeyValuePair<string, string>(node.Path + "/text()", "[enc]"));
                return text.Append("[enc]</EncryptedData>").ToString();
            }
            if (content.Length > 0)
            {
                string path = node.Path + "/text()";
                text.Append(Secret(path, content));
            }
            else if (written == 0 && node.Children.Count == 0) values.Add(new KeyValuePair<string, string>(node.Path, ""));
            foreach (string child in Sorted(node)) text.Append(child);
            return text.Append("</").Append(node.Name).Append('>').ToString();
        }

        private List<string> Sorted(Node node)
        {
            List<KeyValuePair<Node, string>> children = new List<KeyValuePair<Node, string>>();
            bool fixedOrder = Ordered.Contains(node.Name);
            foreach (Node child in node.Children)
            {
                if (child.Name == "remove" || child.Name == "clear") fixedOrder = true;
                string text = Write(child);
                if (text != null) children.Add(new KeyValuePair<Node, string>(child, text));
            }
            List<string> result = new List<string>();
            if (fixedOrder)
            {
                foreach (KeyValuePair<Node, string> child in children) result.Add(child.Value);
                return result;
            }
            SortedDictionary<string, List<string>> groups = new SortedDictionary<string, List<string>>(StringComparer.Ordinal);
            foreach (KeyValuePair<Node, string> child in children)
            {
                List<string> group;
                if (!groups.TryGetValue(child.Key.Name, out group)) groups.Add(child.Key.Name, group = new List<string>());
                group.Add(child.Value);
            }
            foreach (KeyValuePair<string, List<string>> group in groups)
            {
                if (Unordered.Contains(node.Name + "/" + group.Key)) group.Value.Sort(String.CompareOrdinal);
                result.AddRange(group.Value);
            }
            return result;
        }

        private static bool IsMarked(string value)
        {
            return value.StartsWith("[enc:", StringComparison.Ordinal) && value.EndsWith(":enc]", StringComparison.Ordinal);
        }

        // encrypted, empty or malformed, and the provider.
        private static string StateOf(string value, out string provider)
        {
            provider = null;
            string inner = value.Length >= 10 ? value.Substring(5, value.Length - 10) : "";
            int colon = inner.IndexOf(':');
            if (colon <= 0) return "malformed";
            provider = inner.Substring(0, colon);
            return colon == inner.Length - 1 ? "empty" : "encrypted";
        }

        private string Declared(Node node, string name)
        {
            return schema == null ? null : schema.FileOf((node.Plain.Length == 0 ? "" : node.Plain + "/") + "@" + name);
        }

        // All of them, the ignored ones too.
        private void FindEncrypted(Node node)
        {
            foreach (KeyValuePair<string, string> attribute in node.Attributes)
            {
                string declared = Declared(node, attribute.Key);
                if (!IsMarked(attribute.Value) && (declared == null || attribute.Value.Length == 0)) continue;
                WebfarmEncryptedAttribute found = new WebfarmEncryptedAttribute();
                found.Path = (node.Path.Length == 0 ? "" : node.Path + "/") + "@" + attribute.Key;
                found.Line = node.Line;
                found.Schema = declared;
                found.State = "clear";
                string provider = null;
                if (IsMarked(attribute.Value)) found.State = StateOf(attribute.Value, out provider);
                found.Provider = provider;
                encrypted.Add(found);
            }
            foreach (Node child in node.Children) FindEncrypted(child);
        }

        // What stands for an attribute in the canonical form; takes it down for comparison.
        private string ValueOf(Node node, string path, KeyValuePair<string, string> attribute)
        {
            string value = attribute.Value;
            string shown = value;
            if (Matches(overrides, path)) shown = "[override]";
            else if (IsMarked(value))
            {
                string provider;
                shown = StateOf(value, out provider) == "empty" ? "" : "[enc]";
            }
            else if (attribute.Key == "sessionKey" && node.Plain == "configProtectedData/providers/add") shown = "[session]";
            else if (value.Length > 0 && (Declared(node, attribute.Key) != null || IsSecret(node, attribute))) return Secret(path, value);
            values.Add(new KeyValuePair<string, string>(path, Comparable(shown)));
            return shown;
        }

        private string Secret(string path, string value)
        {
            secrets.Add(new KeyValuePair<string, string>(path, value));
            values.Add(new KeyValuePair<string, string>(path, runKey == null ? "[secret]" : "hmac:" + Hmac(runKey, path + "\n" + value).Substring(0, 32)));
            return "[secret]";
        }

        private static bool IsSecret(Node node, KeyValuePair<string, string> attribute)
        {
            if (attribute.Key == "value" && node.Parent != null && SecretParents.Contains(node.Parent.Name)) return true;
            if (attribute.Value.StartsWith("AutoGenerate", StringComparison.OrdinalIgnoreCase)) return false;
            return SecretNames.Contains(attribute.Key) || attribute.Key.EndsWith("password", StringComparison.OrdinalIgnoreCase);
        }

        private static string Comparable(string value)
        {
            if (value.Length <= ShownValue) return value;
            return "sha256:" + Sha256(value).Substring(0, 32);
        }

        private static string Escape(string value)
        {
            StringBuilder text = new StringBuilder(value.Length);
            foreach (char c in value)
            {
                if (c == '&') text.Append("&amp;");
                else if (c == '<') text.Append("&lt;");
                else if (c == '>') text.Append("&gt;");
                else if (c == '"') text.Append("&quot;");
                else if (c == '\t') text.Append("&#9;");
                else if (c == '\n') text.Append("&#10;");
                else if (c == '\r') text.Append("&#13;");
                else text.Append(c);
            }
            return text.ToString();
        }
    }
}
