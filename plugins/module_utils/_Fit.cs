// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// FOR INTERNAL COLLECTION USE ONLY
// The interfaces in this file are meant for use within the webfarm.iis collection
// and may change in any release, even a bugfix release.

// Whether a configuration file fits a server: schema, modules, generation, accounts, bindings, folders. And values that differ per server.

using System;
using System.Collections.Generic;
using System.IO;
using System.Runtime.InteropServices;
using System.Text;
using System.Xml;
using ansible_collections.webfarm.iis.plugins.module_utils._Configuration;

//AssemblyReference -Name System.Xml.dll -CLR Framework
//TypeAccelerator -Name WebfarmAccount -TypeName WebfarmAccount
//TypeAccelerator -Name WebfarmCertificateBinding -TypeName WebfarmCertificateBinding
//TypeAccelerator -Name WebfarmFit -TypeName WebfarmFit
//TypeAccelerator -Name WebfarmOverride -TypeName WebfarmOverride
//TypeAccelerator -Name WebfarmSchema -TypeName WebfarmSchema

namespace ansible_collections.webfarm.iis.plugins.module_utils._Fit
{
    /// <summary>Something of a configuration that does not fit the server.</summary>
    public class WebfarmFinding
    {
        public string Code { get; internal set; }
        /// <summary>error, warning, or note for what is told and nobody has to act on.</summary>
        public string Severity { get; internal set; }
        /// <summary>Attribute or element path in the file; null where no place in the file is to blame.</summary>
        public string Path { get; internal set; }
        public int Line { get; internal set; }
        public string Message { get; internal set; }
        public string Fix { get; internal set; }
        /// <summary>Name for Install-WindowsFeature, null where no feature helps.</summary>
        public string Feature { get; internal set; }
    }

    /// <summary>A value of the file that the host has to judge: an account, a folder, a binding.</summary>
    public class WebfarmReference
    {
        /// <summary>pool_user, folder_user, folder, log_folder.</summary>
        public string Kind { get; internal set; }
        public string Path { get; internal set; }
        public int Line { get; internal set; }
        public string Value { get; internal set; }
    }

    public class WebfarmBindingUse
    {
        public string Site { get; internal set; }
        public string Path { get; internal set; }
        public int Line { get; internal set; }
        public string Protocol { get; internal set; }
        /// <summary>Address without brackets, * for all.</summary>
        public string Address { get; internal set; }
        public int Port { get; internal set; }
        public string HostName { get; internal set; }
        /// <summary>1 where the certificate is chosen by the host's name, 2 for the central store.</summary>
        public int SslFlags { get; internal set; }
    }

    /// <summary>What the schema files of a server say: which sections exist, with which elements and attributes.</summary>
    public class WebfarmSchema
    {
        internal sealed class Node
        {
            internal readonly HashSet<string> Attributes = new HashSet<string>(StringComparer.OrdinalIgnoreCase);
            internal readonly Dictionary<string, Node> Elements = new Dictionary<string, Node>(StringComparer.OrdinalIgnoreCase);
            internal bool AnyAttribute;

            internal Node Child(string name)
            {
                Node child;
                if (!Elements.TryGetValue(name, out child)) Elements.Add(name, child = new Node());
                return child;
            }
        }

        internal readonly Dictionary<string, Node> Sections = new Dictionary<string, Node>(StringComparer.OrdinalIgnoreCase);
        private readonly List<string> files = new List<string>();
        private readonly List<string> broken = new List<string>();

        /// <summary>The schema files that were read, and those that could not be, each with the reason.</summary>
        public string[] Files { get { return files.ToArray(); } }
        public string[] Broken { get { return broken.ToArray(); } }
        public int Count { get { return Sections.Count; } }
        /// <summary>Whether a default of the schema is encrypted under a CNG provider, as from IIS 10 on.</summary>
        public bool KnowsCng { get; private set; }

        /// <summary>Reads every *.xml of inetsrv\config\schema, those of other makers included.</summary>
        public static WebfarmSchema Load(string folder)
        {
            WebfarmSchema schema = new WebfarmSchema();
            if (!Directory.Exists(folder)) return schema;
            string[] names = Directory.GetFiles(folder, "*.xml");
            Array.Sort(names, StringComparer.OrdinalIgnoreCase);
            foreach (string name in names)
            {
                try
                {
                    schema.Add(File.ReadAllText(name));
                    schema.files.Add(System.IO.Path.GetFileName(name));
                }
                catch (XmlException e) { schema.broken.Add(System.IO.Path.GetFileName(name) + ": " + e.Message); }
                catch (IOException e) { schema.broken.Add(System.IO.Path.GetFileName(name) + ": " + e.Message); }
                catch (UnauthorizedAccessException e) { schema.broken.Add(System.IO.Path.GetFileName(name) + ": " + e.Message); }
            }
            return schema;
        }

        public void Add(string text)
        {
            XmlReaderSettings settings = new XmlReaderSettings();
            settings.DtdProcessing = DtdProcessing.Prohibit;
            settings.XmlResolver = null;
            settings.IgnoreComments = true;
            XmlDocument document = new XmlDocument();
            document.XmlResolver = null;
            using (XmlReader reader = XmlReader.Create(new StringReader(text.TrimStart()), settings)) document.Load(reader);
            foreach (XmlNode node in document.DocumentElement.ChildNodes)
            {
                XmlElement section = node as XmlElement;
                if (section == null || section.Name != "sectionSchema") continue;
                string name = section.GetAttribute("name").Trim('/');
                Node known;
                // Several files may describe one section: FTP adds to system.applicationHost/sites.
                if (!Sections.TryGetValue(name, out known)) Sections.Add(name, known = new Node());
                Fill(known, section);
            }
        }

