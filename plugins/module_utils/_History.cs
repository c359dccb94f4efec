// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// FOR INTERNAL COLLECTION USE ONLY
// The interfaces in this file are meant for use within the webfarm.iis collection
// and may change in any release, even a bugfix release.

// What a restore needs beside reading configurations: how two of them differ, a live file that cannot be read, the settings of the history.

using System;
using System.Collections.Generic;
using System.Text;
using ansible_collections.webfarm.iis.plugins.module_utils._Canonical;
using ansible_collections.webfarm.iis.plugins.module_utils._Configuration;
using ansible_collections.webfarm.iis.plugins.module_utils._KeyContainer;

//TypeAccelerator -Name WebfarmHistory -TypeName WebfarmHistory

namespace ansible_collections.webfarm.iis.plugins.module_utils._History
{
    /// <summary>One attribute that differs. An encrypted value is a fingerprint of what is written, a secret in clear is [secret].</summary>
    public class WebfarmDifference
    {
        public string Path { get; internal set; }
        /// <summary>added, removed or changed.</summary>
        public string Change { get; internal set; }
        public string Before { get; internal set; }
        public string After { get; internal set; }
    }

    public static class WebfarmHistory
    {
        private const int ShownCharacters = 120;

        // Attributes whose values are not shown, also where nobody encrypted them.
        private static readonly string[] Secret = { "password", "passwd", "pwd", "secret", "token", "sessionkey", "connectionstring", "validationkey", "decryptionkey" };

        /// <summary>Attributes that differ from one file to another, in document order, those of the first file first.</summary>
        /// <param name="before">the one</param>
        /// <param name="after">the other</param>
        /// <param name="schema">what the server's schema declares as encrypted is a secret too, whatever its name; null: not known, every
        /// value may be one</param>
        public static WebfarmDifference[] Compare(WebfarmConfigurationFile before, WebfarmConfigurationFile after, WebfarmEncryptedSchema schema)
        {
            Dictionary<string, WebfarmConfigurationFile.Attribute> old = Values(before), young = Values(after);
            List<WebfarmDifference> found = new List<WebfarmDifference>();
            foreach (KeyValuePair<string, WebfarmConfigurationFile.Attribute> pair in old)
            {
                WebfarmConfigurationFile.Attribute other;
                if (!young.TryGetValue(pair.Key, out other)) found.Add(Difference("removed", pair.Value, null, schema));
                else if (other.Value != pair.Value.Value) found.Add(Difference("changed", pair.Value, other, schema));
            }
            foreach (KeyValuePair<string, WebfarmConfigurationFile.Attribute> pair in young)
                if (!old.ContainsKey(pair.Key)) found.Add(Difference("added", null, pair.Value, schema));
            return found.ToArray();
        }

        private static Dictionary<string, WebfarmConfigurationFile.Attribute> Values(WebfarmConfigurationFile file)
        {
            Dictionary<string, WebfarmConfigurationFile.Attribute> values =
                new Dictionary<string, WebfarmConfigurationFile.Attribute>(StringComparer.Ordinal);
            foreach (WebfarmConfigurationFile.Attribute attribute in file.Attributes) values[attribute.Path] = attribute;
            return values;
        }

        private static WebfarmDifference Difference(string change, WebfarmConfigurationFile.Attribute before,
            WebfarmConfigurationFile.Attribute after, WebfarmEncryptedSchema schema)
        {
            WebfarmDifference difference = new WebfarmDifference();
            difference.Path = (before ?? after).Path;
            difference.Change = change;
            bool hidden = IsSecret(before ?? after, schema);
            difference.Before = before == null ? null : Shown(before.Value, hidden);
            difference.After = after == null ? null : Shown(after.Value, hidden);
            return difference;
        }

        private static bool IsSecret(WebfarmConfigurationFile.Attribute attribute, WebfarmEncryptedSchema schema)
        {
            if (schema == null) return true;
            foreach (string word in Secret)
                if (attribute.Name.IndexOf(word, StringComparison.OrdinalIgnoreCase) >= 0) return true;
            StringBuilder plain = new StringBuilder("@" + attribute.Name);
            for (WebfarmConfigurationFile.Element element = attribute.Owner; element.Parent != null; element = element.Parent)
            {
                // These hold whatever somebody put there.
                if (element.Name == "environmentVariables" || element.Name == "appSettings") return true;
                // The schema knows sections by their names, wherever a location element puts them.
                if (element.Name == "location" && element.Parent.Parent == null) break;
                plain.Insert(0, element.Name + "/");
            }
            return schema.FileOf(plain.ToString()) != null;
        }

