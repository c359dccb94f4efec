// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

// A folder that only SYSTEM and Administrators enter, and files in it that survive a power cut.
// %ProgramData% lets every user create folders, so a folder that is found is believed only when an administrator owns it.

using System;
using System.Collections.Generic;
using System.ComponentModel;
using System.IO;
using System.Runtime.InteropServices;
using System.Security.AccessControl;
using System.Security.Principal;

//TypeAccelerator -Name WebfarmProtectedFolder -TypeName WebfarmProtectedFolder

namespace ansible_collections.webfarm.iis.plugins.module_utils._ProtectedFolder
{
    internal static class FolderNative
    {
        [StructLayout(LayoutKind.Sequential)]
        internal struct SECURITY_ATTRIBUTES
        {
            public uint Length;
            public IntPtr SecurityDescriptor;
            public int InheritHandle;
        }

        [DllImport("advapi32.dll", CharSet = CharSet.Unicode, SetLastError = true)]
        [return: MarshalAs(UnmanagedType.Bool)]
        internal static extern bool ConvertStringSecurityDescriptorToSecurityDescriptorW(
            string sddl, uint revision, out IntPtr descriptor, IntPtr size);

        [DllImport("kernel32.dll", CharSet = CharSet.Unicode, SetLastError = true)]
        [return: MarshalAs(UnmanagedType.Bool)]
        internal static extern bool CreateDirectoryW(string path, ref SECURITY_ATTRIBUTES attributes);

        [DllImport("advapi32.dll", CharSet = CharSet.Unicode, SetLastError = true)]
        [return: MarshalAs(UnmanagedType.Bool)]
        internal static extern bool GetFileSecurityW(string path, uint information, byte[] descriptor, uint length, out uint needed);

        [DllImport("kernel32.dll", CharSet = CharSet.Unicode, SetLastError = true)]
        [return: MarshalAs(UnmanagedType.Bool)]
        internal static extern bool MoveFileExW(string from, string to, uint flags);

        [DllImport("kernel32.dll")]
        internal static extern IntPtr LocalFree(IntPtr memory);
    }

    public static class WebfarmProtectedFolder
    {
        private const string Descriptor = "O:BAG:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)";
        private const int ErrorAlreadyExists = 183;

        // Makes the folder with its access list in one step, or checks the one that is there.
        public static void Ensure(string path)
        {
            IntPtr descriptor;
            if (!FolderNative.ConvertStringSecurityDescriptorToSecurityDescriptorW(Descriptor, 1, out descriptor, IntPtr.Zero))
            {
                throw new Win32Exception();
            }
            try
            {
                FolderNative.SECURITY_ATTRIBUTES attributes = new FolderNative.SECURITY_ATTRIBUTES();
                attributes.Length = (uint)Marshal.SizeOf(typeof(FolderNative.SECURITY_ATTRIBUTES));
                attributes.SecurityDescriptor = descriptor;
                if (!FolderNative.CreateDirectoryW(path, ref attributes))
                {
                    int error = Marshal.GetLastWin32Error();
                    if (error != ErrorAlreadyExists)
                    {
                        throw new IOException("The folder " + path + " cannot be made: " + new Win32Exception(error).Message);
                    }
                }
            }
            finally
            {
                FolderNative.LocalFree(descriptor);
            }
            string problem = Problem(path);
            if (problem != null)
            {
                throw new UnauthorizedAccessException("The folder " + path + " is not safe to use: " + problem +
                    ". Look at what it holds, remove it, and run again.");
            }
        }

        // Why the folder must not be used, or null. It must be a real folder, owned by SYSTEM or an administrator,
        // and readable by nobody else.
        public static string Problem(string path)
        {
            FileAttributes attributes = File.GetAttributes(path);
            if ((attributes & FileAttributes.Directory) == 0)
            {
                return "it is a file";
            }
            if ((attributes & FileAttributes.ReparsePoint) != 0)
            {
                return "it is a link to another place";
            }
            const uint ownerAndAccess = 1 | 4;
            uint needed;
            FolderNative.GetFileSecurityW(path, ownerAndAccess, null, 0, out needed);
            byte[] bytes = new byte[needed];
            if (!FolderNative.GetFileSecurityW(path, ownerAndAccess, bytes, needed, out needed))
            {
                throw new IOException("The access list of " + path + " cannot be read: " + new Win32Exception().Message);
            }
            List<SecurityIdentifier> trusted = new List<SecurityIdentifier>();
            trusted.Add(new SecurityIdentifier("S-1-5-18"));
            trusted.Add(new SecurityIdentifier("S-1-5-32-544"));
            using (WindowsIdentity me = WindowsIdentity.GetCurrent())
            {
                trusted.Add(me.User);
            }
            RawSecurityDescriptor found = new RawSecurityDescriptor(bytes, 0);
            if (found.Owner == null || !trusted.Contains(found.Owner))
            {
                return "it belongs to " + (found.Owner == null ? "nobody" : found.Owner.Value);
            }
            if (found.DiscretionaryAcl == null)
            {
                return "it has no access list";
            }
            foreach (GenericAce entry in found.DiscretionaryAcl)
            {
                CommonAce ace = entry as CommonAce;
                if (ace == null || ace.AceQualifier == AceQualifier.AccessDenied || ace.AccessMask == 0)
                {
                    continue;
                }
                if (!trusted.Contains(ace.SecurityIdentifier))
                {
                    return ace.SecurityIdentifier.Value + " has access to it";
                }
            }
            return null;
        }

        // Writes a file so that after a crash either the old or the new content is there, complete.
        public static void WriteFile(string path, byte[] content)
        {
            string beside = path + ".new";
            using (FileStream stream = new FileStream(beside, FileMode.Create, FileAccess.Write, FileShare.None, 4096, FileOptions.WriteThrough))
            {
                stream.Write(content, 0, content.Length);
                stream.Flush(true);
            }
            const uint replaceExisting = 1;
            const uint writeThrough = 8;
            if (!FolderNative.MoveFileExW(beside, path, replaceExisting | writeThrough))
            {
                throw new IOException("The file " + path + " cannot be written: " + new Win32Exception().Message);
            }
        }
    }
}