        private void Fill(Node node, XmlElement description)
        {
            if (Yes(description, "allowUnrecognizedAttributes")) node.AnyAttribute = true;
            foreach (XmlNode inner in description.ChildNodes)
            {
                XmlElement element = inner as XmlElement;
                if (element == null) continue;
                if (element.Name == "attribute")
                {
                    node.Attributes.Add(element.GetAttribute("name"));
                    string value = element.GetAttribute("defaultValue");
                    if (value.StartsWith("[enc:", StringComparison.Ordinal) && value.IndexOf("CngProvider", StringComparison.OrdinalIgnoreCase) > 0) KnowsCng = true;
                }
                else if (element.Name == "element") Fill(node.Child(element.GetAttribute("name")), element);
                else if (element.Name == "collection")
                {
                    foreach (string role in new string[] { "addElement", "removeElement", "clearElement", "defaultElement" })
                        foreach (string name in element.GetAttribute(role).Split(new char[] { ',', ' ' }, StringSplitOptions.RemoveEmptyEntries))
                            Fill(node.Child(name), element);
                }
            }
        }

        private static bool Yes(XmlElement element, string attribute)
        {
            return String.Equals(element.GetAttribute(attribute), "true", StringComparison.OrdinalIgnoreCase);
        }

        internal bool IsGroup(string path)
        {
            foreach (string name in Sections.Keys)
                if (name.StartsWith(path + "/", StringComparison.OrdinalIgnoreCase)) return true;
            return false;
        }
    }

    public static class WebfarmFit
    {
        // May stand on every section or element.
        private static readonly HashSet<string> Common = new HashSet<string>(new string[] {
            "lockAttributes", "lockAllAttributesExcept", "lockElements", "lockAllElementsExcept", "lockItem", "configSource",
            "configProtectionProvider" }, StringComparer.OrdinalIgnoreCase);

        // Library of a module to the feature that brings it.
        private static readonly Dictionary<string, string> ModuleFeature = Pairs(
            "authbas.dll Web-Basic-Auth authcert.dll Web-Client-Auth authmap.dll Web-Cert-Auth authmd5.dll Web-Digest-Auth authsspi.dll Web-Windows-Auth "
            + "cgi.dll Web-CGI iisfcgi.dll Web-CGI compdyn.dll Web-Dyn-Compression compstat.dll Web-Stat-Compression custerr.dll Web-Http-Errors "
            + "defdoc.dll Web-Default-Doc dirlist.dll Web-Dir-Browsing diprestr.dll Web-IP-Security iprestr.dll Web-IP-Security filter.dll Web-ISAPI-Filter "
            + "isapi.dll Web-ISAPI-Ext iis_ssi.dll Web-Includes iisetw.dll Web-Http-Tracing iisfreb.dll Web-Http-Tracing iisreqs.dll Web-Request-Monitor "
            + "iiswsock.dll Web-WebSockets logcust.dll Web-Custom-Logging loghttp.dll Web-Http-Logging modrqflt.dll Web-Filtering redirect.dll Web-Http-Redirect "
            + "static.dll Web-Static-Content urlauthz.dll Web-Url-Auth warmup.dll Web-AppInit webdav.dll Web-DAV-Publishing webengine.dll Web-Asp-Net "
            + "webengine4.dll Web-Asp-Net45 authanon.dll Web-WebServer cachfile.dll Web-WebServer cachhttp.dll Web-WebServer cachtokn.dll Web-WebServer "
            + "cachuri.dll Web-WebServer protsup.dll Web-WebServer validcfg.dll Web-WebServer asp.dll Web-ASP ssinc.dll Web-Includes");

        // Beginning of a section's name to the feature that brings its schema.
        private static readonly Dictionary<string, string> SectionFeature = Pairs(
            "system.ftpServer Web-Ftp-Server system.webServer/webdav Web-DAV-Publishing system.webServer/webSocket Web-WebSockets "
            + "system.webServer/applicationInitialization Web-AppInit system.webServer/security/dynamicIpSecurity Web-IP-Security");

        // What no Windows feature brings.
        private static readonly Dictionary<string, string> Product = Pairs(
            "rewrite.dll URL+Rewrite system.webServer/rewrite URL+Rewrite aspnetcore.dll ASP.NET+Core+Hosting+Bundle aspnetcorev2.dll ASP.NET+Core+Hosting+Bundle "
            + "system.webServer/aspNetCore ASP.NET+Core+Hosting+Bundle requestrouter.dll Application+Request+Routing webFarms Application+Request+Routing "
            + "system.webServer/proxy Application+Request+Routing iiscors.dll IIS+CORS+Module system.webServer/cors IIS+CORS+Module "
            + "httpplatformhandler.dll HttpPlatformHandler system.webServer/httpPlatform HttpPlatformHandler iisnode.dll iisnode system.webServer/iisnode iisnode");

        private static readonly string[] ExpressVariables = { "%IIS_BIN%", "%IIS_SITES_HOME%", "%IIS_USER_HOME%" };

        private static Dictionary<string, string> Pairs(string text)
        {
            Dictionary<string, string> pairs = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
            string[] words = text.Split(' ');
            for (int i = 0; i + 1 < words.Length; i += 2) pairs.Add(words[i], words[i + 1].Replace('+', ' '));
            return pairs;
        }

        private static WebfarmFinding Finding(string code, string severity, string path, int line, string message, string fix, string feature)
        {
            WebfarmFinding finding = new WebfarmFinding();
            finding.Code = code;
            finding.Severity = severity;
            finding.Path = path;
            finding.Line = line;
            finding.Message = message;
            finding.Fix = fix;
            finding.Feature = feature;
            return finding;
        }

