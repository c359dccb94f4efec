// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// Runs the parsers of the target over many inputs in one process. Compiled in one unit with them, on any system: nothing here
// needs Windows.

using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Reflection;
using System.Security.Cryptography;
using System.Text;
using ansible_collections.webfarm.iis.plugins.module_utils._Configuration;
using ansible_collections.webfarm.iis.plugins.module_utils._Protection;

//TypeAccelerator -Name WebfarmFuzz -TypeName WebfarmFuzz

namespace ansible_collections.webfarm.iis.tests.Fuzz
{
    public static class WebfarmFuzz
    {
        /// <summary>
        /// One line for each input: refused, or read with what was read; the milliseconds it took; what went wrong, tab-separated.
        /// </summary>
        /// <param name="path">4 bytes of length (little-endian), then so many bytes, and so on</param>
        /// <param name="value">what an attribute is changed to</param>
        public static string[] Run(string path, string value)
        {
            byte[] all = File.ReadAllBytes(path);
            List<string> lines = new List<string>();
            int at = 0;
            while (at < all.Length)
            {
                int length = BitConverter.ToInt32(all, at);
                byte[] data = new byte[length];
                Buffer.BlockCopy(all, at + 4, data, 0, length);
                at += 4 + length;
                Stopwatch watch = Stopwatch.StartNew();
                string outcome;
                try
                {
                    outcome = One(data, lines.Count, value);
                }
                catch (Exception e)
                {
                    outcome = "finding\t" + e.GetType().Name + ": " + e.Message.Replace('\n', ' ').Replace('\t', ' ') + e.StackTrace.Replace('\n', ' ');
                }
                lines.Add(watch.ElapsedMilliseconds + "\t" + outcome);
            }
            return lines.ToArray();
        }

        private static string One(byte[] data, int number, string value)
        {
            Values(data);
            WebfarmConfigurationFile file;
            try
            {
                file = WebfarmConfiguration.Parse(data, "x");
            }
            catch (WebfarmConfigurationException e)
            {
                return "refused\t" + e.Message.Replace('\n', ' ').Replace('\r', ' ').Replace('\t', ' ');
            }
            // Judged without any key: what is malformed, unknown or not base64 is found out before one is asked for.
            StringBuilder text = new StringBuilder();
            Dictionary<string, string> same = new Dictionary<string, string>();
            foreach (WebfarmConfigurationFile.Attribute attribute in file.Attributes)
            {
                text.Append(attribute.Path).Append('\0').Append(attribute.Value).Append('\0').Append(attribute.Line).Append('\n');
                same[attribute.Path] = attribute.Value;
            }
            foreach (WebfarmProtectedValue one in file.Values) text.Append(one.Path).Append('\0').Append(one.Provider).Append('\0').Append(one.Data).Append('\n');
            string digest;
            using (SHA256 hash = SHA256.Create()) digest = BitConverter.ToString(hash.ComputeHash(new UTF8Encoding(false, true).GetBytes(text.ToString())));
            WebfarmConfiguration.Skeleton(file);
            if (same.Count == file.Attributes.Count && !Same(WebfarmConfiguration.Replace(file, same), data)) return "finding\ta no-op edit gives other bytes";
            string edited = "-";
            string chosen = "";
            if (file.Attributes.Count > 0)
            {
                chosen = file.Attributes[number % file.Attributes.Count].Path;
                Dictionary<string, string> change = new Dictionary<string, string>();
                change[chosen] = value;
                try
                {
                    edited = Convert.ToBase64String(WebfarmConfiguration.Replace(file, change));
                }
                catch (WebfarmConfigurationException)
                {
                    edited = "refused";
                }
            }
            return "read\t" + digest + "\t" + Convert.ToBase64String(Encoding.UTF8.GetBytes(chosen)) + "\t" + edited;
        }

        // The judgement of opened values, and base64: any bytes, any text.
        private static void Values(byte[] data)
        {
            int start, size;
            Judge.Aes(data, data.Length, true, out start, out size);
            Judge.Aes(data, data.Length, false, out start, out size);
            Judge.Text(data, 0, data.Length);
            foreach (Type type in typeof(WebfarmProtection).Assembly.GetTypes())
            {
                MethodInfo method = type.GetMethod("Base64", BindingFlags.NonPublic | BindingFlags.Static, null, new Type[] { typeof(string) }, null);
                if (method == null) continue;
                method.Invoke(null, new object[] { Encoding.ASCII.GetString(data, 0, Math.Min(data.Length, 400) / 4 * 4) });
                method.Invoke(null, new object[] { Convert.ToBase64String(data, 0, Math.Min(data.Length, 400)) });
            }
        }

        private static bool Same(byte[] first, byte[] second)
        {
            if (first.Length != second.Length) return false;
            for (int i = 0; i < first.Length; i++)
                if (first[i] != second[i]) return false;
            return true;
        }
    }
}