        private static string Shown(string text, bool hidden)
        {
            if (text.StartsWith("[enc:", StringComparison.Ordinal))
                return "sha256:" + WebfarmKeyContainer.Sha256(Encoding.UTF8.GetBytes(text)).Substring(0, 16);
            // The hash of a password in clear would tell who can guess.
            if (hidden) return "[secret]";
            return text.Length <= ShownCharacters ? text : text.Substring(0, ShownCharacters) + "...";
        }

        /// <summary>
        /// A file that is no configuration, as far as it matters for replacing it: its bytes and hash, and nothing in it.
        /// </summary>
        public static WebfarmConfigurationFile Unreadable(byte[] bytes, string name)
        {
            WebfarmConfigurationFile file = WebfarmConfiguration.Parse(Encoding.ASCII.GetBytes("<configuration />"), name);
            file.Bytes = bytes;
            file.Sha256 = WebfarmKeyContainer.Sha256(bytes);
            return file;
        }

        /// <summary>The settings in force: those of the file, and the defaults of the schema.</summary>
        public static IDictionary<string, string> Settings(WebfarmConfigurationFile file)
        {
            Dictionary<string, string> settings = new Dictionary<string, string>();
            settings["enabled"] = "true";
            settings["path"] = @"%SystemDrive%\inetpub\history";
            settings["maxHistories"] = "10";
            settings["period"] = "00:02:00";
            WebfarmConfigurationFile.Element parent, section;
            Find(file, out parent, out section);
            if (section != null)
                foreach (WebfarmConfigurationFile.Attribute attribute in section.Attributes) settings[attribute.Name] = attribute.Value;
            return settings;
        }

        private static void Find(WebfarmConfigurationFile file, out WebfarmConfigurationFile.Element parent, out WebfarmConfigurationFile.Element section)
        {
            section = null;
            parent = null;
            foreach (WebfarmConfigurationFile.Element element in file.Elements)
            {
                bool top = element.Parent != null && element.Parent.Parent == null;
                if (top && element.Name == "system.applicationHost" && parent == null) parent = element;
                if (parent != null && element.Parent == parent && element.Name == "configHistory" && section == null) section = element;
            }
        }

        /// <summary>
        /// The file with attributes of configHistory set; every other byte stays. Where the file has no such element, it is added as the first
        /// one of system.applicationHost.
        /// </summary>
        public static byte[] Set(WebfarmConfigurationFile file, IDictionary<string, string> values)
        {
            Dictionary<string, string> edits = new Dictionary<string, string>();
            WebfarmConfigurationFile.Element parent, section;
            Find(file, out parent, out section);
            if (parent == null)
                throw new WebfarmConfigurationException(file.Name, 0, "there is no section group system.applicationHost");
            if (section != null)
            {
                foreach (KeyValuePair<string, string> pair in values) edits[section.Path + "/@" + pair.Key] = pair.Value;
                return WebfarmConfiguration.Replace(file, edits);
            }
            return Insert(file, parent, values);
        }

        private static byte[] Insert(WebfarmConfigurationFile file, WebfarmConfigurationFile.Element parent, IDictionary<string, string> values)
        {
            int end = parent.NameEnd;
            foreach (WebfarmConfigurationFile.Attribute attribute in parent.Attributes) end = attribute.Start + attribute.Length + 1;
            while (end < file.Text.Length && Char.IsWhiteSpace(file.Text[end])) end++;
            if (end >= file.Text.Length || file.Text[end] != '>')
                throw new WebfarmConfigurationException(file.Name, parent.Line, "system.applicationHost is empty: this is not the configuration of a server");
            end++;
            int lead = end;
            while (lead < file.Text.Length && Char.IsWhiteSpace(file.Text[lead])) lead++;
            StringBuilder text = new StringBuilder(file.Text.Substring(0, end));
            text.Append(file.Text, end, lead - end).Append("<configHistory");
            // Replace() escapes; an element of its own is made first and filled by it.
            text.Append(" />").Append(file.Text, end, file.Text.Length - end);
            byte[] body = new UTF8Encoding(file.ByteOrderMark, true).GetBytes(text.ToString());
            if (file.ByteOrderMark)
            {
                byte[] marked = new byte[body.Length + 3];
                marked[0] = 0xEF;
                marked[1] = 0xBB;
                marked[2] = 0xBF;
                Buffer.BlockCopy(body, 0, marked, 3, body.Length);
                body = marked;
            }
            return Set(WebfarmConfiguration.Parse(body, file.Name), values);
        }
    }
}