        private static WebfarmConfigurationFile.Element Root(WebfarmConfigurationFile file)
        {
            return file.Elements[0];
        }

        private static bool Same(string one, string other)
        {
            return String.Equals(one, other, StringComparison.OrdinalIgnoreCase);
        }

        // --- sections ---------------------------------------------------------------------------------------------------------

        /// <summary>Sections, elements and attributes that the schema of the server does not know.</summary>
        /// <param name="present">the server's present file, which it runs with</param>
        public static WebfarmFinding[] Sections(WebfarmConfigurationFile file, WebfarmConfigurationFile present, WebfarmSchema schema)
        {
            List<WebfarmFinding> findings = new List<WebfarmFinding>();
            Dictionary<string, WebfarmConfigurationFile.Element> declared = Declared(file);
            Dictionary<string, WebfarmConfigurationFile.Element> known = Declared(present);
            HashSet<string> used = new HashSet<string>(StringComparer.OrdinalIgnoreCase);
            foreach (WebfarmConfigurationFile.Element element in Root(file).Children)
            {
                if (element.Name == "configSections" || element.Name == "configProtectedData") continue;
                if (element.Name != "location") Group(element, element.Name, declared, schema, used, findings);
                else
                    foreach (WebfarmConfigurationFile.Element inner in element.Children) Group(inner, inner.Name, declared, schema, used, findings);
            }
            foreach (KeyValuePair<string, WebfarmConfigurationFile.Element> section in declared)
            {
                if (schema.Sections.ContainsKey(section.Key) || used.Contains(section.Key) || section.Value.Get("type") != null) continue;
                // A server that runs with the same leftover is not stopped by it.
                string severity = known.ContainsKey(section.Key) ? "warning" : "error";
                findings.Add(Unknown(section.Key, section.Value, severity, "is declared"));
            }
            return findings.ToArray();
        }

        private static WebfarmFinding Unknown(string section, WebfarmConfigurationFile.Element element, string severity, string what)
        {
            string feature = null, product = null;
            foreach (KeyValuePair<string, string> pair in SectionFeature)
                if (Same(section, pair.Key) || section.StartsWith(pair.Key + "/", StringComparison.OrdinalIgnoreCase)) feature = pair.Value;
            foreach (KeyValuePair<string, string> pair in Product)
                if (Same(section, pair.Key) || section.StartsWith(pair.Key + "/", StringComparison.OrdinalIgnoreCase)) product = pair.Value;
            string fix = feature != null ? "Install the Windows feature " + feature + "."
                : product != null ? "Install " + product + " on this server."
                : "Install the component that brings this section, or take the section out of the file.";
            return Finding("section_without_schema", severity, element.Path, element.Line,
                String.Format("the section {0} {1}, and no file in inetsrv\\config\\schema of this server describes it", section, what), fix, feature);
        }

        private static Dictionary<string, WebfarmConfigurationFile.Element> Declared(WebfarmConfigurationFile file)
        {
            Dictionary<string, WebfarmConfigurationFile.Element> found = new Dictionary<string, WebfarmConfigurationFile.Element>(StringComparer.OrdinalIgnoreCase);
            foreach (WebfarmConfigurationFile.Element sections in Root(file).At("configSections")) Declared(sections, "", found);
            return found;
        }

        private static void Declared(WebfarmConfigurationFile.Element group, string prefix, Dictionary<string, WebfarmConfigurationFile.Element> found)
        {
            foreach (WebfarmConfigurationFile.Element element in group.Children)
            {
                string name = prefix + element.Get("name");
                if (element.Name == "section") found[name] = element;
                else if (element.Name == "sectionGroup") Declared(element, name + "/", found);
            }
        }

        private static void Group(WebfarmConfigurationFile.Element element, string name, Dictionary<string, WebfarmConfigurationFile.Element> declared,
            WebfarmSchema schema, HashSet<string> used, List<WebfarmFinding> findings)
        {
            WebfarmSchema.Node node;
            if (schema.Sections.TryGetValue(name, out node))
            {
                used.Add(name);
                Element(element, name, node, schema, findings);
                return;
            }
            WebfarmConfigurationFile.Element declaration;
            bool section = declared.TryGetValue(name, out declaration);
            if (section && declaration.Get("type") != null) return; // a section of .NET, IIS does not read it
            bool group = schema.IsGroup(name);
            foreach (string other in declared.Keys) group = group || other.StartsWith(name + "/", StringComparison.OrdinalIgnoreCase);
            if (!section && group)
            {
                foreach (WebfarmConfigurationFile.Element child in element.Children) Group(child, name + "/" + child.Name, declared, schema, used, findings);
                return;
            }
            if (used.Add(name)) findings.Add(Unknown(name, element, "error", section ? "is used" : "is used but not declared"));
        }

        private static void Element(WebfarmConfigurationFile.Element element, string section, WebfarmSchema.Node node, WebfarmSchema schema, List<WebfarmFinding> findings)
        {
            foreach (WebfarmConfigurationFile.Attribute attribute in element.Attributes)
            {
                if (node.AnyAttribute || node.Attributes.Contains(attribute.Name) || Common.Contains(attribute.Name) || attribute.Name.IndexOf(':') > 0
                    || attribute.Name == "xmlns") continue;
                findings.Add(NotInSchema(attribute.Path, attribute.Line, "attribute " + attribute.Name, section));
            }
            foreach (WebfarmConfigurationFile.Element child in element.Children)
            {
                WebfarmSchema.Node inner;
                if (node.Elements.TryGetValue(child.Name, out inner)) Element(child, section, inner, schema, findings);
                // A section of its own below a section, as system.webServer/security/... never is, but others may be.
                else if (schema.Sections.TryGetValue(section + "/" + child.Name, out inner)) Element(child, section + "/" + child.Name, inner, schema, findings);
                else if (child.Name != "EncryptedData" && !schema.IsGroup(section + "/" + child.Name)) findings.Add(NotInSchema(child.Path, child.Line, "element " + child.Name, section));
            }
        }

        private static WebfarmFinding NotInSchema(string path, int line, string what, string section)
        {
            return Finding("not_in_schema", "error", path, line,
                String.Format("the {0} is not known to the schema of this server for {1}; IIS would refuse the whole section", what, section),
                "The file comes from another release of IIS or of the component. Bring this server to the same release, or take it out of the file.", null);
        }

        // --- generation -------------------------------------------------------------------------------------------------------

        /// <summary>
        /// Another IIS or another generation, by what the file says. IIS Express: one of its variables. Newer: a CNG provider, and neither
        /// the schema of the server nor its present file knows CNG. Older: no CNG provider, while the present file of the server has one.
        /// </summary>
        public static WebfarmFinding[] Generation(WebfarmConfigurationFile file, WebfarmConfigurationFile present, WebfarmSchema schema)
        {
            List<WebfarmFinding> findings = new List<WebfarmFinding>();
            foreach (WebfarmConfigurationFile.Attribute attribute in file.Attributes)
            {
                string variable = null;
                foreach (string name in ExpressVariables)
                    if (attribute.Value.IndexOf(name, StringComparison.OrdinalIgnoreCase) >= 0) variable = name;
                if (variable == null) continue;
                findings.Add(Finding("iis_express", "error", attribute.Path, attribute.Line,
                    "the file is one of IIS Express: it uses " + variable + ", which a full IIS does not set",
                    "Take the configuration from a full IIS; copy single sites from this file instead.", null));
                break;
            }
            WebfarmProvider theirs = Cng(file), own = Cng(present);
            if (theirs != null && own == null && !schema.KnowsCng)
                findings.Add(Finding("newer_generation", "error", null, theirs.Line,
                    "the file is from IIS 10 (it declares the CNG provider " + theirs.Name + "), this server is of an older generation",
                    "Use a server with IIS 10.", null));
            if (findings.Count == 0 && theirs == null && own != null && file.Providers.Length > 0)
                findings.Add(Finding("older_generation", "error", null, file.Providers[0].Line,
                    "the file is from an IIS before 10 (it declares no CNG provider), this server is of IIS 10",
                    "Take the file from a server of this generation. For a migration accept this finding in accept_unfit with the reason.", null));
            return findings.ToArray();
        }

        private static WebfarmProvider Cng(WebfarmConfigurationFile file)
        {
            foreach (WebfarmProvider provider in file.Providers)
                if (provider.Kind == "cng") return provider;
            return null;
        }

        // --- modules ----------------------------------------------------------------------------------------------------------

        private sealed class PoolKind
        {
            internal bool Wide = true;   // 64-bit
            internal string Runtime = "v4.0";
            internal bool Integrated = true;
        }

        private static List<PoolKind> PoolKinds(WebfarmConfigurationFile file)
        {
            List<PoolKind> kinds = new List<PoolKind>();
            WebfarmConfigurationFile.Element common = null;
            foreach (WebfarmConfigurationFile.Element element in Root(file).At("system.applicationHost/applicationPools/applicationPoolDefaults")) common = element;
            foreach (WebfarmConfigurationFile.Element pool in Root(file).At("system.applicationHost/applicationPools/add"))
            {
                PoolKind kind = new PoolKind();
                kind.Wide = !Same(Inherited(pool, common, "enable32BitAppOnWin64"), "true");
                // The schema's default is empty, what IIS writes into applicationPoolDefaults is v4.0.
                kind.Runtime = Inherited(pool, common, "managedRuntimeVersion") ?? "";
                kind.Integrated = !Same(Inherited(pool, common, "managedPipelineMode"), "Classic");
                kinds.Add(kind);
            }
            return kinds;
        }

        private static string Inherited(WebfarmConfigurationFile.Element own, WebfarmConfigurationFile.Element common, string name)
        {
            string value = own == null ? null : own.Get(name);
            return value ?? (common == null ? null : common.Get(name));
        }

        private static bool Loads(PoolKind pool, string preCondition)
        {
            foreach (string part in (preCondition ?? "").Split(','))
            {
                string word = part.Trim();
                if (Same(word, "bitness32") && pool.Wide) return false;
                if (Same(word, "bitness64") && !pool.Wide) return false;
                if (Same(word, "integratedMode") && !pool.Integrated) return false;
                if (Same(word, "classicMode") && pool.Integrated) return false;
                if (word.StartsWith("runtimeVersion", StringComparison.OrdinalIgnoreCase) && pool.Runtime.Length > 0
                    && !Same(word.Substring(14), pool.Runtime)) return false;
                // A pool without managed code loads nothing of one runtime.
                if (word.StartsWith("runtimeVersion", StringComparison.OrdinalIgnoreCase) && pool.Runtime.Length == 0) return false;
            }
            return true;
        }

        /// <summary>Libraries of global modules that are not on this server. A pool that would load one does not start any worker.</summary>
        public static WebfarmFinding[] Modules(WebfarmConfigurationFile file)
        {
            List<WebfarmFinding> findings = new List<WebfarmFinding>();
            List<PoolKind> pools = PoolKinds(file);
            string system = Environment.GetFolderPath(Environment.SpecialFolder.System);
            string narrow = Path.Combine(Path.GetDirectoryName(system) ?? "", "SysWOW64");
            foreach (WebfarmConfigurationFile.Element module in Root(file).At("system.webServer/globalModules/add"))
            {
                string image = module.Get("image");
                if (String.IsNullOrEmpty(image)) continue;
                string path = Environment.ExpandEnvironmentVariables(image);
                bool wide = false, small = false, any = false;
                foreach (PoolKind pool in pools)
                {
                    if (!Loads(pool, module.Get("preCondition"))) continue;
                    any = true;
                    if (pool.Wide) wide = true;
                    else small = true;
                }
                List<string> wanted = new List<string>();
                if (wide || !any) wanted.Add(path);
                // A 32-bit worker is sent to SysWOW64.
                if (small) wanted.Add(path.StartsWith(system + "\\", StringComparison.OrdinalIgnoreCase) ? narrow + path.Substring(system.Length) : path);
                string absent = null;
                foreach (string one in wanted)
                    if (absent == null && !File.Exists(Path.IsPathRooted(one) ? one : Path.Combine(Path.Combine(system, "inetsrv"), one))) absent = one;
                if (absent == null) continue;
                string variable = "";
                int percent = absent.IndexOf('%');
                int end = percent >= 0 ? absent.IndexOf('%', percent + 1) : -1;
                if (end > 0) variable = " (" + absent.Substring(percent, end - percent + 1) + " is not set here)";
                string feature, product, name = absent.Substring(absent.LastIndexOfAny(new char[] { '\\', '/' }) + 1);
                ModuleFeature.TryGetValue(name, out feature);
                Product.TryGetValue(name, out product);
                string fix = feature != null ? "Install the Windows feature " + feature + "."
                    : product != null ? "Install " + product + " on this server."
                    : "Install the component that brings this module, or take the module out of the file.";
                string message = String.Format("the library {0} of the global module {1} is not on this server{2}", absent, module.Get("name"), variable);
                message += any ? "; no pool that loads it would start a worker" : "; no pool of the file loads it";
                findings.Add(Finding("module_dll_missing", any ? "error" : "warning", module.Path + "/@image", module.Line, message, fix, feature));
            }
            return findings.ToArray();
        }

        // --- ISAPI filters and what isapiCgiRestriction allows ----------------------------------------------------------------

        /// <summary>
        /// Libraries of ISAPI filters, and programs that may run, that are not on this server. A filter that cannot be loaded stops the site,
        /// a program that is absent only its own requests, and nobody knows from here whether there are any: warnings.
        /// </summary>
        public static WebfarmFinding[] Programs(WebfarmConfigurationFile file)
        {
            List<WebfarmFinding> findings = new List<WebfarmFinding>();
            List<PoolKind> pools = PoolKinds(file);
            foreach (WebfarmConfigurationFile.Element filter in Everywhere(file, "system.webServer/isapiFilters/filter"))
            {
                if (Same(filter.Get("enabled"), "false")) continue;
                bool any = pools.Count == 0;
                foreach (PoolKind pool in pools) any = any || Loads(pool, filter.Get("preCondition"));
                if (any) Program(findings, "isapi_filter_absent", filter, "the ISAPI filter " + filter.Get("name"));
            }
            foreach (WebfarmConfigurationFile.Element entry in Everywhere(file, "system.webServer/security/isapiCgiRestriction/add"))
                if (Same(entry.Get("allowed"), "true")) Program(findings, "isapi_cgi_absent", entry, "isapiCgiRestriction, " + (entry.Get("description") ?? entry.Get("groupId")));
            return findings.ToArray();
        }

        /// <summary>The elements at a path, below the root and below every location.</summary>
        private static List<WebfarmConfigurationFile.Element> Everywhere(WebfarmConfigurationFile file, string path)
        {
            List<WebfarmConfigurationFile.Element> found = new List<WebfarmConfigurationFile.Element>(Root(file).At(path));
            foreach (WebfarmConfigurationFile.Element location in Root(file).At("location")) found.AddRange(location.At(path));
            return found;
        }

        private static void Program(List<WebfarmFinding> findings, string code, WebfarmConfigurationFile.Element element, string what)
        {
            string path = Executable(element.Get("path"));
            if (path.Length == 0) return;
            if (path.StartsWith("\\\\", StringComparison.Ordinal))
            {
                findings.Add(Share(element.Path + "/@path", element.Line, path));
                return;
            }
            if (File.Exists(Path.IsPathRooted(path) ? path : Path.Combine(Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.System), "inetsrv"), path))) return;
            string feature = ProgramFeature(path);
            string fix = feature != null ? "Install the Windows feature " + feature + ", or take the entry out of the file."
                : "Install what brings this program, or take the entry out of the file.";
            findings.Add(Finding(code, "warning", element.Path + "/@path", element.Line, String.Format("{0} is not on this server ({1})", path, what), fix, feature));
        }

        /// <summary>The program of a CGI entry, which may have arguments behind it, with its variables resolved.</summary>
        private static string Executable(string value)
        {
            string path = Environment.ExpandEnvironmentVariables(value ?? "").Trim();
            if (path.StartsWith("\"", StringComparison.Ordinal))
            {
                int end = path.IndexOf('"', 1);
                return end > 0 ? path.Substring(1, end - 1) : path.Substring(1);
            }
            foreach (string suffix in new string[] { ".exe", ".dll" })
            {
                int at = path.IndexOf(suffix + " ", StringComparison.OrdinalIgnoreCase);
                if (at > 0) return path.Substring(0, at + suffix.Length);
            }
            return path;
        }

        private static string ProgramFeature(string path)
        {
            string feature = null, name = path.Substring(path.LastIndexOfAny(new char[] { '\\', '/' }) + 1);
            if (Same(name, "aspnet_isapi.dll") || Same(name, "aspnet_filter.dll"))
                return path.IndexOf("\\v4.", StringComparison.OrdinalIgnoreCase) > 0 ? "Web-Asp-Net45" : "Web-Asp-Net";
            if (path.IndexOf("\\inetsrv\\", StringComparison.OrdinalIgnoreCase) > 0) ModuleFeature.TryGetValue(name, out feature);
            return feature;
        }

        public static WebfarmFinding Share(string path, int line, string value)
        {
            return Finding("share_not_checked", "note", path, line,
                value + " is a share and was not looked at: another account reads it than the one of this connection",
                "Make sure that the pool's account, or the account of the folder, reads it from this server.", null);
        }

        // --- what a server has to bring ------------------------------------------------------------------------------------------

        /// <summary>Windows features that the modules, sections and programs of the file come from, installed here or not. Sorted.</summary>
        public static string[] Features(WebfarmConfigurationFile file)
        {
            return Expected(file, ModuleFeature, SectionFeature, true);
        }

        /// <summary>Products that no Windows feature brings, of which the file uses modules or sections. Sorted.</summary>
        public static string[] Products(WebfarmConfigurationFile file)
        {
            return Expected(file, Product, Product, false);
        }

        private static string[] Expected(WebfarmConfigurationFile file, Dictionary<string, string> modules, Dictionary<string, string> sections, bool programs)
        {
            HashSet<string> found = new HashSet<string>();
            foreach (WebfarmConfigurationFile.Element module in Root(file).At("system.webServer/globalModules/add"))
            {
                string name = (module.Get("image") ?? ""), brings;
                if (modules.TryGetValue(name.Substring(name.LastIndexOfAny(new char[] { '\\', '/' }) + 1), out brings)) found.Add(brings);
            }
            // A stock file declares sections of features that are not installed: what counts is that one says something.
            foreach (KeyValuePair<string, string> pair in sections)
                foreach (WebfarmConfigurationFile.Element element in Everywhere(file, pair.Key))
                    if (element.Children.Count > 0 || element.Attributes.Count > 0) found.Add(pair.Value);
            if (programs)
            {
                List<WebfarmConfigurationFile.Element> entries = Everywhere(file, "system.webServer/isapiFilters/filter");
                foreach (WebfarmConfigurationFile.Element entry in Everywhere(file, "system.webServer/security/isapiCgiRestriction/add"))
                    if (Same(entry.Get("allowed"), "true")) entries.Add(entry);
                foreach (WebfarmConfigurationFile.Element entry in entries)
                {
                    string feature = ProgramFeature(Executable(entry.Get("path")));
                    if (feature != null) found.Add(feature);
                }
            }
            List<string> sorted = new List<string>(found);
            sorted.Sort(String.CompareOrdinal);
            return sorted.ToArray();
        }

        // --- what the host judges ----------------------------------------------------------------------------------------------

        /// <summary>Accounts and folders that the file names.</summary>
        public static WebfarmReference[] References(WebfarmConfigurationFile file)
        {
            List<WebfarmReference> found = new List<WebfarmReference>();
            WebfarmConfigurationFile.Element root = Root(file);
            WebfarmConfigurationFile.Element common = null;
            List<WebfarmConfigurationFile.Element> pools = root.At("system.applicationHost/applicationPools/applicationPoolDefaults");
            foreach (WebfarmConfigurationFile.Element defaults in pools)
                foreach (WebfarmConfigurationFile.Element model in defaults.At("processModel")) common = model;
            pools.AddRange(root.At("system.applicationHost/applicationPools/add"));
            foreach (WebfarmConfigurationFile.Element pool in pools)
                foreach (WebfarmConfigurationFile.Element model in pool.At("processModel"))
                {
                    // By name, by number, or inherited.
                    string kind = Inherited(model, common, "identityType");
                    if (Same(kind, "SpecificUser") || kind == "3") Refer(found, "pool_user", model, "userName");
                }
            WebfarmConfigurationFile.Element sites = null;
            foreach (WebfarmConfigurationFile.Element element in root.At("system.applicationHost/sites")) sites = element;
            if (sites != null) Site(found, sites);
            foreach (string folder in new string[] { "centralBinaryLogFile", "centralW3CLogFile" })
                foreach (WebfarmConfigurationFile.Element log in root.At("system.applicationHost/log"))
                {
                    string mode = log.Get("centralLogFileMode") ?? "Site";
                    if ((folder == "centralW3CLogFile" && Same(mode, "CentralW3C")) || (folder == "centralBinaryLogFile" && Same(mode, "CentralBinary")))
                        foreach (WebfarmConfigurationFile.Element one in log.At(folder)) Refer(found, "log_folder", one, "directory");
                }
            return found.ToArray();
        }

        private static void Site(List<WebfarmReference> found, WebfarmConfigurationFile.Element element)
        {
            foreach (WebfarmConfigurationFile.Element child in element.Children)
            {
                if (child.Name == "virtualDirectory" || child.Name == "virtualDirectoryDefaults")
                {
                    Refer(found, "folder", child, "physicalPath");
                    Refer(found, "folder_user", child, "userName");
                }
                else if (child.Name == "logFile") Refer(found, "log_folder", child, "directory");
                else if (child.Name == "traceFailedRequestsLogging")
                {
                    if (Same(child.Get("enabled"), "true")) Refer(found, "log_folder", child, "directory");
                }
                else if (child.Name != "ftpServer") Site(found, child);
            }
        }

        private static void Refer(List<WebfarmReference> found, string kind, WebfarmConfigurationFile.Element element, string name)
        {
            foreach (WebfarmConfigurationFile.Attribute attribute in element.Attributes)
            {
                if (attribute.Name != name || attribute.Value.Length == 0) continue;
                WebfarmReference reference = new WebfarmReference();
                reference.Kind = kind;
                reference.Path = attribute.Path;
                reference.Line = attribute.Line;
                reference.Value = attribute.Value;
                found.Add(reference);
            }
        }

        /// <summary>http and https bindings of all sites.</summary>
        public static WebfarmBindingUse[] Bindings(WebfarmConfigurationFile file)
        {
            List<WebfarmBindingUse> found = new List<WebfarmBindingUse>();
            foreach (WebfarmConfigurationFile.Element site in Root(file).At("system.applicationHost/sites/site"))
                foreach (WebfarmConfigurationFile.Element binding in site.At("bindings/binding"))
                {
                    string protocol = binding.Get("protocol") ?? "", information = binding.Get("bindingInformation") ?? "";
                    int host = information.LastIndexOf(':');
                    int port = host > 0 ? information.LastIndexOf(':', host - 1) : -1;
                    int number, flags;
                    if (port < 0 || !(Same(protocol, "http") || Same(protocol, "https"))) continue;
                    if (!Int32.TryParse(information.Substring(port + 1, host - port - 1), out number)) continue;
                    Int32.TryParse(binding.Get("sslFlags") ?? "0", out flags);
                    WebfarmBindingUse use = new WebfarmBindingUse();
                    use.Site = site.Get("name") ?? "";
                    use.Path = binding.Path + "/@bindingInformation";
                    use.Line = binding.Line;
                    use.Protocol = protocol.ToLowerInvariant();
                    string address = information.Substring(0, port).Trim('[', ']');
                    use.Address = address.Length == 0 ? "*" : address;
                    use.Port = number;
                    use.HostName = information.Substring(host + 1);
                    use.SslFlags = flags;
                    found.Add(use);
                }
            return found.ToArray();
        }

        public static WebfarmFinding HostFinding(string code, string severity, string path, int line, string message, string fix)
        {
            return Finding(code, severity, path, line, message, fix, null);
        }
    }

    /// <summary>Accounts, as the local security authority resolves them.</summary>
    public static class WebfarmAccount
    {
        [DllImport("advapi32.dll", SetLastError = true, CharSet = CharSet.Unicode)]
        private static extern bool LookupAccountNameW(string system, string account, byte[] sid, ref uint sidSize, StringBuilder domain, ref uint domainSize, out int use);

        private const int NoneMapped = 1332;

        /// <summary>0 where the name resolves, else the Win32 code: 1332 for a name that does not exist, others where nobody could be asked.</summary>
        public static int Resolve(string name)
        {
            string asked = name.StartsWith(".\\", StringComparison.Ordinal) ? Environment.MachineName + name.Substring(1) : name;
            uint sidSize = 68, domainSize = 256;
            int use;
            if (LookupAccountNameW(null, asked, new byte[sidSize], ref sidSize, new StringBuilder((int)domainSize), ref domainSize, out use)) return 0;
            int code = Marshal.GetLastWin32Error();
            return code == 0 ? NoneMapped : code;
        }
    }

    /// <summary>The certificate bindings of http.sys, which netsh http show sslcert lists.</summary>
    public static class WebfarmCertificateBinding
    {
        [StructLayout(LayoutKind.Sequential)]
        private struct Version
        {
            internal ushort Major;
            internal ushort Minor;
        }

        [DllImport("httpapi.dll")]
        private static extern uint HttpInitialize(Version version, uint flags, IntPtr reserved);
        [DllImport("httpapi.dll")]
        private static extern uint HttpTerminate(uint flags, IntPtr reserved);
        [DllImport("httpapi.dll")]
        private static extern uint HttpQueryServiceConfiguration(IntPtr handle, int id, IntPtr input, uint inputSize, IntPtr output, uint outputSize, out uint returned, IntPtr overlapped);

        private const uint ConfigFlag = 2, Enough = 0, MoreData = 122, NoMore = 259, NotFound = 2;
        private const int SslCertInfo = 1, SslSniCertInfo = 8;

        /// <summary>Every binding as address:port ([address]:port for IPv6) or host:port. Null where http.sys could not be asked.</summary>
        public static string[] List()
        {
            Version version;
            version.Major = 1;
            version.Minor = 0;
            if (HttpInitialize(version, ConfigFlag, IntPtr.Zero) != Enough) return null;
            try
            {
                List<string> found = new List<string>();
                return Collect(SslCertInfo, found) && Collect(SslSniCertInfo, found) ? found.ToArray() : null;
            }
            finally
            {
                HttpTerminate(ConfigFlag, IntPtr.Zero);
            }
        }

        private static bool Collect(int id, List<string> found)
        {
            // HTTP_SERVICE_CONFIG_SSL_QUERY { QueryDesc; KeyDesc; dwToken }: the key is a pointer to a SOCKADDR, or for SNI a
            // SOCKADDR_STORAGE of 128 bytes and a pointer to the host's name.
            int key = IntPtr.Size, token = id == SslCertInfo ? key + IntPtr.Size : key + 128 + IntPtr.Size;
            if (id == SslSniCertInfo) key = 8;
            if (id == SslSniCertInfo) token = key + 128 + IntPtr.Size;
            uint size = (uint)(token + 8);
            IntPtr query = Marshal.AllocHGlobal((int)size);
            try
            {
                for (int n = 0; n < 10000; n++)
                {
                    for (int i = 0; i < size; i++) Marshal.WriteByte(query, i, 0);
                    Marshal.WriteInt32(query, 1); // HttpServiceConfigQueryNext
                    Marshal.WriteInt32(query, token, n);
                    uint need;
                    uint code = HttpQueryServiceConfiguration(IntPtr.Zero, id, query, size, IntPtr.Zero, 0, out need, IntPtr.Zero);
                    if (code == NoMore || code == NotFound) return true;
                    if (code != MoreData || need == 0 || need > 1024 * 1024) return false;
                    IntPtr answer = Marshal.AllocHGlobal((int)need);
                    try
                    {
                        code = HttpQueryServiceConfiguration(IntPtr.Zero, id, query, size, answer, need, out need, IntPtr.Zero);
                        if (code != Enough) return false;
                        found.Add(id == SslCertInfo ? Address(Marshal.ReadIntPtr(answer)) : Marshal.PtrToStringUni(Marshal.ReadIntPtr(answer, 128)) + ":" + Port(answer));
                    }
                    finally
                    {
                        Marshal.FreeHGlobal(answer);
                    }
                }
                return true;
            }
            finally
            {
                Marshal.FreeHGlobal(query);
            }
        }

        private static int Port(IntPtr address)
        {
            return Marshal.ReadByte(address, 2) << 8 | Marshal.ReadByte(address, 3);
        }

        private static string Address(IntPtr address)
        {
            bool six = Marshal.ReadInt16(address) == 23;
            byte[] bytes = new byte[six ? 16 : 4];
            Marshal.Copy(new IntPtr(address.ToInt64() + (six ? 8 : 4)), bytes, 0, bytes.Length);
            System.Net.IPAddress ip = new System.Net.IPAddress(bytes);
            return (six ? "[" + ip + "]" : ip.ToString()) + ":" + Port(address);
        }
    }

    /// <summary>Values that differ per server, put into a file; every other byte stays. The same rules as in plugin_utils/_overrides.py.</summary>
    public static class WebfarmOverride
    {
        private const string Option = "overrides";

        /// <summary>The value at an attribute path, null where there is none.</summary>
        public static string Value(WebfarmConfigurationFile file, string path)
        {
            foreach (WebfarmConfigurationFile.Attribute attribute in file.Attributes)
                if (attribute.Path == path) return attribute.Value;
            return null;
        }

        public static byte[] Apply(WebfarmConfigurationFile file, IDictionary<string, string> values)
        {
            Dictionary<string, WebfarmConfigurationFile.Attribute> found = new Dictionary<string, WebfarmConfigurationFile.Attribute>();
            HashSet<string> twice = new HashSet<string>();
            foreach (WebfarmConfigurationFile.Attribute attribute in file.Attributes)
            {
                if (found.ContainsKey(attribute.Path)) twice.Add(attribute.Path);
                found[attribute.Path] = attribute;
            }
            Dictionary<string, string> changes = new Dictionary<string, string>();
            foreach (KeyValuePair<string, string> one in values)
            {
                WebfarmConfigurationFile.Attribute attribute;
                if (!found.TryGetValue(one.Key, out attribute)) throw Refused(file, one.Key, "there is no such attribute" + Candidates(file, one.Key));
                if (twice.Contains(one.Key)) throw Refused(file, one.Key, "the path is not unique in the file");
                string problem = Problem(attribute, one.Value);
                if (problem != null) throw Refused(file, one.Key, problem);
                // An unchanged value keeps its spelling.
                if (attribute.Value != one.Value) changes.Add(one.Key, one.Value);
            }
            return changes.Count == 0 ? file.Bytes : WebfarmConfiguration.Replace(file, changes);
        }

        private static WebfarmConfigurationException Refused(WebfarmConfigurationFile file, string path, string reason)
        {
            return new WebfarmConfigurationException(file.Name, 0, String.Format("{0}: {1}: {2}", Option, path, reason));
        }

        private static string Problem(WebfarmConfigurationFile.Attribute attribute, string value)
        {
            string name = attribute.Name.ToLowerInvariant();
            if (attribute.Path.StartsWith("configProtectedData/", StringComparison.Ordinal))
                return "providers and session keys belong to the key set, use webfarm.iis.config with a bundle";
            if (attribute.Value.StartsWith("[enc:", StringComparison.Ordinal) || name.EndsWith("password", StringComparison.Ordinal) || name == "encryptedvalue")
                return "the attribute is encrypted or meant to be, set it with webfarm.iis.secret";
            if (value.StartsWith("[enc:", StringComparison.Ordinal)) return "a protected value cannot be given, set it with webfarm.iis.secret";
            if (attribute.Owner.Label.StartsWith(attribute.Owner.Name + "[@" + attribute.Name + "=", StringComparison.Ordinal))
                return "this attribute tells its element apart from others, change it in the file itself";
            return null;
        }

        private static string Plain(string path)
        {
            StringBuilder text = new StringBuilder();
            char quote = '\0';
            int depth = 0;
            foreach (char c in path)
            {
                if (quote != '\0')
                {
                    if (c == quote) quote = '\0';
                    continue;
                }
                if (depth > 0 && (c == '\'' || c == '"')) quote = c;
                else if (c == '[') depth++;
                else if (c == ']' && depth > 0) depth--;
                else if (depth == 0) text.Append(c);
            }
            return text.ToString();
        }

        private static string Candidates(WebfarmConfigurationFile file, string path)
        {
            string plain = Plain(path), owner = path.LastIndexOf("/@", StringComparison.Ordinal) > 0 ? path.Substring(0, path.LastIndexOf("/@", StringComparison.Ordinal)) : "";
            List<string> same = new List<string>(), beside = new List<string>();
            foreach (WebfarmConfigurationFile.Attribute attribute in file.Attributes)
            {
                if (String.Equals(Plain(attribute.Path), plain, StringComparison.OrdinalIgnoreCase)) same.Add(attribute.Path);
                else if (attribute.Owner.Path == owner) beside.Add(attribute.Path);
            }
            List<string> shown = same.Count > 0 ? same : beside;
            if (shown.Count == 0) return "";
            string more = shown.Count > 5 ? String.Format(" and {0} more", shown.Count - 5) : "";
            return "; near to it: " + String.Join(", ", shown.GetRange(0, Math.Min(5, shown.Count)).ToArray()) + more;
        }
    }
}
